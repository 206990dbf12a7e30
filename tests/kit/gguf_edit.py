"""Take a GGUF apart and put it together wrong: models that our header reader passes and the engine must refuse.

gguf = parse(data)
gguf.pairs["llama.block_count"] = (U32, 6)
data = gguf.build()
"""

from __future__ import annotations

import math
import struct

import attrs

__all__ = ["ARRAY", "F32", "STRING", "U32", "Gguf", "TensorData", "parse"]

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
_SCALARS = {U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}
_BLOCKS = {0: (1, 4), 1: (1, 2), 8: (32, 34)}  # elements and bytes of a block, by GGML type
_ALIGNMENT = 32

Pair = tuple[int, object]
"""A GGUF type and a value; strings are bytes, arrays are (type, list)."""


@attrs.define
class TensorData:
    """A tensor of the file: its shape, its GGML type, its bytes."""

    shape: list[int]
    kind: int
    data: bytes

    def fit(self) -> None:
        """Make the bytes as many as shape and type say, by repeating or cutting them."""
        n_elements, n_bytes = _BLOCKS[self.kind]
        size = math.prod(self.shape) // n_elements * n_bytes
        self.data = (self.data * (size // len(self.data) + 1))[:size]


@attrs.define
class Gguf:
    """A whole file, to be changed."""

    pairs: dict[str, Pair]
    tensors: dict[str, TensorData]

    def build(self) -> bytes:
        """The file's bytes; sizes and offsets are made to agree with the tensors."""
        head = struct.pack("<4sIQQ", b"GGUF", 3, len(self.tensors), len(self.pairs))
        for key, (kind, value) in self.pairs.items():
            head += _string(key.encode()) + struct.pack("<I", kind) + _value(kind, value)
        data = b""
        for name, tensor in self.tensors.items():
            tensor.fit()
            shape = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
            head += _string(name.encode()) + shape + struct.pack("<IQ", tensor.kind, len(data))
            data += tensor.data + bytes(-len(tensor.data) % _ALIGNMENT)
        return head + bytes(-len(head) % _ALIGNMENT) + data


def parse(data: bytes) -> Gguf:
    """Read a whole, well-formed GGUF of the types above."""
    reader = _Reader(data)
    _, _, n_tensors, n_pairs = reader.unpack("<4sIQQ")
    pairs: dict[str, Pair] = {}
    for _ in range(int(n_pairs)):
        key = reader.string().decode()
        kind = int(reader.unpack("<I")[0])
        pairs[key] = (kind, reader.value(kind))
    table: list[tuple[str, list[int], int, int]] = []
    for _ in range(int(n_tensors)):
        name = reader.string().decode()
        n_dims = int(reader.unpack("<I")[0])
        shape = [int(n) for n in reader.unpack(f"<{n_dims}Q")]
        kind, offset = reader.unpack("<IQ")
        table.append((name, shape, int(kind), int(offset)))
    start = -(-reader.at // _ALIGNMENT) * _ALIGNMENT
    tensors = {n: TensorData(shape, kind, data[start + at :]) for n, shape, kind, at in table}
    for tensor in tensors.values():
        tensor.fit()
    return Gguf(pairs, tensors)


@attrs.define
class _Reader:
    data: bytes
    at: int = 0

    def unpack(self, layout: str) -> tuple[int, ...]:
        values = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return values

    def string(self) -> bytes:
        length = int(self.unpack("<Q")[0])
        self.at += length
        return self.data[self.at - length : self.at]

    def value(self, kind: int) -> object:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            element, count = self.unpack("<IQ")
            return element, [self.value(element) for _ in range(count)]
        return self.unpack(_SCALARS[kind])[0]


def _string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _value(kind: int, value: object) -> bytes:
    if kind == STRING:
        assert isinstance(value, bytes)
        return _string(value)
    if kind == ARRAY:
        assert isinstance(value, tuple)
        element, items = value
        return struct.pack("<IQ", element, len(items)) + b"".join(
            _value(element, item) for item in items
        )
    return struct.pack(_SCALARS[kind], value)
