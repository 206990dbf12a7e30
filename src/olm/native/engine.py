"""The engine for trio programs: submit requests, take typed events (`events`). All of cffi is hidden here and in `handles`.

What the engine decides (batches, sampling, stop strings) is C++; see docs/engine.md. What a prompt is made of is in
`chat` and the worker.
"""

from __future__ import annotations

import array
from collections.abc import Sequence
from typing import Literal, Self

import msgspec
import trio

from olm.chat.grammar import AnswerGrammar
from olm.chat.types import Sampling
from olm.native.events import Done, Embedding, Event, Failed, Piece, Progress, decode_frame
from olm.native.handles import Handle, Model
from olm.native.lib import check, ffi, lib, new_int, new_pointer, take_text

__all__ = [
    "Done",
    "Embedding",
    "Engine",
    "EngineOptions",
    "EngineStats",
    "Event",
    "Failed",
    "Piece",
    "Progress",
    "ThinkingLimits",
    "decode_frame",
]


class EngineOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """How an engine is made; see `olm_engine_new`.

    Attributes:
        n_ctx: tokens one request may hold, 0 for what the model was trained with.
        n_parallel: requests that run at once; the rest wait.
        n_cells: memory of all of them together, tokens; 0 for n_ctx * n_parallel.
        n_batch: prompt tokens a step when no stream runs; n_ubatch: the piece that is computed at once.
        n_chunk: prompt tokens a step while streams run, so that their gaps stay short.
        n_threads: 0 for the physical cores.
        type_k, type_v: cell types such as f16 or q8_0; flash_attn: auto, on or off.
        kv_unified: all sequences in one set of cells, or a region for each; docs/engine.md weighs them.
        pooling: of embeddings: mean, cls, last, rank; empty for the model's own.
    """

    n_ctx: int = 0
    n_parallel: int = 1
    n_cells: int = 0
    n_batch: int = 512
    n_ubatch: int = 512
    n_chunk: int = 128
    n_threads: int = 0
    n_threads_batch: int = 0
    type_k: str = "f16"
    type_v: str = "f16"
    flash_attn: Literal["auto", "on", "off"] = "auto"
    swa_full: bool = False
    kv_unified: bool = True
    offload_kqv: bool = True
    rope_freq_base: float = 0.0
    rope_freq_scale: float = 0.0
    pooling: str = ""


class EngineStats(msgspec.Struct, frozen=True):
    """Numbers of an engine. Sums count since its start; `memory_bytes` includes the weights."""

    n_ctx: int
    n_parallel: int
    n_cells: int
    n_batch: int
    n_threads: int
    can_generate: bool
    n_running: int
    n_waiting: int
    n_paused: int
    n_cached_cells: int
    n_steps: int
    n_prompt_tokens: int
    n_cached_tokens: int
    n_generated_tokens: int
    n_shifts: int
    n_evictions: int
    n_preemptions: int
    n_failed_steps: int
    n_adapter_changes: int
    n_dropped_constraints: int
    decode_ns: int
    sample_ns: int
    memory_bytes: int
    vram_bytes: int


class ThinkingLimits(msgspec.Struct, frozen=True, omit_defaults=True):
    """How thinking is marked in an answer, and how long it may get.

    Attributes:
        start: the tag that begins it, looked for at the beginning of the answer; empty when only the prompt opens it.
        ends: the tags that end it; empty for no thinking.
        is_open: the prompt has opened it.
        budget: tokens of thinking, -1 without bound. When they are spent, `close` is written as if the model had: its
            tokens count, and are text. `close` must hold an end tag; None for the first of `ends`.
    """

    start: str = ""
    ends: tuple[str, ...] = ()
    is_open: bool = False
    budget: int = -1
    close: str | None = None


class _TextRequest(Sampling, frozen=True, omit_defaults=True):
    """`olm_engine_submit`'s JSON."""

    adapters: tuple[float, ...] | None = None
    shift: bool = True
    preserved_tokens: tuple[str, ...] = ()
    constraint: AnswerGrammar | None = None
    thinking: ThinkingLimits | None = None


