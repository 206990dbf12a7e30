"""The commands that move models between the store and a registry: pull, push. The server does the work."""

from __future__ import annotations

from contextlib import closing

import click

from olm.cli.client import Client
from olm.cli.progress import Progress, StatusLines
from olm.units import parse_bytes

__all__ = ["follow", "pull_command", "pull_model", "push_command"]


def follow(client: Client, path: str, body: dict[str, object]) -> None:
    """Run a job of the server, showing its statuses on stderr until it is done.

    Raises:
        OlmError: the job failed; the lines shown so far stay on the screen.
    """
    with Progress() as progress, closing(client.stream("POST", path, body)) as events:
        lines = StatusLines(progress)
        for event in events:
            lines.show(event)


def pull_model(client: Client, model: str, *, insecure: bool, limit_rate: int = 0) -> None:
    """Have the server pull a model from its registry; `limit_rate` is bytes a second, 0 for no limit."""
    follow(client, "/api/pull", _body(model, insecure=insecure, limit_rate=limit_rate))


def _body(model: str, *, insecure: bool, limit_rate: int) -> dict[str, object]:
    # Ollama's servers know no limit; they get what they know.
    limit = {"limit_rate": limit_rate} if limit_rate else {}
    return {"model": model, "insecure": insecure, **limit}


def _rate(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int:
    return parse_bytes(value) if value else 0


_LIMIT = click.option(
    "--limit-rate",
    metavar="BYTES",
    callback=_rate,
    help="The most bytes a second, such as 10MB or 500KiB.",
)


@click.command("pull", short_help="Pull a model from a registry")
@click.argument("model")
@click.option("--insecure", is_flag=True, help="Allow a registry without TLS.")
@_LIMIT
def pull_command(model: str, *, insecure: bool, limit_rate: int) -> None:
    """Download MODEL from its registry into the store."""
    pull_model(Client(), model, insecure=insecure, limit_rate=limit_rate)


@click.command("push", short_help="Push a model to a registry")
@click.argument("model")
@click.option("--insecure", is_flag=True, help="Allow a registry without TLS.")
@_LIMIT
def push_command(model: str, *, insecure: bool, limit_rate: int) -> None:
    """Upload MODEL to its registry."""
    body = _body(model, insecure=insecure, limit_rate=limit_rate)
    follow(Client(), "/api/push", body)
    click.echo(f"\nYou can find your model at:\n\n\t{_whereabouts(model)}")


def _whereabouts(model: str) -> str:
    """Where a pushed model is to be found, as Ollama's `PushHandler` (cmd/cmd.go) tells it."""
    from olm.store.names import ModelName

    name = ModelName.parse(model)
    if name.host.endswith((".ollama.ai", ".ollama.com")):
        return f"https://ollama.com/{name.shortest.removesuffix(':latest')}"
    return str(name)
