"""`olm keys`: make, list and remove API keys. Works on the file of keys; a running server notices within a second."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import click

from olm.api.keys import SCOPES, Scope, add_key, read_keys, remove_key
from olm.cli.text import table
from olm.config import read_settings
from olm.errors import InvalidRequest

__all__ = ["keys_command"]


@click.group("keys", short_help="Make, list and remove API keys")
def keys_command() -> None:
    """Make, list and remove the keys with which clients on other machines may use the server.

    They are kept as hashes in the file OLM_API_KEYS names, by default keys.json in OLM_HOME.
    """


@keys_command.command("add")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    default="infer",
    show_default=True,
    help=f"What the key may do, comma separated: {', '.join(SCOPES)}.",
)
def _add(name: str, *, scopes: str) -> None:
    """Make a key called NAME and print it. It is shown only this once."""
    secret = add_key(
        _path(), name, _scopes(scopes), created_at=datetime.now(UTC).isoformat(timespec="seconds")
    )
    click.echo(secret)
    click.echo("Keep it: it is not shown again.", err=True)


@keys_command.command("list")
def _list() -> None:
    """List the keys, without what they are."""
    rows = [("NAME", "SCOPES", "CREATED")]
    rows += [
        (key.name, ",".join(key.scopes), key.created_at[:10]) for key in read_keys(_path()) or ()
    ]
    for line in table(rows):
        click.echo(line)


@keys_command.command("remove")
@click.argument("name")
def _remove(name: str) -> None:
    """Remove the key called NAME; its clients are refused from now on."""
    if remove_key(_path(), name) == 0:
        click.echo(
            f"No key is left, so clients elsewhere are all refused. To serve them without keys, remove {_path()} "
            "and restart the server.",
            err=True,
        )


def _path() -> Path:
    path = read_settings().api_keys
    assert path is not None, "settings read from the environment name a file"
    return path


def _scopes(text: str) -> Sequence[Scope]:
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [part for part in wanted if part not in SCOPES]
    if unknown:
        raise InvalidRequest(f"no such scope: {unknown[0]!r}; there are {', '.join(SCOPES)}")
    return cast("list[Scope]", wanted)  # each was found in SCOPES
