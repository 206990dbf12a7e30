"""olm inside another trio program: the same actors, without HTTP and without a daemon.

    async with open_olm() as olm:
        async with olm.models.chat(ChatRequest(model="tiny", messages=[...])) as turn:
            async for event in turn: ...

Models still run in worker processes of their own, so a crash of the engine never reaches the program.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from olm.actors.client import Olm
from olm.actors.tree import open_tree
from olm.config import Settings, read_settings

__all__ = ["open_olm"]


@asynccontextmanager
async def open_olm(settings: Settings | None = None) -> AsyncIterator[Olm]:
    """Run the actors for the length of a block and give their clients.

    Leaving the block ends running turns and stops the workers, each step bounded. The store is locked meanwhile: a
    daemon or another program that uses the same one cannot run beside it.

    Args:
        settings: the same as the daemon's; by default read from the environment. Nothing listens anywhere.

    Raises (in an exception group, as a nursery does):
        StoreLocked: another process uses the store. StoreError: it cannot be read or written.
    """
    async with open_tree(settings or read_settings(), http=False) as tree:
        yield tree.olm
