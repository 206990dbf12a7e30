"""The commands that put models into archives and take them out again: export, import.

A server on this machine reads and writes the file itself; with a server elsewhere, and for `-`, the archive goes through
the connection.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

import click

from olm.cli.client import Client
from olm.cli.progress import Progress
from olm.cli.transfer import follow
from olm.errors import InvalidRequest, OlmError

__all__ = ["export_command", "import_command"]

PIECE_BYTES: Final = 1 << 20
FORBIDDEN: Final = 403


@click.command("export", short_help="Write models to an archive")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.argument("path")
@click.option("--compress", is_flag=True, help="Compress with zstd.")
def export_command(models: tuple[str, ...], path: str, *, compress: bool) -> None:
    """Write MODEL... to the archive PATH: a file, a folder (PATH/), or - for standard output."""
    if not path:
        raise InvalidRequest("the archive needs a path, or - for standard output")
    client = Client()
    body: dict[str, object] = {"models": list(models), "compress": compress}
    if path == "-":
        if sys.stdout.isatty():
            raise InvalidRequest("an archive is not for a terminal: redirect it, or name a file")
        _download(client, body, sys.stdout.buffer)
        return
    if client.is_local:
        with suppress(_Elsewhere):
            _follow(client, "/api/export", {**body, "path": _absolute(path)})
            return
    if path.endswith("/") or Path(path).is_dir():
        raise InvalidRequest("a server elsewhere cannot write a folder here; name a file")
    _download_to(client, body, Path(path))


@click.command("import", short_help="Read models from an archive")
@click.argument("path")
@click.option("--name", default="", metavar="MODEL", help="What to call the only model of it.")
def import_command(path: str, *, name: str) -> None:
    """Read models from the archive or folder PATH, or from standard input for -."""
    if not path:
        raise InvalidRequest("the archive needs a path, or - for standard input")
    client = Client()
    if path == "-":
        if sys.stdin.isatty():
            raise InvalidRequest("nobody types an archive: pipe it in, or name a file")
        _upload(client, name, sys.stdin.buffer)
        return
    if client.is_local:
        with suppress(_Elsewhere):
            _follow(client, "/api/import", {"path": _absolute(path), "name": name})
            return
    try:
        with Path(path).open("rb", buffering=0) as file:
            _upload(client, name, file)
    except OSError as exc:
        raise InvalidRequest(f"cannot read {path}: {exc.strerror}") from exc


class _Elsewhere(Exception):
    """The server does not take us for a client of its own machine."""


def _follow(client: Client, path: str, body: dict[str, object]) -> None:
    try:
        follow(client, path, body)
    except OlmError as exc:
        if exc.http_status == FORBIDDEN:
            raise _Elsewhere from exc
        raise


def _absolute(path: str) -> str:
    """The path from the root, links kept; a slash at its end says that it is a folder."""
    return os.path.abspath(path) + ("/" if path.endswith("/") else "")


def _download(client: Client, body: dict[str, object], out: IO[bytes]) -> None:
    with closing(client.download("/api/export", body)) as pieces:
        for piece in pieces:
            out.write(piece)
    out.flush()


def _download_to(client: Client, body: dict[str, object], path: Path) -> None:
    if path.exists():
        raise InvalidRequest(f"{path} exists already")
    temp = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temp.open("xb") as file, Progress() as progress:
            progress.spinner(f"exporting to {path}")
            _download(client, body, file)
            os.fsync(file.fileno())
        temp.rename(path)
    except OSError as exc:
        raise OlmError(f"cannot write {path}: {exc.strerror}") from exc
    finally:
        with suppress(OSError):
            temp.unlink()


def _upload(client: Client, name: str, file: IO[bytes]) -> None:
    target = "/api/import" + (f"?name={quote(name, safe='')}" if name else "")
    with Progress() as progress:
        spinner = progress.spinner("importing")
        client.send_pieces(target, "application/x-tar", _pieces(file))
        progress.finish(spinner)
        progress.spinner("success")


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(PIECE_BYTES):
        yield piece
