"""Split a GGUF file as llama.cpp's `gguf-split` does: all keys in the first part, tensors spread over all of them."""

from __future__ import annotations

import io
import struct
from pathlib import Path

from gguf import GGUFReader

__all__ = ["split_gguf", "split_names"]

_U16, _I32 = 2, 5


def split_names(stem: str, n_parts: int) -> list[str]:
    """The names that llama.cpp wants."""
    return [f"{stem}-{no:05d}-of-{n_parts:05d}.gguf" for no in range(1, n_parts + 1)]


def split_gguf(path: Path, n_parts: int) -> list[bytes]:
    """The parts of a file, little-endian, alignment 32."""
    reader, data = GGUFReader(path), path.read_bytes()
    # "magic, version, two counts" are 24 bytes; the tensor table begins where the first tensor's entry does.
    keys = data[24 : reader.tensors[0].field.offset]
    n_keys = int(reader.fields["GGUF.kv_count"].parts[0][0])
    share = -(-len(reader.tensors) // n_parts)
    parts = []
    for no in range(n_parts):
        tensors = reader.tensors[no * share : (no + 1) * share]
        extra = (
            _pair("split.no", _U16, struct.pack("<H", no))
            + _pair("split.count", _U16, struct.pack("<H", n_parts))
            + _pair("split.tensors.count", _I32, struct.pack("<i", len(reader.tensors)))
        )
        head, table, body = keys if no == 0 else b"", io.BytesIO(), io.BytesIO()
        for tensor in tensors:
            begin = tensor.field.offset
            length = struct.unpack_from("<Q", data, begin)[0]
            (n_dims,) = struct.unpack_from("<I", data, begin + 8 + length)
            end = begin + 8 + length + 4 + 8 * n_dims + 4
            body.write(bytes(-body.tell() % 32))
            table.write(data[begin:end] + struct.pack("<Q", body.tell()))
            body.write(data[tensor.data_offset : tensor.data_offset + tensor.n_bytes])
        count = (n_keys if no == 0 else 0) + 3
        text = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), count) + head + extra
        text += table.getvalue()
        parts.append(text + bytes(-len(text) % 32) + body.getvalue())
    return parts


def _pair(key: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value
