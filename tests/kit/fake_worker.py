"""A worker without C: the same messages, the same rules, a model that answers with the words of the prompt.

`tests/daemon/test_worker.py` runs one body of tests against this and against the real worker, so that the fake stays true.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

from olm.actors.runtime import Actor, StreamSink, handles, streams
from olm.chat.prompt import EMBED_TOO_LONG, PROMPT_TOO_LONG, cut_tokens, fit_messages
from olm.chat.types import (
    ChatMessage,
    ChatPrompt,
    Done,
    InfillPrompt,
    Piece,
    TextPrompt,
    TurnEvent,
)
from olm.errors import ContextTooLong, InvalidRequest, LoadFailed
from olm.native import wire
from olm.native.process import ProcessIdRequest

__all__ = ["FakeModel", "FakeWorker"]


@attrs.define
class FakeModel:
    """How fake workers behave; shared by all of a test, so that a test can change it and count.

    Attributes:
        load_s: how long a load takes, with progress in ten parts; from `load_stops_at` on it says the same for ever.
        step_s: time of one token.
        n_turn_tokens: how long an answer is before its end token.
    """

    load_s: float = 1.0
    load_stops_at: float = 1.0
    load_error: str = ""
    step_s: float = 0.1
    n_turn_tokens: int = 5
    n_ctx_train: int = 4096
    n_loads: int = 0
    live: dict[wire.Load, trio.Event] = attrs.field(factory=dict)
    """Loaded models, and the event that makes their worker crash."""
    n_live: int = 0
    n_running: int = 0


class FakeWorker(Actor):
    """Speaks `olm.native.wire`."""

    def __init__(self, model: FakeModel) -> None:
        self._model = model
        self._load: wire.Load | None = None

    async def start(self) -> None:
        self._model.n_live += 1

    async def stop(self) -> None:
        self._model.n_live -= 1
        if self._load is not None:
            self._model.live.pop(self._load, None)

    @streams(wire.Load)
    async def load(self, msg: wire.Load, out: StreamSink[wire.LoadEvent]) -> None:
        model = self._model
        model.n_loads += 1
        for part in range(10):
            await trio.sleep(model.load_s / 10)
            while part / 10 >= model.load_stops_at:
                await trio.sleep(1)
                await out.send(wire.LoadProgress(part / 10))
            await out.send(wire.LoadProgress((part + 1) / 10))
        if model.load_error:
            raise LoadFailed(model.load_error)
        self._load = msg
        event = model.live[msg] = trio.Event()
        self.nursery.start_soon(self._crash, msg, event)
        n_ctx = min(msg.options.n_ctx or model.n_ctx_train, model.n_ctx_train)
        await out.send(
            wire.Loaded(n_ctx=n_ctx, n_ctx_train=model.n_ctx_train, n_parallel=msg.n_parallel)
        )

    async def _crash(self, load: wire.Load, event: trio.Event) -> None:
        await event.wait()
        del self._model.live[load]
        raise RuntimeError("this worker was told to crash")

    @property
    def _n_ctx(self) -> int:
        assert self._load is not None, "a test sends turns after the load"
        return self._load.options.n_ctx or self._model.n_ctx_train

    @streams(wire.Turn)
    async def turn(self, msg: wire.Turn, out: StreamSink[TurnEvent]) -> None:
        tokens, truncated = self._prompt(msg)
        self._model.n_running += 1
        try:
            limit = msg.sampling.n_predict if msg.sampling.n_predict >= 0 else 1 << 30
            n_tokens = min(self._model.n_turn_tokens, limit)
            for index in range(n_tokens):
                await trio.sleep(self._model.step_s)
                await out.send(Piece(content=f"w{index} "))
            await out.send(
                Done(
                    reason="stop" if n_tokens < limit else "length",
                    n_prompt=len(tokens),
                    n_generated=n_tokens,
                    truncated=truncated,
                    context=tokens if msg.want_context else (),
                )
            )
        finally:
            self._model.n_running -= 1

    def _prompt(self, msg: wire.Turn) -> tuple[tuple[int, ...], bool]:
        prompt = msg.prompt
        if isinstance(prompt, ChatPrompt):
            messages = self._fitting(prompt, truncate=msg.truncate)
            tokens = (*prompt.context, *_tokens(_chat(messages)))
            if len(messages) < len(prompt.messages) and len(tokens) < self._n_ctx:
                return tokens, True
        else:
            tokens = (*prompt.context, *_tokens(_text(prompt)))
        if len(tokens) < self._n_ctx:
            return tokens, False
        if not (msg.truncate and msg.shift):
            raise ContextTooLong(PROMPT_TOO_LONG)
        cut = cut_tokens(tokens, n_ctx=self._n_ctx, n_keep=msg.sampling.n_keep, add_bos=False)
        return cut, True

    def _fitting(self, prompt: ChatPrompt, *, truncate: bool) -> Sequence[ChatMessage]:
        if not truncate:
            return prompt.messages
        kept, _ = fit_messages(
            prompt.messages,
            self._n_ctx - 1 - len(prompt.context),
            size=lambda message: len(message.content.encode()),
            count=lambda rest: len(_tokens(_chat(rest))),
        )
        return kept

    @handles(wire.Embed)
    def embed(self, msg: wire.Embed) -> wire.Embedded:
        counts = tuple(
            len(_tokens(given) if isinstance(given, str) else given) for given in msg.inputs
        )
        if not msg.truncate and max(counts, default=0) > self._n_ctx:
            raise ContextTooLong(EMBED_TOO_LONG)
        counts = tuple(min(count, self._n_ctx) for count in counts)
        return wire.Embedded(vectors=b"\0\0\x80?" * len(counts), n_embd=1, n_tokens=counts)

    @handles(wire.Rerank)
    def rerank(self, msg: wire.Rerank) -> wire.Ranked:
        return wire.Ranked(
            tuple(float(text.count(msg.query)) for text in msg.documents),
            tuple(len(_tokens(msg.query + text)) for text in msg.documents),
        )

    @handles(wire.Render)
    def render(self, msg: wire.Render) -> str:
        if isinstance(msg.prompt, ChatPrompt):
            return _chat(self._fitting(msg.prompt, truncate=msg.truncate))
        return _text(msg.prompt)

    @handles(wire.CountTokens)
    def count_tokens(self, msg: wire.CountTokens) -> int:
        prompt = msg.prompt
        text = _chat(prompt.messages) if isinstance(prompt, ChatPrompt) else _text(prompt)
        return len(prompt.context) + len(_tokens(text))

    @handles(wire.Tokenize)
    def tokenize(self, msg: wire.Tokenize) -> tuple[int, ...]:
        return _tokens(msg.text)

    @handles(wire.Detokenize)
    def detokenize(self, msg: wire.Detokenize) -> str:
        return bytes(_checked(msg.tokens)).decode(errors="replace")

    @handles(wire.Pieces)
    def pieces(self, msg: wire.Pieces) -> tuple[bytes, ...]:
        return tuple(bytes([token]) for token in _checked(msg.tokens))

    @handles(ProcessIdRequest)
    def process_id(self, _: ProcessIdRequest) -> int:
        return 0

    @handles(wire.WorkerStatsRequest)
    def stats(self, _: wire.WorkerStatsRequest) -> wire.WorkerStats:
        return wire.WorkerStats(n_running=self._model.n_running)


def _tokens(text: str) -> tuple[int, ...]:
    return tuple(text.encode())


def _checked(tokens: Sequence[int]) -> Sequence[int]:
    for at, token in enumerate(tokens):
        if not 0 <= token < 256:
            raise InvalidRequest(f"token {token} at place {at} is not in the model's vocabulary")
    return tokens


def _text(prompt: InfillPrompt | TextPrompt) -> str:
    return prompt.text if isinstance(prompt, TextPrompt) else f"{prompt.prompt}<gap>{prompt.suffix}"


def _chat(messages: Sequence[ChatMessage]) -> str:
    return "".join(f"{message.role}: {message.content}\n" for message in messages)
