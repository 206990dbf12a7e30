"""The face of jobs: what makes models and moves them, as routes, the CLI's one-process mode and embedding programs call it.

Requests and progress are values; the Protocol is implemented in `olm.actors.create`. No HTTP, no JSON here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import attrs

from olm.chat.types import ChatMessage

__all__ = [
    "ArchiveBytes",
    "CreateRequest",
    "ExportRequest",
    "ImportRequest",
    "JobsClient",
    "Progress",
    "PullRequest",
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


@attrs.frozen
class PullRequest:
    """A model to be fetched from its registry; `insecure` goes there without TLS."""

    model: str
    insecure: bool = False


class JobsClient(Protocol):
    """Work that outlasts a moment and reports progress."""

    def create(
        self, request: CreateRequest
    ) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        """Make a model. Bad requests raise on entering or as the iteration's error; leaving early cancels the job."""

    def pull(self, request: PullRequest) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        """Fetch a model. Errors and leaving as with `create`; what was downloaded is kept for another try."""

    def export(
        self, request: ExportRequest
    ) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        """Write models to `request.path`, which is there only at the end. Errors and leaving as with `create`."""

    def export_stream(
        self, request: ExportRequest
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Give the archive as bytes, without its `path`."""

    def import_(
        self, request: ImportRequest
    ) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        """Read models into the store; their names appear at the end. What was verified is kept for another try."""
