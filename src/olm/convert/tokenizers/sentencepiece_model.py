"""SentencePiece's model files: pieces, scores, types and the normalizer, out of their protobuf bytes.

The fields are those of `sentencepiece_model.proto` (google/sentencepiece); the wire format is protobuf's encoding guide. Only what a
GGUF needs is decoded, the rest is stepped over.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from olm.errors import CheckpointError

__all__ = ["SentencePieceModel", "parse_sentencepiece"]

_MAX_PIECES: Final = 1 << 21

# Fields of ModelProto, and of the messages in it.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE = 3
_CHARSMAP, _DUMMY_PREFIX, _EXTRA_SPACES = 2, 3, 4
_SUFFIX_SPACE = 24  # of the trainer: treat_whitespace_as_suffix
_NORMAL: Final = 1

_Value = int | bytes


@attrs.frozen
class SentencePieceModel:
    """A model file's facts. Types are those of `TokenType`, which has them from here.

    Attributes:
        is_unigram: scores are log probabilities; else the pieces are merged in the order of their scores.
        charsmap: the precompiled normalizer, empty for none.
    """

    pieces: Sequence[str]
    scores: Sequence[float]
    types: Sequence[int]
    is_unigram: bool
    charsmap: bytes
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool


def parse_sentencepiece(data: bytes, where: str) -> SentencePieceModel:
    """Decode a model file.

    Raises:
        CheckpointError: it is no SentencePiece model, or cut short.
    """
    pieces: list[str] = []
    scores: list[float] = []
    types: list[int] = []
    trainer: dict[int, _Value] = {}
    normalizer: dict[int, _Value] = {}
    try:
        for field, value in _fields(data):
            if field == _PIECES:
                piece = _message(value)
                pieces.append(_bytes(piece, _PIECE).decode())
                scores.append(_float(piece, _SCORE))
                types.append(_integer(piece, _TYPE, _NORMAL))
            elif field == _TRAINER:
                trainer |= _message(value)
            elif field == _NORMALIZER:
                normalizer |= _message(value)
    except (_DamagedError, UnicodeDecodeError) as exc:
        raise CheckpointError(f"{where}: is not a SentencePiece model, or damaged: {exc}") from exc
    if not 0 < len(pieces) <= _MAX_PIECES:
        raise CheckpointError(f"{where}: is not a SentencePiece model: {len(pieces)} pieces in it")
    kind = _integer(trainer, _MODEL_TYPE, 1)
    if kind not in (1, 2):
        raise CheckpointError(
            f"{where}: a SentencePiece model of words or characters, which llama.cpp cannot run"
        )
    return SentencePieceModel(
        pieces,
        scores,
        types,
        is_unigram=kind == 1,
        charsmap=_bytes(normalizer, _CHARSMAP),
        add_dummy_prefix=bool(_integer(normalizer, _DUMMY_PREFIX, 1)),
        remove_extra_whitespaces=bool(_integer(normalizer, _EXTRA_SPACES, 1)),
    )


class _DamagedError(Exception):
    """The bytes are not what they should be; the parser turns it into a CheckpointError."""


def _fields(data: bytes) -> Iterator[tuple[int, _Value]]:
    """Fields of a message in their order: varints as numbers, everything else as bytes."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise _DamagedError(f"wire type {wire} at byte {at}")
        if size > end - at:
            raise _DamagedError(f"a field of {size} bytes, where {end - at} are left")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise _DamagedError("it ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _DamagedError(f"a number of more than 10 bytes at byte {at}")


def _message(value: _Value) -> dict[int, _Value]:
    if isinstance(value, int):
        raise _DamagedError("a number, where a message belongs")
    return dict(_fields(value))


def _bytes(message: Mapping[int, _Value], field: int) -> bytes:
    value = message.get(field, b"")
    if isinstance(value, int):
        raise _DamagedError("a number, where bytes belong")
    return value


def _integer(message: Mapping[int, _Value], field: int, default: int) -> int:
    value = message.get(field, default)
    if not isinstance(value, int):
        raise _DamagedError("bytes, where a number belongs")
    return value


def _float(message: Mapping[int, _Value], field: int) -> float:
    value = message.get(field, b"\0\0\0\0")
    if isinstance(value, int) or len(value) != 4:
        raise _DamagedError("a score that is not a number")
    return float(struct.unpack("<f", value)[0])
