"""Bend good files: the edits that break a reader, wherever they fall. What is bent, and who must bear it, is elsewhere."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

__all__ = ["bent"]

_WIDE = [
    0,
    1,
    255,
    1 << 15,
    (1 << 16) - 1,
    1 << 31,
    (1 << 32) - 1,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
]


@st.composite
def bent(draw: st.DrawFn, data: bytes) -> bytes:
    """The data after up to six edits: a byte, an extreme number, a piece cut out, doubled or moved, the end cut off."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        if not out:
            break
        at = draw(st.integers(0, len(out) - 1))
        match draw(
            st.sampled_from(["byte", "byte", "number", "number", "cut", "double", "move", "end"])
        ):
            case "byte":
                out[at] = draw(st.integers(0, 255))
            case "number":
                width = draw(st.sampled_from([2, 4, 8]))
                value = draw(st.sampled_from(_WIDE)) & ((1 << 8 * width) - 1)
                out[at : at + width] = struct.pack("<Q", value)[:width]
            case "cut":
                del out[at : at + draw(st.integers(1, 40))]
            case "double":
                out[at:at] = out[at : at + draw(st.integers(1, 40))]
            case "move":
                piece = out[at : at + draw(st.integers(1, 40))]
                to = draw(st.integers(0, len(out)))
                out[to : to + len(piece)] = piece
            case _:
                del out[at:]
    return bytes(out)
