"""The `create` command: read a Modelfile, upload the files it names, have the server make the model.

Files are uploaded by their SHA-256, those the server has already are not. Which files a Modelfile means is
`olm.cli.sources`' affair, reading its language `olm.modelfile`'s.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event
from typing import Final, TypedDict, Unpack

import attrs
import click

from olm.cli.client import Client
from olm.cli.progress import Progress, Spinner, StatusLines
from olm.cli.sources import Sources, check_regular, find_sources, named_files
from olm.cli.wire import Json, integer, text
from olm.errors import InvalidRequest, OlmError
from olm.modelfile import ModelSpec, parse_modelfile, spec_of

__all__ = ["create_body", "create_command", "upload_files"]

DEFAULT_MODELFILE: Final = "Modelfile"
HASH_PIECE: Final = 1 << 20
MAX_HASHERS: Final = 8
"""More only wait for the disk."""
MANY_FILES: Final = 4
SMALL_BYTES: Final = 1 << 20
_LINKED: Final = ("files", "adapters")
# How a server says that it cannot take a file where it is; Ollama does not know `links` at all.
_REFUSALS: Final = ("the server ", "neither 'from' or 'files'", "a path can be named from")


def upload_files(client: Client, paths: Sequence[Path], progress: Progress) -> dict[str, str]:
    """Upload the files the server does not have.

    Returns:
        For each file its name relative to the folder they share, and its digest, as /api/create wants them.
    """
    return upload_named(client, dict(named_files(paths)), progress)


def upload_named(client: Client, named: Mapping[str, Path], progress: Progress) -> dict[str, str]:
    """As `upload_files`, of files that have names. They are hashed in parallel, and uploaded in order."""
    small = _small(named)
    together = progress.spinner(f"copying {len(small)} small files") if small else None

    def spinner(path: Path, message: str) -> Spinner:
        # One that nobody sees, for files that share a line.
        return Spinner(message, 0.0, 0.0) if path in small else progress.spinner(message, 0.0)

    shown = [(path, spinner(path, f"hashing file {path.name}")) for path in named.values()]
    digests: dict[str, str] = {}
    is_over = Event()
    with ThreadPoolExecutor(max(min(len(named), os.cpu_count() or 1, MAX_HASHERS), 1)) as threads:
        hashed = [threads.submit(_digest, *item, progress, is_over) for item in shown]
        try:
            for (name, path), done in zip(named.items(), hashed, strict=True):
                digest = digests[name] = done.result()
                if not client.exists(f"/api/blobs/{digest}"):
                    sending = spinner(path, f"copying file {digest}")
                    _upload(client, path, digest, sending)
                    progress.finish(sending)
        finally:
            is_over.set()  # after Ctrl-C nobody waits for gigabytes to be hashed
    if together:
        progress.finish(together)
    return digests


def _small(named: Mapping[str, Path]) -> set[Path]:
    """Files that share a line, for there are many: the settings of a checkpoint."""
    if len(named) < MANY_FILES:
        return set()
    small = set()
    for path in named.values():
        with _reading(path):
            if path.stat().st_size < SMALL_BYTES:
                small.add(path)
    return small


def _upload(client: Client, path: Path, digest: str, spinner: Spinner) -> None:
    with _reading(path):
        size_bytes = path.stat().st_size

        def on_sent(sent_bytes: int) -> None:
            spinner.done_frac = sent_bytes / max(size_bytes, 1)

        with path.open("rb", buffering=0) as file:
            client.upload(f"/api/blobs/{digest}", file, size_bytes, on_sent)


def _digest(path: Path, spinner: Spinner, progress: Progress, is_over: Event) -> str:
    """Hash a file, in a thread: hashing leaves the interpreter to others. What is `is_over` is not finished."""
    hasher = hashlib.sha256()
    check_regular(path)
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
@click.option(
    "--tensor-type",
    "tensor_types",
    multiple=True,
    metavar="REGEX=TYPE",
    help="With -q: the type of the tensors whose name it finds. May repeat; the first that fits counts.",
)
@click.option("--imatrix", default="", metavar="FILE", help="With -q: an importance matrix.")
@click.option("--draft-quantize", default="", metavar="TYPE", help="Quantize the DRAFT model.")
@click.option("--link", is_flag=True, help="Run GGUF files where they are instead of copying them.")
def create_command(model: str, **options: Unpack[_Options]) -> None:
    """Create MODEL from a Modelfile, or from the weights in this folder if it has none."""
    spec, folder = _read_modelfile(options["file"])
    for warning in spec.warnings:
        click.echo(warning)
    client = Client()
    with Progress() as progress:
        gathering = progress.spinner("gathering model components")
        sources = _gather(spec, folder)
        body = create_body(model, spec, options["quantize"]) | _quantize_fields(options)
        progress.finish(gathering)
        if options["imatrix"]:
            body["imatrix"] = upload_files(client, [Path(options["imatrix"])], progress)
        if sources["files"].model:
            body["from"] = sources["files"].model
        if options["link"]:
            _check_linkable(client, sources)
        _create(_Order(client, progress, sources, body), link=options["link"])


class _Options(TypedDict):
    file: str
    quantize: str
    tensor_types: tuple[str, ...]
    imatrix: str
    draft_quantize: str
    link: bool


def _quantize_fields(options: _Options) -> Json:
    """The fields of /api/create that only olm has, and `draft_quantize`. Raises InvalidRequest."""
    fields: Json = {}
    if options["draft_quantize"]:
        fields["draft_quantize"] = options["draft_quantize"]
    chosen: dict[str, str] = {}
    for item in options["tensor_types"]:
        pattern, sign, kind = item.rpartition("=")
        if not (pattern and sign and kind):
            raise InvalidRequest(f"--tensor-type is REGEX=TYPE, not {item!r}")
        chosen.setdefault(pattern, kind)
    if chosen:
        fields["tensor_types"] = chosen
    if (chosen or options["imatrix"]) and not options["quantize"]:
        raise InvalidRequest("--tensor-type and --imatrix are for quantizing: say --quantize, too")
    return fields


def _gather(spec: ModelSpec, folder: Path) -> dict[str, Sources]:
    """What the Modelfile names, by the fields of /api/create. Raises InvalidRequest, CheckpointError."""
    weights, adapters, drafts = (
        find_sources(values, folder) for values in (spec.sources, spec.adapters, spec.drafts)
    )
    if adapters.model or drafts.model:
        raise InvalidRequest(f"no such file: {folder / (adapters.model or drafts.model)}")
    for line, sources in (("FROM", weights), ("DRAFT", drafts)):
        if len(sources.folders) > 1:
            names = " and ".join(map(str, sources.folders[:2]))
            raise InvalidRequest(f"two checkpoints, {names}; only one can be {line}")
    if same := next((path for path in drafts.files if path in weights.files), None):
        raise InvalidRequest(f"DRAFT must not reference the same local path as FROM: {same}")
    return {"files": weights, "adapters": adapters, "draft_files": drafts}


def _check_linkable(client: Client, sources: Mapping[str, Sources]) -> None:
    if not any(sources[field].files for field in _LINKED):
        raise InvalidRequest("--link is for files, and the Modelfile names none")
    if not client.is_local:
        raise InvalidRequest(
            f"the server {client.where} is not on this machine and cannot link its files;"
            " without --link they are uploaded"
        )


@attrs.frozen
class _Order:
    """A create that is ready but for its files."""

    client: Client
    progress: Progress
    sources: Mapping[str, Sources]
    body: Json

    def linked(self, *, link: bool) -> dict[str, dict[str, str]]:
        """Names and absolute paths of files that stay where they are, by field.

        GGUF files when that was asked for. A checkpoint's weights whenever the server is here: it only reads them.
        """
        found: dict[str, dict[str, str]] = {}
        for field in _LINKED:
            sources = self.sources[field]
            found[field] = {
                name: str(path.resolve())
                for name, path in named_files(sources.files)
                if (field == "files" if path in sources.weights else link and not sources.weights)
            }
        return found

    def send(self, linked: Mapping[str, Mapping[str, str]]) -> None:
        """Upload the other files and have the model made. Raises _NotInPlace, OlmError."""
        body = dict(self.body)
        links = {name: path for paths in linked.values() for name, path in paths.items()}
        if links:
            body["links"] = links
        for field, found in self.sources.items():
            stays = linked.get(field, {})
            # An adapter is called as its folder.
            is_adapter = field == "adapters" and bool(found.weights)
            named = named_files(found.files, with_folder=is_adapter)
            sent = {name: path for name, path in named if name not in stays}
            if sent:
                body[field] = upload_named(self.client, sent, self.progress)
        with closing(self.client.stream("POST", "/api/create", body)) as events:
            lines = StatusLines(self.progress)
            for event in events:
                _check_same_file(event, links)
                lines.show(event)


def _create(order: _Order, *, link: bool) -> None:
    """Send an order; what the server cannot read in place is uploaded, unless `link` asks for just that."""
    linked = order.linked(link=link) if order.client.is_local else {}
    try:
        order.send(linked)
    except OlmError as exc:
        is_refusal = isinstance(exc, _OtherFile) or exc.message.startswith(_REFUSALS)
        if link or not is_refusal or not any(linked.values()):
            raise
        order.send({})


class _OtherFile(InvalidRequest):
    """The server sees another file at the path."""


def _check_same_file(event: Json, links: Mapping[str, str]) -> None:
    """A server in a container may have another file at the same path; it tells the size before it reads it."""
    path = text(event, "digest")
    if path in links.values() and integer(event, "total") != Path(path).stat().st_size:
        raise _OtherFile(
            f"the server has another file at {path}; create the model without --link to upload this one"
        )
