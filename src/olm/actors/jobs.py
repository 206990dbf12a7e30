"""`Jobs`, the typed client of jobs: it gives each a name and starts its temporary actor. What jobs do is their modules'."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial

import attrs
import trio

from olm.actors.archive import open_export, open_export_stream
from olm.actors.archive_import import open_import
from olm.actors.check import open_check
from olm.actors.create import open_create
from olm.actors.imatrix import open_imatrix
from olm.actors.jobs_client import (
    CheckRequest,
    CreateRequest,
    ExportRequest,
    Finding,
    ImatrixRequest,
    ImportRequest,
    Progress,
    PullRequest,
    PushRequest,
)
from olm.actors.pull import Pulls
from olm.actors.push import Pushes
from olm.actors.runtime import Supervisor
from olm.actors.store import Store

__all__ = ["Jobs"]

_MAX_THREADS = 2  # create jobs read headers and write small files; the disk is the limit, not we


@attrs.frozen
class Jobs:
    """`olm.actors.jobs_client.JobsClient`: starts temporary actors under a one_for_one supervisor made for them.

    Attributes:
        n_export_workers: threads that copy or compress for one export, and blobs that one import takes at once.
    """

    supervisor: Supervisor
    store: Store
    n_export_workers: int = 4
    pulls: Pulls = attrs.field(
        # The key is in olm's home, where the store is by default.
        default=attrs.Factory(
            lambda self: Pulls(self.supervisor, self.store, self.store.root.parent), takes_self=True
        )
    )
    pushes: Pushes = attrs.field(
        default=attrs.Factory(
            lambda self: Pushes(self.supervisor, self.store, self.store.root.parent),
            takes_self=True,
        )
    )
    _numbers: Iterator[int] = attrs.field(factory=partial(itertools.count, 1), init=False)
    _limiter: trio.CapacityLimiter = attrs.field(
        factory=partial(trio.CapacityLimiter, _MAX_THREADS), init=False
    )
    _imatrix_turn: trio.CapacityLimiter = attrs.field(
        factory=partial(trio.CapacityLimiter, 1), init=False
    )

    def create(
        self, request: CreateRequest
    ) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        """Make a model; see `JobsClient.create`."""
        name = f"create-{next(self._numbers)}"
        return open_create(
            self.supervisor, name, self.store, request, self.pulls.pull, self._limiter
        )

    def export(
        self, request: ExportRequest
    ) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        """Write models to a file or folder; see `JobsClient.export`."""
        name = f"export-{next(self._numbers)}"
        return open_export(self.supervisor, name, self.store, request, self.n_export_workers)

    def export_stream(
        self, request: ExportRequest
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Give an archive as bytes; see `JobsClient.export_stream`."""
        name = f"export-{next(self._numbers)}"
        return open_export_stream(self.supervisor, name, self.store, request, self.n_export_workers)

    def imatrix(
        self, request: ImatrixRequest
    ) -> AbstractAsyncContextManager[AsyncIterator[Progress | bytes]]:
        """Make an importance matrix; see `JobsClient.imatrix`."""
        return open_imatrix(
            self.supervisor,
            f"imatrix-{next(self._numbers)}",
            self.store,
            request,
            self._imatrix_turn,
        )

    def import_(
        self, request: ImportRequest
    ) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        """Read an archive into the store; see `JobsClient.import_`."""
        name = f"import-{next(self._numbers)}"
        return open_import(self.supervisor, name, self.store, request, self.n_export_workers)

    def pull(self, request: PullRequest) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        """Fetch a model from its registry; see `JobsClient.pull`."""
        return self.pulls.pull(request)

    def push(self, request: PushRequest) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        """Bring a model to its registry; see `JobsClient.push`."""
        return self.pushes.push(request)

    def check(
        self, request: CheckRequest
    ) -> AbstractAsyncContextManager[AsyncIterator[Progress | Finding]]:
        """Look through the store; see `JobsClient.check`."""
        return open_check(self.supervisor, f"check-{next(self._numbers)}", self.store, request)
