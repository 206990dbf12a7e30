"""The key-value pairs of a GGUF, typed and in order, and their bytes.

Typed because readers refuse another width: llama.cpp wants u32 for counts and f32 for epsilons. The format is the GGUF
specification, version 3. Which keys a model gets is decided by `olm.convert.architecture` and the tokenizers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final

import attrs
import numpy as np

__all__ = ["Metadata", "Pair"]

Number = int | float

_U32, _I32, _F32, _BOOL, _STRING, _ARRAY, _U64, _I64 = 4, 5, 6, 7, 8, 9, 10, 11
_U8, _I8, _U16, _I16, _F64 = 0, 1, 2, 3, 12
_ITEMS: Final = {
    _U8: "<u1",
    _I8: "i1",
    _U16: "<u2",
    _I16: "<i2",
    _U32: "<u4",
    _I32: "<i4",
    _F32: "<f4",
    _BOOL: "?",
    _U64: "<u8",
    _I64: "<i8",
    _F64: "<f8",
}


@attrs.frozen
class Pair:
    """One value: its GGUF type, its bytes, and what it was made of (None for bytes copied from another file)."""

    kind: int
    payload: bytes
    value: object = None


def _string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


class Metadata:
    """Keys and values in the order in which they were first set; setting one again replaces it in its place.

    A key that begins with a dot belongs to the architecture: `.block_count` of a llama is `llama.block_count`.
    """

    def __init__(self, architecture: str) -> None:
        self.architecture = architecture
        self._pairs: dict[str, Pair] = {}
        self.text("general.architecture", architecture)

    def copy(self) -> Metadata:
        """The same pairs, to be changed alone."""
        other = Metadata(self.architecture)
        other._pairs = dict(self._pairs)
        return other

    def key(self, name: str) -> str:
        """The whole key."""
        return self.architecture + name if name.startswith(".") else name

    def put(self, key: str, pair: Pair) -> None:
        """Set a value whose bytes are known."""
        self._pairs[self.key(key)] = pair

    def text(self, key: str, value: str) -> None:
        """Set a string."""
        self.put(key, Pair(_STRING, _string(value), value))

    def u32(self, key: str, value: int) -> None:
        """Set an unsigned number."""
        self._number(key, _U32, value)

    def i32(self, key: str, value: int) -> None:
        """Set a signed number."""
        self._number(key, _I32, value)

    def f32(self, key: str, value: float) -> None:
        """Set a floating point number."""
        self._number(key, _F32, value)

    def flag(self, key: str, value: bool) -> None:
        """Set a boolean."""
        self._number(key, _BOOL, value)

    def texts(self, key: str, values: Sequence[str | bytes]) -> None:
        """Set an array of strings, or of bytes where pieces need not be UTF-8."""
        head = struct.pack("<IQ", _STRING, len(values))
        self.put(key, Pair(_ARRAY, head + b"".join(map(_string, values)), values))

    def i32s(self, key: str, values: Sequence[int]) -> None:
        """Set an array of signed numbers."""
        self._numbers(key, _I32, values)

    def f32s(self, key: str, values: Sequence[float]) -> None:
        """Set an array of floating point numbers."""
        self._numbers(key, _F32, values)

    def flags(self, key: str, values: Sequence[bool]) -> None:
        """Set an array of booleans."""
        self._numbers(key, _BOOL, values)

    def u8s(self, key: str, values: bytes) -> None:
        """Set an array of bytes (a precompiled normalizer)."""
        self._numbers(key, _U8, list(values))

    def remove(self, key: str) -> None:
        """Forget a key; an absent one is no error."""
        self._pairs.pop(self.key(key), None)

    def get(self, key: str) -> object:
        """What a key was set to; None when it is absent."""
        pair = self._pairs.get(self.key(key))
        return None if pair is None else pair.value

    def integer(self, key: str, default: int = 0) -> int:
        """A whole number that was set; of an array the largest entry; `default` when there is none."""
        value = self.get(key)
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            numbers = [item for item in value if isinstance(item, int)]
            return max(numbers, default=default)
        return value if isinstance(value, int) else default

    def __contains__(self, key: str) -> bool:
        return self.key(key) in self._pairs

    def __iter__(self) -> Iterator[tuple[str, Pair]]:
        yield from self._pairs.items()

    def __len__(self) -> int:
        return len(self._pairs)

    def encode(self) -> bytes:
        """All pairs as they stand in a file, behind the head and before the tensors."""
        return b"".join(
            _string(key) + struct.pack("<I", pair.kind) + pair.payload
            for key, pair in self._pairs.items()
        )

    def _number(self, key: str, kind: int, value: Number) -> None:
        raw = np.asarray(value, dtype=_ITEMS[kind]).tobytes()
        self.put(key, Pair(kind, raw, value))

    def _numbers(self, key: str, kind: int, values: Sequence[Number]) -> None:
        raw = np.asarray(values, dtype=_ITEMS[kind]).tobytes()
        self.put(key, Pair(_ARRAY, struct.pack("<IQ", kind, len(values)) + raw, values))
