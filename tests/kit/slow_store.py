"""A server in a process of its own whose store writes blobs to a real folder, starting slowly: for memory tests."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import attrs
import trio

from kit.fake_olm import FakeOlm, FakeStore
from kit.live_http import open_live_server
from olm.errors import DigestMismatch

__all__ = ["serve_slow_store"]

FIRST_WRITE_S = 0.3
"""A client sends hundreds of MB in this time if nothing holds it back."""


class _Writer:
    def __init__(self, file: BinaryIO, digest: str) -> None:
        self._file = file
        self._digest = digest
        self._hash = hashlib.sha256()
        self._started = False

    async def write(self, data: bytes) -> None:
        if not self._started:
            self._started = True
            await trio.sleep(FIRST_WRITE_S)
        await trio.to_thread.run_sync(self._write, data)

    def _write(self, data: bytes) -> None:
        self._hash.update(data)
        self._file.write(data)

    async def commit(self) -> bool:
        await trio.lowlevel.checkpoint()
        if f"sha256:{self._hash.hexdigest()}" != self._digest:
            raise DigestMismatch("digest mismatch")
        return True


class _FolderStore(FakeStore):
    folder = Path()

    @asynccontextmanager
    async def open_blob_writer(self, digest: str) -> AsyncIterator[_Writer]:  # type: ignore[override]
        with (self.folder / "blob").open("wb") as file:
            yield _Writer(file, digest)


async def serve_slow_store(folder: str) -> None:
    """Serve for ever; prints the port."""
    olm = FakeOlm()
    olm.store = _FolderStore("tiny")
    _FolderStore.folder = Path(folder)
    olm.clients = attrs.evolve(olm.clients, store=olm.store)
    async with open_live_server(olm) as server:
        print_now = partial(print, flush=True)
        print_now(server.port)
        await trio.sleep_forever()
