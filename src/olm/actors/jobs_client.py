"""The face of jobs: what makes models and moves them, as routes, the CLI's one-process mode and embedding programs call it.

Requests and progress are values; the Protocol is implemented in `olm.actors.jobs`. No HTTP, no JSON here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import attrs

from olm.chat.types import ChatMessage

__all__ = [
    "ArchiveBytes",
    "CheckRequest",
    "CreateRequest",
    "ExportRequest",
    "Finding",
    "ImatrixRequest",
    "ImportRequest",
    "JobsClient",
    "Progress",
    "PullRequest",
    "PushRequest",
]


@attrs.frozen
class Progress:
    """One line of progress of a job; `total` and `completed` are bytes where a digest is named."""

    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0


@attrs.frozen(kw_only=True)
class CreateRequest:
    """What `create` makes a model from (spec/ollama §1.16). Names in `files` are relative paths, values digests."""

    model: str
    from_: str = ""
    files: Mapping[str, str] = attrs.field(factory=dict)
    adapters: Mapping[str, str] = attrs.field(factory=dict)
    template: str | None = None
    system: str | None = None
    licenses: Sequence[str] = ()
    parameters: Mapping[str, object] = attrs.field(factory=dict)
    messages: Sequence[ChatMessage] | None = None
    quantize: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    links: Mapping[str, str] = attrs.field(factory=dict)
    """Files to be run in place, or to be converted where they are: relative path to absolute path on the daemon's machine."""
    draft_files: Mapping[str, str] = attrs.field(factory=dict)
    draft_quantize: str = ""
    tensor_types: Mapping[str, str] = attrs.field(factory=dict)
    """With `quantize`: a regular expression of tensor names to the type they get; the first that fits counts."""
    imatrix: Mapping[str, str] = attrs.field(factory=dict)
    """With `quantize`: name and digest of an uploaded importance matrix, one at most."""
    info: Mapping[str, object] = attrs.field(factory=dict)


class ArchiveBytes(Protocol):
    """An archive that arrives in pieces, such as the body of a request."""

    async def next(self) -> bytes:
        """The next piece; empty at the end. May raise what ends the import."""


@attrs.frozen(kw_only=True)
class ExportRequest:
    """Models to be written as one archive.

    `path` is absolute and on the daemon's machine; a folder when it ends in a slash or is one; empty for a stream.
    """

    models: Sequence[str]
    path: str = ""
    compress: bool = False


@attrs.frozen(kw_only=True)
class ImportRequest:
    """An archive to be read: a file or folder at `path`, or `source`. `name` is for archives of one model."""

    path: str = ""
    name: str = ""
    source: ArchiveBytes | None = None


@attrs.frozen(kw_only=True)
class ImatrixRequest:
    """An importance matrix to be made: `model` reads `text`.

    Attributes:
        dataset: what the file is to say of the text.
        n_ctx: tokens of a chunk; 0 for 512, or what the model can if that is less.
        n_chunks: chunks read at most; 0 for all.
        parse_special: special tokens written in the text are such.
        n_threads: 0 for the physical cores.
        n_gpu_layers: layers that a GPU computes; 0 for none.
    """

    model: str
    text: str
    dataset: str = ""
    n_ctx: int = 0
    n_chunks: int = 0
    parse_special: bool = False
    n_threads: int = 0
    n_gpu_layers: int = 0


@attrs.frozen
class PullRequest:
    """A model to be fetched from its registry; `insecure` goes there without TLS.

    `limit_rate` is the most bytes a second for this pull, 0 for as many as there are (OLM_TRANSFER_RATE bounds all).
    """

    model: str
    insecure: bool = False
    limit_rate: int = 0


@attrs.frozen
class PushRequest:
    """A model to be brought to its registry. As with `PullRequest`."""

    model: str
    insecure: bool = False
    limit_rate: int = 0


@attrs.frozen
class CheckRequest:
    """A look through the whole store; `repair` mends what can be mended, `quick` reads no weights."""

    repair: bool = False
    quick: bool = False


@attrs.frozen
class Finding:
    """Something wrong in the store.

    Attributes:
        kind: `damaged`, `missing`, `orphan`, `partial`, `manifest`, `link`, `stray`.
        what: the blob's digest, the model's name or the file's.
        models: those that need it.
        detail: one line.
        is_repaired: whether it is in order now.
    """

    kind: str
    what: str
    detail: str
    models: Sequence[str] = ()
    size_bytes: int = 0
    is_repaired: bool = False


class JobsClient(Protocol):
    """Work that outlasts a moment and reports progress."""

    def create(
        self, request: CreateRequest
    ) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        """Make a model. Bad requests raise on entering or as the iteration's error; leaving early cancels the job."""

    def pull(self, request: PullRequest) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        """Fetch a model. Errors and leaving as with `create`; what was downloaded is kept for another try."""

    def push(self, request: PushRequest) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        """Bring a model to its registry. Errors and leaving as with `create`; uploads can be resumed."""

    def check(
        self, request: CheckRequest
    ) -> AbstractAsyncContextManager[AsyncIterator[Progress | Finding]]:
        """Look through the store; what is found comes as it is found. Errors and leaving as with `create`."""

    def export(
        self, request: ExportRequest
    ) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        """Write models to `request.path`, which is there only at the end. Errors and leaving as with `create`."""

    def export_stream(
        self, request: ExportRequest
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Give the archive as bytes, without its `path`."""

    def imatrix(
        self, request: ImatrixRequest
    ) -> AbstractAsyncContextManager[AsyncIterator[Progress | bytes]]:
        """Make an importance matrix: progress, in tokens, then the bytes of the file. Errors and leaving as with `create`."""

    def import_(
        self, request: ImportRequest
    ) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        """Read models into the store; their names appear at the end. What was verified is kept for another try."""
