#!/usr/bin/env python3
"""What moving models costs: exports and imports beside `cp`, `sha256sum` and `tar | zstd`, pulls beside `curl`.

    python bench/transfer.py                         # 4 GiB, about ten minutes
    python bench/transfer.py --size 512MiB --only export,import
    python bench/transfer.py --reflink-folder /mnt   # on a file system that shares blocks (XFS, Btrfs), for that row
    python bench/transfer.py --publish               # also put the table into docs/performance.md

Both sides end on disk: olm syncs what it writes, so its peers are `cp` and `sync`. The figure without `sync` is told,
too. Peers and olm run in turn; a row has the median of the pairs' ratios, and the median seconds of both sides. Debian's
`sha256sum` does not use the CPU's SHA instructions and OpenSSL's does, so imports and pulls are held against both.

Half of the model's bytes are random, as quantized weights nearly are; the other half are normal f16 numbers, as
unquantized weights are. Ends with a non-zero status when a goal is missed, so that it can be a gate.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import transfer_pull
from machine import CpuWindow, describe_machine
from report import markdown_table, publish
from servers import BenchError, cache_directory, end_on_sigterm
from transfer_disk import (
    N_BLOBS,
    Ground,
    compress_rows,
    export_rows,
    file_system,
    import_rows,
    open_ground,
    reflink_rows,
    run_timed,
)
from web import Figure

from olm.units import parse_bytes

__all__ = ["main"]

_ON_GROUND: Final[dict[str, Callable[[Ground], list[Figure]]]] = {
    "export": export_rows,
    "import": import_rows,
    "compress": compress_rows,
}
_ALL: Final = ("pull", *_ON_GROUND, "reflink")


def limits(folder: Path) -> str:
    """One line: how fast the disk takes bytes, how fast one core hashes them."""
    n_bytes, data, target = 1 << 30, os.urandom(1 << 20), folder / "limit"
    script = f'dd if=/dev/zero of="$1" bs=8M count={n_bytes >> 23} oflag=direct conv=fsync'
    writes = statistics.median(run_timed(script, target) for _ in range(3))
    target.unlink()
    digest, started = hashlib.sha256(), time.perf_counter()
    for _ in range(512):
        digest.update(data)
    hashed = 512 * len(data) / (time.perf_counter() - started)
    return (
        f"Disk ({file_system(folder)}): {n_bytes / writes / 1e9:.2f} GB/s written past the page cache; "
        f"SHA-256 on one core: {hashed / 1e9:.2f} GB/s."
    )


def measure(args: argparse.Namespace) -> list[Figure]:
    """All rows that were asked for. Raises BenchError."""
    wanted = args.only.split(",")
    if not set(wanted) <= set(_ALL):
        raise BenchError(f"--only takes {', '.join(_ALL)}")
    figures: list[Figure] = []
    if "pull" in wanted:
        figures += transfer_pull.rows(args.size, args.folder, args.rounds)
    if set(wanted) & set(_ON_GROUND):
        with open_ground(args.folder, args.size, args.rounds) as ground:
            for name, rows in _ON_GROUND.items():
                if name in wanted:
                    figures += rows(ground)
    if "reflink" in wanted and args.reflink_folder:
        figures += reflink_rows(args.reflink_folder, args.size, args.rounds)
    return figures


def report_text(figures: Sequence[Figure], size_bytes: int, limit: str, foreign_frac: float) -> str:
    """The machine and its limits, then the table."""
    rows = [[f.name, f.ours, f.others, f.limit] for f in figures]
    table = markdown_table(["figure", "olm", "others", "limit"], rows)
    return (
        f"Machine: {describe_machine()}; other programs took {foreign_frac:.0%} of it.\n"
        f"{limit} Model: {size_bytes / 2**30:.2g} GiB in {N_BLOBS} blobs.\n\n{table}"
    )


def main() -> None:
    """Run the command line described at the top of this file."""
    parser = argparse.ArgumentParser(description="What moving models costs.")
    parser.add_argument("--size", type=parse_bytes, default=4 << 30, help="of the model: 4GiB")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side")
    parser.add_argument("--only", default=",".join(_ALL), help="some of the default, with commas")
    parser.add_argument("--folder", type=Path, default=None, help="default: the bench cache")
    parser.add_argument("--reflink-folder", type=Path, default=None)
    parser.add_argument("--publish", action="store_true", help="write to docs/performance.md")
    args = parser.parse_args()
    args.folder = args.folder or cache_directory()
    end_on_sigterm()
    window, started = CpuWindow(None), time.perf_counter()
    try:
        limit = limits(args.folder)
        figures = measure(args)
    except (BenchError, OSError) as exc:
        sys.exit(f"transfer: {exc}")
    foreign = window.foreign_frac(time.perf_counter() - started)
    text = report_text(figures, args.size, limit, foreign)
    print(text)
    if args.publish:
        publish("transfer", text)
    broken = [figure.name for figure in figures if not figure.is_kept]
    if broken:
        sys.exit(f"transfer: over the limit: {', '.join(broken)}")


if __name__ == "__main__":
    main()
