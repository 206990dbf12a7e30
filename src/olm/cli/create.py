"""The `create` command: read a Modelfile, upload the files it names, have the server make the model.

What FROM and ADAPTER mean is decided here, on the side that has the files (spec §5.4): an existing path is uploaded by
its SHA-256, anything else is a model name. Reading the language itself is `olm.modelfile`'s.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import attrs
import click

from olm.cli.client import Client
from olm.cli.progress import Progress, StatusLines
from olm.cli.wire import Json, integer, text
from olm.errors import InvalidRequest, NotYetSupported
from olm.modelfile import ModelSpec, parse_modelfile, spec_of

__all__ = ["Sources", "create_body", "create_command", "find_sources", "upload_files"]

DEFAULT_MODELFILE: Final = "Modelfile"
MAGIC: Final = b"GGUF"
HASH_PIECE: Final = 1 << 20
_PATH_STARTS: Final = ("/", "./", "../", "~")
_UNCONVERTED: Final = ("*.safetensors", "*.bin", "*.pth")


@attrs.frozen
class Sources:
    """What the values of FROM (or ADAPTER, or DRAFT) turned out to be: files to upload, and the model name if any."""

    files: tuple[Path, ...] = ()
    model: str = ""


def find_sources(values: Sequence[str], folder: Path) -> Sources:
    """Tell paths from model names.

    Args:
        values: as written in the Modelfile; `~`, absolute, or relative to `folder`, where the Modelfile is.

    Raises:
        InvalidRequest: a path that does not exist, a folder without weights, two model names.
        NotYetSupported: weights that would have to be converted.
    """
    files: list[Path] = []
    model = ""
    for value in values:
        path = folder / Path(value).expanduser()
        if path.is_dir():
            files += _weights_in(path)
        elif path.exists():
            _check_weights(path)
            files.append(path)
        elif value.startswith(_PATH_STARTS) or value.lower().endswith(".gguf"):
            raise InvalidRequest(f"no such file: {path}")
        elif model:
            raise InvalidRequest(f"two base models, {model} and {value}; only one can be FROM")
        else:
            model = value
    return Sources(tuple(files), model)


def _weights_in(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.gguf"))
    root = folder.resolve()
    for path in found:
        if not path.resolve().is_relative_to(root):
            raise InvalidRequest(f"insecure path: {path}")
        _check_weights(path)
    if found:
        return found
    if any(next(folder.glob(pattern), None) for pattern in _UNCONVERTED):
        raise _unconverted(folder)
    raise InvalidRequest("no Modelfile or safetensors files found")


def _check_weights(path: Path) -> None:
    """Refuse here, before gigabytes travel, what the server would refuse after."""
    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
    except OSError as exc:
        raise InvalidRequest(f"cannot read {path}: {exc.strerror}") from exc
    if magic == MAGIC:
        return
    if path.suffix in (".safetensors", ".bin", ".pth"):
        raise _unconverted(path)
    raise InvalidRequest(f"supplied file was not in GGUF format: {path}")


def _unconverted(path: Path) -> NotYetSupported:
    return NotYetSupported(
        f"{path}: making a model from safetensors or PyTorch files is not supported yet;"
        " convert it to GGUF first"
    )


def upload_files(client: Client, paths: Sequence[Path], progress: Progress) -> dict[str, str]:
    """Upload the files the server does not have.

    Returns:
        For each file its name relative to the folder they share, and its digest, as /api/create wants them.
    """
    named: dict[str, str] = {}
    for name, path in named_files(paths):
        try:
            named[name] = _upload(client, path, progress)
        except OSError as exc:
            raise InvalidRequest(f"cannot read {path}: {exc.strerror}") from exc
    return named


def named_files(paths: Sequence[Path]) -> list[tuple[str, Path]]:
    """Files with their names relative to the folder they share."""
    if not paths:
        return []
    root = os.path.commonpath([path.parent for path in paths])
    return [(path.relative_to(root).as_posix(), path) for path in paths]


def _upload(client: Client, path: Path, progress: Progress) -> str:
    digest = _digest(path, progress)
    where = f"/api/blobs/{digest}"
    if client.exists(where):
        return digest
    size_bytes = path.stat().st_size
    spinner = progress.spinner(f"copying file {digest}", 0.0)

    def on_sent(sent_bytes: int) -> None:
        spinner.done_frac = sent_bytes / size_bytes

    with path.open("rb", buffering=0) as file:
        client.upload(where, file, size_bytes, on_sent)
    progress.finish(spinner)
    return digest


def _digest(path: Path, progress: Progress) -> str:
    hasher = hashlib.sha256()
    size_bytes = path.stat().st_size
    spinner = progress.spinner(f"hashing file {path.name}", 0.0)
    done_bytes = 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(HASH_PIECE):
            hasher.update(piece)
            done_bytes += len(piece)
            spinner.done_frac = min(done_bytes / max(size_bytes, 1), 1.0)
    progress.finish(spinner)
    return f"sha256:{hasher.hexdigest()}"


def create_body(model: str, spec: ModelSpec, quantize: str = "") -> Json:
    """The fields of /api/create that do not come from files; unset ones are left out."""
    messages = spec.messages or ()
    fields: Json = {
        "model": model,
        "quantize": quantize,
        "template": spec.template,
        "system": spec.system,
        "license": list(spec.licenses),
        "parameters": dict(spec.parameters),
        "messages": [{"role": role, "content": content} for role, content in messages],
        "renderer": spec.renderer,
        "parser": spec.parser,
        "requires": spec.requires,
    }
    # An empty TEMPLATE or SYSTEM clears the base model's, so these two are sent whenever they are written.
    kept = ("template", "system")
    return {
        key: value for key, value in fields.items() if value or (key in kept and value is not None)
    }


def _read_modelfile(file: str) -> tuple[ModelSpec, Path]:
    """The Modelfile's content and its folder. Without any, and none asked for, the folder itself is the source."""
    path = Path(file or DEFAULT_MODELFILE)
    try:
        source: bytes | str = path.read_bytes()
    except FileNotFoundError:
        if file:
            raise InvalidRequest(f"specified Modelfile wasn't found: {path}") from None
        source = "FROM .\n"
    except OSError as exc:
        raise InvalidRequest(f"cannot read {path}: {exc.strerror}") from exc
    return spec_of(parse_modelfile(source)), path.absolute().parent


