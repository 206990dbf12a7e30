"""The bytes of pickles, read from a file a window at a time and never beyond a limit. What they say is not known here."""

from __future__ import annotations

from typing import Final

from olm.checkpoint.mapped import MappedFile
from olm.errors import CheckpointError

__all__ = ["PickleStream"]

_MAX_BYTES: Final = 64 << 20
_WINDOW_BYTES: Final = 256 << 10
_MAX_LINE: Final = 512  # a module and a name of Python's


class PickleStream:
    """The bytes of one or more pickles that lie in a file one after another.

    Args:
        mapped: the file; read with `pread`, a window at a time.
        begin: where the first pickle begins.
        end: where the last must have ended.
    """

    def __init__(self, mapped: MappedFile, begin: int, end: int) -> None:
        self.what = mapped.name
        self._mapped = mapped
        self._base = begin
        self._end = min(end, begin + _MAX_BYTES)
        self._is_cut = self._end < end
        self._data = b""
        self._pos = 0

    @property
    def at(self) -> int:
        """The position in the file."""
        return self._base + self._pos

    def take(self, n_bytes: int) -> bytes:
        """Read so many bytes. Raises CheckpointError when there are fewer."""
        end = self._pos + n_bytes
        if end > len(self._data):
            self._fill(n_bytes)
            end = n_bytes
        piece = self._data[self._pos : end]
        self._pos = end
        return piece

    def line(self) -> str:
        """Read a line of text. Raises CheckpointError for one that is too long or not UTF-8."""
        room = min(_MAX_LINE, self._end - self.at)
        if len(self._data) - self._pos < room:
            self._fill(room)
        end = self._data.find(b"\n", self._pos, self._pos + room)
        if end < 0:
            raise CheckpointError(f"{self.what}: the pickle holds a name that does not end")
        line = self._data[self._pos : end]
        self._pos = end + 1
        return self.text(line)

    def text(self, data: bytes) -> str:
        """Decode UTF-8. Raises CheckpointError for anything else."""
        try:
            return data.decode()
        except UnicodeDecodeError as exc:
            raise CheckpointError(f"{self.what}: the pickle holds text that is not UTF-8") from exc

    def _fill(self, n_bytes: int) -> None:
        at = self.at
        left = self._end - at
        if n_bytes > left:
            if self._is_cut:
                raise CheckpointError(
                    f"{self.what}: the pickle is larger than {_MAX_BYTES >> 20} MiB"
                )
            raise CheckpointError(f"{self.what}: is truncated: it ends inside its pickle")
        self._data = self._mapped.bytes_at(at, min(max(n_bytes, _WINDOW_BYTES), left))
        self._base, self._pos = at, 0
