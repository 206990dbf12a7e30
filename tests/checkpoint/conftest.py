"""What the checkpoint tests share: files that are mapped and let go again, and checkpoints made of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from checkpoint.made import mapped
from olm.checkpoint import OpenCheckpoint, open_checkpoint
from olm.checkpoint.mapped import MappedFile

MapBytes = Callable[[str, bytes], MappedFile]
OpenBytes = Callable[[Mapping[str, bytes]], OpenCheckpoint]


@pytest.fixture
def map_bytes(tmp_path: Path) -> Iterator[MapBytes]:
    """Write bytes under a name and map them."""
    with ExitStack() as stack:
        yield lambda name, data: stack.enter_context(closing(mapped(tmp_path / name, data)))


@pytest.fixture
def open_bytes(tmp_path: Path) -> Iterator[OpenBytes]:
    """Write files into a folder and open it."""
    with ExitStack() as stack:

        def open_folder(files: Mapping[str, bytes]) -> OpenCheckpoint:
            for name, data in files.items():
                path = tmp_path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            return stack.enter_context(open_checkpoint(tmp_path))

        yield open_folder
