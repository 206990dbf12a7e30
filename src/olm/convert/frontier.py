"""The SHA-256 of a file that threads write out of order: hashed in order behind them, from the page cache."""

from __future__ import annotations

import hashlib
import os
import threading
from typing import Final, Self

__all__ = ["FrontierHash"]

_READ_BYTES: Final = 1 << 20


class FrontierHash:
    """Hashes what is before the frontier, in a thread of its own. A context manager; leaving it ends the thread.

    Args:
        fd: the file; read with `pread`, not closed.
        size_bytes: of the whole file.
    """

    def __init__(self, fd: int, size_bytes: int) -> None:
        self._fd = fd
        self._size = size_bytes
        self._hash = hashlib.sha256()
        self._changed = threading.Condition()
        self._upto = 0
        self._is_over = False
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._work, name="convert-hash")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._thread.join()

    def advance(self, upto: int) -> None:
        """Say that all bytes before `upto` are final."""
        with self._changed:
            self._upto = max(self._upto, upto)
            self._changed.notify()

    def finish(self) -> str:
        """Say that the file is whole, and wait for its digest in hex. Raises OSError when it cannot be read."""
        self.advance(self._size)
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._hash.hexdigest()

    def _work(self) -> None:
        at = 0
        try:
            while at < self._size:
                with self._changed:
                    self._changed.wait_for(lambda: self._upto > at or self._is_over)  # noqa: B023 - called at once
                    if self._is_over:
                        return
                    upto = self._upto
                while at < upto and not self._is_over:
                    data = os.pread(self._fd, min(_READ_BYTES, upto - at), at)
                    if not data:
                        raise OSError("the file ends early")
                    self._hash.update(data)
                    at += len(data)
        except OSError as exc:
            self._failure = exc
