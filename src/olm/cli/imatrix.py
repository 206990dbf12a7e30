"""The command that makes an importance matrix: imatrix. The text goes to the server, the file comes back."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import IO

import click

from olm.cli.client import Client
from olm.cli.progress import Progress, Spinner
from olm.cli.wire import Json, integer, text
from olm.errors import InvalidRequest, OlmError

__all__ = ["imatrix_command"]


@click.command("imatrix", short_help="Measure what quantization must keep")
@click.argument("model")
@click.option(
    "-f", "--file", "source", required=True, metavar="TEXT", help="The text, - for stdin."
)
@click.option(
    "-o", "--output", metavar="FILE", help="The file to write.  [default: MODEL.imatrix.gguf]"
)
@click.option("--chunks", default=0, metavar="N", help="Read N chunks of the text at most.")
@click.option("--ctx", default=0, metavar="N", help="Tokens of a chunk.  [default: 512]")
@click.option("--parse-special", is_flag=True, help="Special tokens written in the text are such.")
@click.option(
    "--threads", "num_thread", default=0, metavar="N", help="Threads.  [default: one a core]"
)
@click.option("--gpu-layers", "num_gpu", default=0, metavar="N", help="Layers computed by a GPU.")
def imatrix_command(model: str, source: str, output: str | None, **options: int) -> None:
    """Let MODEL read TEXT, and write how much each column of its weights matters: for `olm create --imatrix`."""
    path = Path(output or f"{_file_name(model)}.imatrix.gguf")
    if path.is_dir():
        raise InvalidRequest(f"{path} is a folder; name a file")
    body: Json = {
        "model": model,
        "text": _read(source),
        "dataset": Path(source).name if source != "-" else "",
        **options,
    }
    temp = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temp.open("xb") as file:
            _fetch(Client(), body, file)
            os.fsync(file.fileno())
        temp.replace(path)
    except OSError as exc:
        raise OlmError(f"cannot write {path}: {exc.strerror}") from exc
    finally:
        with suppress(OSError):
            temp.unlink()
    click.echo(f"wrote {path}")


def _file_name(model: str) -> str:
    """A model's name as that of a file: its own part, the tag behind a dash."""
    name = model.rpartition("/")[2]
    return name.removesuffix(":latest").replace(":", "-") or "model"


def _read(source: str) -> str:
    try:
        if source == "-":
            return sys.stdin.buffer.read().decode("utf-8", "replace")
        return Path(source).read_bytes().decode("utf-8", "replace")
    except OSError as exc:
        raise InvalidRequest(f"cannot read {source}: {exc.strerror}") from exc


def _fetch(client: Client, body: Json, file: IO[bytes]) -> None:
    """Follow the job and write what it sends. Raises OlmError unless all of the file came."""
    digest = hashlib.sha256()
    expected = ""
    with Progress() as progress, closing(client.stream("POST", "/api/imatrix", body)) as events:
        shown = _Shown(progress)
        for event in events:
            piece = _decoded(text(event, "data"))
            digest.update(piece)
            file.write(piece)
            expected = text(event, "digest")
            shown.show(event)
    if expected != f"sha256:{digest.hexdigest()}":
        raise OlmError("the imatrix did not come whole; try again")


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as exc:
        raise OlmError("the server sent what is no base64") from exc


class _Shown:
    """A spinner for each status, with the part of the text that is read."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._spinner: Spinner | None = None

    def show(self, event: Json) -> None:
        status, total = text(event, "status"), integer(event, "total")
        if self._spinner is None or self._spinner.message != status:
            if self._spinner is not None:
                self._progress.finish(self._spinner)
            self._spinner = self._progress.spinner(status)
        is_measured = total and not text(event, "digest")
        self._spinner.done_frac = integer(event, "completed") / total if is_measured else None
