"""What reading costs: the memory of a process that reads a whole checkpoint, and threads that do it together."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from checkpoint.conftest import MapBytes, OpenBytes
from checkpoint.made import safetensors
from olm.checkpoint.mapped import MappedFile, Residency, open_regular
from olm.checkpoint.safetensors import read_safetensors

ROWS, COLUMNS, MIB = 4096, 4096, 1 << 20

READER = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from olm.checkpoint import open_checkpoint

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

def total(job):
    source, at = job
    return int(source.read(at, at + 512).view(np.uint8).max())

with open_checkpoint(Path(sys.argv[1])) as checkpoint:
    sources = list(checkpoint.tensors.values())
    total((sources[0], 0))
    base = peak_mib()
    jobs = [(one, at) for one in sources for at in range(0, one.shape[0], 512)]
    with ThreadPoolExecutor(2) as pool:
        sum(pool.map(total, jobs))
    print(peak_mib() - base)
"""


def write_sparse(folder: Path, n_files: int, n_tensors: int) -> None:
    """Shards of zeros that take no room on the disk: `n_tensors` of 32 MiB in each."""
    size = ROWS * COLUMNS * 2
    for number in range(1, n_files + 1):
        header = {
            f"{number}.{i}": {
                "dtype": "BF16",
                "shape": [ROWS, COLUMNS],
                "data_offsets": [i * size, (i + 1) * size],
            }
            for i in range(n_tensors)
        }
        raw = json.dumps(header).encode()
        path = folder / f"model-{number:05}-of-{n_files:05}.safetensors"
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(raw)) + raw)
            file.truncate(8 + len(raw) + n_tensors * size)


@pytest.mark.slow
def test_memory_stays_bounded_over_many_shards(tmp_path: Path) -> None:
    write_sparse(tmp_path, n_files=8, n_tensors=2)

    told = subprocess.run(
        [sys.executable, "-c", READER, str(tmp_path)], capture_output=True, text=True, check=True
    )

    assert int(told.stdout) < 200  # of 512 MiB; 128 may be mapped, and the rows in work


def test_what_was_read_is_let_go_past_the_limit(tmp_path: Path) -> None:
    tensors = {name: ("U8", [64, 1 << 14], bytes(MIB)) for name in "abcd"}
    path = tmp_path / "a"
    path.write_bytes(safetensors(tensors))
    file = MappedFile(open_regular(path, path), path, Residency(limit_bytes=2 * MIB))

    resident: Sequence[int] = [
        (int(one.read(0, 64).sum()), resident_kib(path))[1] for one in read_safetensors(file)
    ]
    file.close()

    assert resident[1] >= 2 * MIB >> 10
    assert resident[2] < resident[1]


def resident_kib(path: Path) -> int:
    """What this process has mapped of a file, in KiB."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.endswith(str(path)):
            return next(int(row.split()[1]) for row in lines if row.startswith("Rss:"))
    raise AssertionError("the file is not mapped")


def test_threads_read_the_same_tensors_at_a_time(open_bytes: OpenBytes) -> None:
    numbers = np.arange(1 << 16, dtype="<u4").reshape(256, 256)
    checkpoint = open_bytes(
        {"model.safetensors": safetensors({"x": ("U8", [256, 1024], numbers.tobytes())})}
    )
    one = checkpoint.tensors["x"]

    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda at: one.read(at, at + 1).tobytes(), [*range(256)] * 4))

    assert b"".join(rows[:256]) == numbers.tobytes()
    assert rows[:256] * 4 == rows


def test_rows_come_aligned_wherever_they_lie(map_bytes: MapBytes) -> None:
    numbers = np.array([1.5, -2.0], "<f8")
    data = safetensors({"a": ("U8", [1], b"a"), "b": ("F64", [2, 1], numbers.tobytes())})
    _, one = read_safetensors(map_bytes("a", data))

    rows = one.read(0, 2)

    assert one.offset % 8 == 1
    assert rows.flags.aligned
    assert rows.tolist() == [[1.5], [-2.0]]