@click.command("create", short_help="Create a model from a Modelfile")
@click.argument("model")
@click.option("-f", "--file", default="", help="The Modelfile.  [default: Modelfile]")
@click.option("-q", "--quantize", default="", metavar="TYPE", help="Quantize to this type: q4_K_M.")
@click.option("--link", is_flag=True, help="Run GGUF files where they are instead of copying them.")
def create_command(model: str, *, file: str, quantize: str, link: bool) -> None:
    """Create MODEL from a Modelfile, or from the GGUF files of this folder if it has none."""
    spec, folder = _read_modelfile(file)
    for warning in spec.warnings:
        click.echo(warning)
    client = Client()
    with Progress() as progress:
        gathering = progress.spinner("gathering model components")
        weights = find_sources(spec.sources, folder)
        adapters = find_sources(spec.adapters, folder)
        drafts = find_sources(spec.drafts, folder)
        if adapters.model or drafts.model:
            raise InvalidRequest(f"no such file: {folder / (adapters.model or drafts.model)}")
        progress.finish(gathering)
        body = create_body(model, spec, quantize)
        if weights.model:
            body["from"] = weights.model
        links: dict[str, str] = {}
        for field, sources in (
            ("files", weights),
            ("adapters", adapters),
            ("draft_files", drafts),
        ):
            if sources.files and link:
                links |= {name: str(path.resolve()) for name, path in named_files(sources.files)}
            elif sources.files:
                body[field] = upload_files(client, sources.files, progress)
        if links:
            body["links"] = links
        with closing(client.stream("POST", "/api/create", body)) as events:
            lines = StatusLines(progress)
            for event in events:
                if link:
                    _check_same_file(event, links)
                lines.show(event)


def _check_same_file(event: Json, links: Mapping[str, str]) -> None:
    """A server in a container may have another file at the same path; it tells the size before it reads it."""
    path = text(event, "digest")
    if path in links.values() and integer(event, "total") != Path(path).stat().st_size:
        raise InvalidRequest(
            f"the server has another file at {path}; create the model without --link to upload this one"
        )
