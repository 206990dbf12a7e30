"""The `create` command: read a Modelfile, upload the files it names, have the server make the model.

What FROM and ADAPTER mean is decided here, on the side that has the files (spec §5.4): an existing path is uploaded by
its SHA-256, anything else is a model name. Reading the language itself is `olm.modelfile`'s.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event
from typing import Final

import attrs
import click

from olm.cli.client import Client
from olm.cli.progress import Progress, Spinner, StatusLines
from olm.cli.wire import Json, integer, text
from olm.errors import InvalidRequest, NotYetSupported
from olm.modelfile import ModelSpec, parse_modelfile, spec_of

__all__ = ["Sources", "create_body", "create_command", "find_sources", "upload_files"]

DEFAULT_MODELFILE: Final = "Modelfile"
MAGIC: Final = b"GGUF"
HASH_PIECE: Final = 1 << 20
MAX_HASHERS: Final = 8
"""More only wait for the disk."""
_PATH_STARTS: Final = ("/", "./", "../", "~")
_LINKED: Final = ("files", "adapters")
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
    named = named_files(paths)
    shown = [(path, progress.spinner(f"hashing file {path.name}", 0.0)) for _, path in named]
    digests: dict[str, str] = {}
    is_over = Event()
    with ThreadPoolExecutor(max(min(len(named), os.cpu_count() or 1, MAX_HASHERS), 1)) as threads:
        hashed = [threads.submit(_digest, *item, progress, is_over) for item in shown]
        try:
            for (name, path), digest in zip(named, hashed, strict=True):
                digests[name] = _upload(client, path, digest.result(), progress)
        finally:
            is_over.set()  # after Ctrl-C nobody waits for gigabytes to be hashed
    return digests


def named_files(paths: Sequence[Path]) -> list[tuple[str, Path]]:
    """Files with their names relative to the folder they share."""
    if not paths:
        return []
    root = os.path.commonpath([path.parent for path in paths])
    return [(path.relative_to(root).as_posix(), path) for path in paths]


def _upload(client: Client, path: Path, digest: str, progress: Progress) -> str:
    where = f"/api/blobs/{digest}"
    if client.exists(where):
        return digest
    with _reading(path):
        size_bytes = path.stat().st_size
        spinner = progress.spinner(f"copying file {digest}", 0.0)

        def on_sent(sent_bytes: int) -> None:
            spinner.done_frac = sent_bytes / size_bytes

        with path.open("rb", buffering=0) as file:
            client.upload(where, file, size_bytes, on_sent)
    progress.finish(spinner)
    return digest


def _digest(path: Path, spinner: Spinner, progress: Progress, is_over: Event) -> str:
    """Hash a file, in a thread: hashing leaves the interpreter to others. What is `is_over` is not finished."""
    hasher = hashlib.sha256()
    with _reading(path):
        size_bytes = path.stat().st_size
        done_bytes = 0
        with path.open("rb", buffering=0) as file:
            while not is_over.is_set() and (piece := file.read(HASH_PIECE)):
                hasher.update(piece)
                done_bytes += len(piece)
                spinner.done_frac = min(done_bytes / max(size_bytes, 1), 1.0)
    progress.finish(spinner)
    return f"sha256:{hasher.hexdigest()}"


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise InvalidRequest(f"cannot read {path}: {exc.strerror}") from exc


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
        sources = _gather(spec, folder)
        progress.finish(gathering)
        body = create_body(model, spec, quantize)
        if sources["files"].model:
            body["from"] = sources["files"].model
        links = _links(client, sources) if link else {}
        if links:
            body["links"] = links
        for field, found in sources.items():
            if found.files and not (links and field in _LINKED):
                body[field] = upload_files(client, found.files, progress)
        with closing(client.stream("POST", "/api/create", body)) as events:
            lines = StatusLines(progress)
            for event in events:
                _check_same_file(event, links)
                lines.show(event)


def _gather(spec: ModelSpec, folder: Path) -> dict[str, Sources]:
    """What the Modelfile names, by the fields of /api/create. Raises InvalidRequest, NotYetSupported."""
    weights, adapters, drafts = (
        find_sources(values, folder) for values in (spec.sources, spec.adapters, spec.drafts)
    )
    if adapters.model or drafts.model:
        raise InvalidRequest(f"no such file: {folder / (adapters.model or drafts.model)}")
    if same := next((path for path in drafts.files if path in weights.files), None):
        raise InvalidRequest(f"DRAFT must not reference the same local path as FROM: {same}")
    return {"files": weights, "adapters": adapters, "draft_files": drafts}


def _links(client: Client, sources: Mapping[str, Sources]) -> dict[str, str]:
    """The files that are to be run in place, names to absolute paths. Raises InvalidRequest."""
    files = [path for field in _LINKED for path in sources[field].files]
    if not files:
        raise InvalidRequest("--link is for GGUF files, and the Modelfile names none")
    if not client.is_local:
        raise InvalidRequest(
            f"the server {client.where} is not on this machine and cannot link its files;"
            " without --link they are uploaded"
        )
    return {name: str(path.resolve()) for name, path in named_files(files)}


def _check_same_file(event: Json, links: Mapping[str, str]) -> None:
    """A server in a container may have another file at the same path; it tells the size before it reads it."""
    path = text(event, "digest")
    if path in links.values() and integer(event, "total") != Path(path).stat().st_size:
        raise InvalidRequest(
            f"the server has another file at {path}; create the model without --link to upload this one"
        )
