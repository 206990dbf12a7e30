"""The program of a child process: learn the module path, then run what `process._peer` says.

Started by file name, because the package cannot be found before the path is known. Nothing of olm is imported at the top.
"""

from __future__ import annotations

import gc
import os
import sys

__all__ = ["main"]


def main() -> None:
    """Read the parent's module path from the socket given by number, and hand over."""
    fd, parent = int(sys.argv[1]), int(sys.argv[2])
    size = int.from_bytes(_read_exactly(fd, 4), "big")
    sys.path[:] = _read_exactly(fd, size).decode().split("\0")

    # Nearly all that is imported stays for good; collecting in between costs a tenth of the start-up.
    gc.disable()
    from olm.actors.runtime.process._peer import run_child

    gc.freeze()
    gc.enable()
    run_child(fd, parent)


def _read_exactly(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(fd, size - len(data))
        if not more:
            raise SystemExit("the parent closed the socket before it said what to do")
        data += more
    return data


if __name__ == "__main__":
    main()
