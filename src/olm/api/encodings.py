"""Compressed request bodies: `Content-Encoding` zstd, gzip and deflate, undone within bounds.

A kilobyte can unfold to gigabytes, so a body is unfolded in small steps and given up as soon as it passes its limit;
never is more than one step beyond the limit in memory. Sources: RFC 9110 §8.4 (codings, applied in the order they are
listed), RFC 8878 (zstd), RFC 1950 to 1952. Codex sends zstd (spec/ollama §2.5). No reading from sockets here.
"""

from __future__ import annotations

import zlib
from typing import Final

import trio

from olm.api.errors import BodyTooLarge
from olm.api.gate import Buffer
from olm.errors import InvalidRequest, OlmError

__all__ = ["Decompressor", "decode_body"]

MAX_CODINGS: Final = 3
"""Codings one upon the other; nobody sends more than one."""
MAX_FRAMES: Final = 64
"""Frames or members one after the other in one body: each costs a decoder."""
_MAX_WINDOW_BYTES: Final = 8 << 20
"""What RFC 8878 recommends every decoder to take, and no more."""
_STEP_BYTES: Final = 256
"""Compressed bytes a step. A zstd block has at least 4 and unfolds to at most 128 KiB: 8 MiB a step."""
_UNKNOWN_STATUS: Final = 415


class _Corrupt(Exception):
    """The bytes are not what their coding says."""


class Decompressor:
    """Undoes codings without holding up the event loop; at most two bodies at a time, so few are not yet counted."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(2)

    async def decoded(self, data: bytes, encoding: str, limit_bytes: int, buffer: Buffer) -> bytes:
        """Undo the codings of a body; `buffer` is charged for what it grows by.

        Raises:
            as `decode_body`, and Busy when all bodies together are too large.
        """
        decoded = await trio.to_thread.run_sync(
            decode_body, data, encoding, limit_bytes, limiter=self._limiter
        )
        if len(decoded) > len(data):
            buffer.grow(len(decoded) - len(data))
        return decoded


def decode_body(data: bytes, encoding: str, limit_bytes: int) -> bytes:
    """Undo the codings of a body.

    Args:
        encoding: the value of `Content-Encoding`; empty for none.
        limit_bytes: the largest body to give back.

    Raises:
        InvalidRequest: `failed to decompress zstd body`, as Ollama says, also for a body that is cut off.
        BodyTooLarge: it unfolds to more than the limit.
        OlmError 415: a coding olm does not know.
    """
    names = [name.strip().lower() for name in encoding.split(",")]
    codings = [name for name in names if name not in ("", "identity")]
    if len(codings) > MAX_CODINGS:
        raise InvalidRequest(f"too many content codings: at most {MAX_CODINGS}")
    for coding in reversed(codings):
        try:
            data = _undo(data, coding, limit_bytes)
        except _Corrupt:
            raise InvalidRequest(f"failed to decompress {coding[:20]} body") from None
    return data


def _undo(data: bytes, coding: str, limit_bytes: int) -> bytes:
    match coding:
        case "zstd":
            return _zstd(data, limit_bytes)
        case "gzip" | "x-gzip":
            return _zlib(data, limit_bytes, zlib.MAX_WBITS | 16)
        case "deflate":
            return _zlib(data, limit_bytes, zlib.MAX_WBITS)
        case _:
            raise OlmError(
                f"unsupported content encoding {coding[:40]!r}: olm takes zstd, gzip and deflate",
                status=_UNKNOWN_STATUS,
            )


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"request body too large: it decompresses to more than {limit_bytes >> 10} KiB"
    )


def _zstd(data: bytes, limit_bytes: int) -> bytes:
    import zstandard  # 22 ms; most clients never compress

    context = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
    out = bytearray()
    try:
        for _ in range(MAX_FRAMES):
            frame = context.decompressobj()
            at = 0
            while at < len(data) and not frame.eof:
                out += frame.decompress(data[at : at + _STEP_BYTES])
                at += _STEP_BYTES
                if len(out) > limit_bytes:
                    raise _too_large(limit_bytes)
            if not frame.eof:
                raise _Corrupt
            data = frame.unused_data + data[at:]
            if not data:
                return bytes(out)
    except zstandard.ZstdError as exc:
        raise _Corrupt from exc
    raise _Corrupt


def _zlib(data: bytes, limit_bytes: int, window_bits: int) -> bytes:
    out = bytearray()
    try:
        for _ in range(MAX_FRAMES):
            member = zlib.decompressobj(window_bits)
            out += member.decompress(data, limit_bytes + 1 - len(out))
            if len(out) > limit_bytes:
                raise _too_large(limit_bytes)
            if not member.eof:
                raise _Corrupt
            data = member.unused_data
            if not data:
                return bytes(out)
    except zlib.error as exc:
        raise _Corrupt from exc
    raise _Corrupt