class Engine(Handle):
    """A running engine. Belongs to one thread; `cancel` and `pause` may come from others.

    Making and closing it block (memory is allocated; the running step is waited for): use a thread. No task may
    wait in `next_events` when it is closed.
    """

    def __init__(self, model: Model, options: EngineOptions | None = None) -> None:
        """Start the engine's thread.

        Raises:
            ContextFailed: no memory for the cells, or a combination of options that the model cannot do.
            InvalidArgument: an option is out of range.
        """
        out = new_pointer("olm_engine **")
        request = msgspec.json.encode(options or EngineOptions())
        check(lib.olm_engine_new(model.pointer, request, out))
        super().__init__(out[0], lib.olm_engine_free, "an engine")
        fd = new_int("int *")
        check(lib.olm_engine_event_fd(self.pointer, fd))
        self._fd = fd[0]
        self._frame = new_pointer("const uint8_t **")
        self._size = new_int("size_t *")
        self._last_request = 0

    def submit(
        self,
        tokens: Sequence[int],
        sampling: Sampling | None = None,
        *,
        shift: bool = True,
        preserved_tokens: Sequence[str] = (),
        constraint: AnswerGrammar | None = None,
        thinking: ThinkingLimits | None = None,
        adapters: Sequence[float] | None = None,
    ) -> int:
        """Queue a prompt. Its events end with one `Done` or `Failed`.

        Args:
            tokens: the prompt, at least one and fewer than n_ctx; see `olm.chat.prompt.cut_tokens`.
            sampling: how to choose and when to stop.
            shift: discard old tokens when the context is full, instead of ending.
            preserved_tokens: special tokens that are to be seen in the text (a template's tool marks).
            constraint: what the content must match. Its grammar is compiled beside the prompt; one that cannot be used
                ends the request with `Failed` (InvalidArgument, the reason in words) before anything is generated.
            thinking: the tags around thinking; without them all of the answer is content.
            adapters: how much each of the model's adapters acts on this request; None for as they were loaded. Requests
                that differ in this never share a step.

        Returns:
            The request's number in events.

        Raises:
            PromptTooLong, InvalidArgument, EngineStopped
            Unsupported: the model generates no text, or llguidance is missing for a constraint.
        """
        fields = msgspec.structs.asdict(sampling) if sampling is not None else {}
        request = _TextRequest(
            **fields,
            shift=shift,
            preserved_tokens=tuple(preserved_tokens),
            constraint=constraint,
            thinking=thinking,
            adapters=None if adapters is None else tuple(adapters),
        )
        ids = array.array("i", tokens)  # held until the call returns
        self._last_request += 1
        check(
            lib.olm_engine_submit(
                self.pointer,
                self._last_request,
                ffi.from_buffer("int32_t[]", ids),
                len(ids),
                msgspec.json.encode(request),
            )
        )
        return self._last_request

    def embed(
        self,
        inputs: Sequence[Sequence[int]],
        *,
        normalize: bool = True,
        adapters: Sequence[float] | None = None,
    ) -> int:
        """Queue texts to embed, all in as few steps as fit. One `Embedding` or `Failed` answers.

        Args:
            inputs: tokens of each text, at least one and at most n_ctx.
            normalize: scale each vector to length 1 (L2).
            adapters: as for `submit`.

        Raises:
            PromptTooLong, InvalidArgument, EngineStopped
        """
        flat, offsets = array.array("i"), array.array("I", [0])  # held until the call returns
        for tokens in inputs:
            flat.extend(tokens)
            offsets.append(len(flat))
        self._last_request += 1
        check(
            lib.olm_engine_embed(
                self.pointer,
                self._last_request,
                ffi.from_buffer("int32_t[]", flat),
                ffi.from_buffer("uint32_t[]", offsets),
                len(inputs),
                msgspec.json.encode({"normalize": normalize, "adapters": adapters}),
            )
        )
        return self._last_request

    def cancel(self, request: int) -> None:
        """End a request within a step; its `Done` (reason cancelled) still comes. One that is over is left alone."""
        check(lib.olm_engine_cancel(self.pointer, request))

    def pause(self, request: int) -> None:
        """Let a request keep its place and take no steps: its reader is slow."""
        check(lib.olm_engine_pause(self.pointer, request, 1))

    def resume(self, request: int) -> None:
        """Let a paused request go on."""
        check(lib.olm_engine_pause(self.pointer, request, 0))

    def fileno(self) -> int:
        """Return the descriptor that is readable while events wait. The engine owns it."""
        return self._fd

    def poll(self) -> list[Event]:
        """Take the events that wait, without waiting."""
        check(lib.olm_engine_next_frame(self.pointer, self._frame, self._size))
        size = self._size[0]
        return decode_frame(bytes(ffi.buffer(self._frame[0], size))) if size else []

    async def next_events(self) -> list[Event]:
        """Wait for events, at least one. Cancelling it loses none."""
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            events = self.poll()
            if events:
                return events

    def stats(self) -> EngineStats:
        """Return the engine's numbers as of its last step."""
        pointer = self.pointer
        text = take_text(lambda out: lib.olm_engine_stats_json(pointer, out))
        return msgspec.json.decode(text, type=EngineStats)

    def __enter__(self) -> Self:
        return self
