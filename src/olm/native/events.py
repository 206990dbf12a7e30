"""What an engine says about its requests, and how that is read from its frames (`olm_engine_next_frame`).

Values only; asking for them is `olm.native.engine`'s business.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

import msgspec

from olm.chat.types import DoneReason, TokenLogprob, TopLogprob
from olm.errors import NativeError
from olm.native.lib import native_error

__all__ = ["Done", "Embedding", "Event", "Failed", "Piece", "Progress", "decode_frame"]


class Progress(msgspec.Struct, frozen=True, gc=False):
    """A prompt is being computed: `n_done` of `n_prompt` tokens, the first `n_cached` of them found in memory."""

    request: int
    n_done: int
    n_prompt: int
    n_cached: int


class Piece(msgspec.Struct, frozen=True, gc=False):
    """New text of a request, whole UTF-8, with the tokens it came from (and those before it that showed none)."""

    request: int
    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()


class Done(msgspec.Struct, frozen=True, gc=False):
    """The end of a text request, with what was held back until now.

    Attributes:
        end_token: the end token that was drawn, -1 if it ended otherwise. It is not counted in n_generated.
        stop: the place of the stop string that ended it in the request's `stop`, -1 if none did.
        prompt_ns: from the first step to the first token; eval_ns: from there to the end.
    """

    request: int
    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    reason: DoneReason
    n_prompt: int
    n_cached: int
    n_generated: int
    end_token: int
    prompt_ns: int
    eval_ns: int
    stop: int = -1


class Failed(msgspec.Struct, frozen=True):
    """A request ended with an error; the others go on."""

    request: int
    error: NativeError


class Embedding(msgspec.Struct, frozen=True, gc=False):
    """Vectors of an embedding request: [n_vectors, n_embd] f32 little-endian, in the order of the inputs."""

    request: int
    vectors: bytes
    n_vectors: int
    n_embd: int
    n_tokens: int


Event = Progress | Piece | Done | Failed | Embedding

_HEADER: Final = Struct("<IBBHQIIIIIIII")  # native/decl/engine.h
_TIMES: Final = Struct("<QQ")
_ENTRY: Final = Struct("<fHH")
_TOP: Final = Struct("<fH")
_REASONS: Final[tuple[DoneReason, ...]] = ("stop", "length", "cancelled")
_ONE_TOKEN: Final = Struct("<i")


def _tokens(data: bytes, at: int, n: int) -> tuple[int, ...]:
    if n == 1:  # the usual case, a little faster
        return _ONE_TOKEN.unpack_from(data, at)
    ids: tuple[int, ...] = Struct(f"<{n}i").unpack_from(data, at)
    return ids


def _logprobs(extra: bytes) -> tuple[TokenLogprob, ...]:
    entries: list[TokenLogprob] = []
    at = 0
    while at < len(extra):
        logprob, n_bytes, n_top = _ENTRY.unpack_from(extra, at)
        at += _ENTRY.size
        token = extra[at : at + n_bytes]
        at += n_bytes
        top: list[TopLogprob] = []
        for _ in range(n_top):
            other, n_other = _TOP.unpack_from(extra, at)
            at += _TOP.size
            top.append(TopLogprob(extra[at : at + n_other], other))
            at += n_other
        entries.append(TokenLogprob(token, logprob, tuple(top)))
    return tuple(entries)


def decode_frame(frame: bytes) -> list[Event]:
    """Turn a frame (`olm_engine_next_frame`) into events."""
    events: list[Event] = []
    at = 0
    while at < len(frame):
        size, kind, reason, code, request, n_tokens, n_text, n_extra, a, b, c, d, e = (
            _HEADER.unpack_from(frame, at)
        )
        tokens_at = at + _HEADER.size
        text_at = tokens_at + 4 * n_tokens
        extra_at = text_at + n_text
        at += size
        if kind == 5:
            vectors = frame[extra_at : extra_at + n_extra]
            events.append(Embedding(request, vectors, a, b, c))
            continue
        text = frame[text_at:extra_at].decode("utf-8", "replace")
        match kind:
            case 1:
                events.append(Progress(request, a, b, c))
            case 2:
                logprobs = _logprobs(frame[extra_at : extra_at + n_extra]) if n_extra else ()
                events.append(Piece(request, text, _tokens(frame, tokens_at, n_tokens), logprobs))
            case 3:
                prompt_ns, eval_ns = _TIMES.unpack_from(frame, extra_at)
                events.append(
                    Done(
                        request,
                        text,
                        _tokens(frame, tokens_at, n_tokens),
                        _logprobs(frame[extra_at + _TIMES.size : extra_at + n_extra]),
                        _REASONS[reason],
                        a,
                        b,
                        c,
                        d - 1,
                        prompt_ns,
                        eval_ns,
                        e - 1,
                    )
                )
            case 4:
                events.append(Failed(request, native_error(code, text)))
            case _:
                raise AssertionError(f"unknown event kind {kind}: extension and Python disagree")
    return events
