"""Fixtures of the HTTP tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kit.fake_olm import FakeOlm
from kit.memory_http import MemoryClient, MemoryServer, open_memory_server


@pytest.fixture
def olm() -> FakeOlm:
    """The fake behind the server, with one model, `tiny`."""
    return FakeOlm()


@pytest.fixture
async def server(olm: FakeOlm) -> AsyncIterator[MemoryServer]:
    """A server without sockets."""
    async with open_memory_server(olm) as running:
        yield running


@pytest.fixture
async def client(server: MemoryServer) -> MemoryClient:
    """A connection to it."""
    return server.connect()
