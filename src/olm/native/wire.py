"""Messages between a runner and its worker process: load, turns, embeddings, tokenizing.

Values only. The worker's behaviour is in `olm.native.worker`, the framing in `olm.actors.runtime`.
"""

from __future__ import annotations

import msgspec

from olm.actors.runtime import Message, StreamMessage
from olm.chat.options import LoadOptions
from olm.chat.types import Constraint, Prompt, Sampling, TurnEvent

__all__ = [
    "CountTokens",
    "Detokenize",
    "Embed",
    "Embedded",
    "Load",
    "LoadEvent",
    "LoadProgress",
    "Loaded",
    "Pieces",
    "Ranked",
    "Render",
    "Rerank",
    "Tokenize",
    "Turn",
    "WorkerConfig",
    "WorkerStats",
    "WorkerStatsRequest",
]


class WorkerConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker needs before it has a model. `cpu_variant` forces one build of the CPU backend."""

    cpu_variant: str = ""
    debug: int = 0


class LoadProgress(msgspec.Struct, frozen=True, tag="progress"):
    """The fraction of the weights that is loaded, 0 to 1."""

    frac: float


class Loaded(msgspec.Struct, frozen=True, omit_defaults=True, tag="loaded"):
    """The model is ready.

    Attributes:
        n_ctx: context of one slot, tokens; n_ctx_train: what the model was trained for.
        n_parallel: slots.
        size_bytes: weights, KV cache and compute buffers; vram_bytes: the part of it on GPUs.
        embedding: it gives embeddings only.
        template_caps: what the model's own chat template can do (`tools`, `thinking`).
        cpu_variant: the CPU backend in use.
        load_ns: nanoseconds.
    """

    n_ctx: int
    n_ctx_train: int
    n_parallel: int
    n_embd: int = 0
    size_bytes: int = 0
    vram_bytes: int = 0
    embedding: bool = False
    template_caps: tuple[str, ...] = ()
    cpu_variant: str = ""
    load_ns: int = 0


LoadEvent = LoadProgress | Loaded


class Load(StreamMessage[LoadEvent], frozen=True, omit_defaults=True):
    """Load the weights; progress events, then one `Loaded`. Closing the stream cancels the load.

    Attributes:
        path: the GGUF blob.
        adapters: LoRA GGUFs with their scales.
        options: load-time options, already resolved by the runner (n_ctx is for one slot).
        n_parallel: slots wanted.
        embedding: make an embedding context.
        kv_unified: all slots share one set of KV cells, instead of a region for each.

    Raises (as the stream's error): LoadFailed with the engine's own words.
    """

    path: str
    adapters: tuple[tuple[str, float], ...] = ()
    options: LoadOptions = LoadOptions()
    n_parallel: int = 1
    embedding: bool = False
    kv_unified: bool = True
    kv_cache_type: str = "f16"
    flash_attention: bool | None = None
    n_threads: int = 0


class Turn(StreamMessage[TurnEvent], frozen=True, omit_defaults=True):
    """Answer one prompt: `Piece` events, then one `Done`. Closing the stream frees the sequence within a step.

    Attributes:
        truncate: drop the oldest messages, or cut the text, when the prompt does not fit; else it is ContextTooLong.
        shift: discard old tokens and go on when the context is full, instead of ending with `length`.
        want_context: `Done` carries all tokens (Ollama's deprecated `context`).
        constraint: what the content must look like; thinking before it is free.
        tell_stop: `Done` names the stop string of the sampling that ended it; a template's own are never named.
        adapters: how much each of the model's adapters acts; None: as they were loaded.
    """

    prompt: Prompt
    sampling: Sampling = Sampling()
    constraint: Constraint | None = None
    truncate: bool = True
    shift: bool = True
    want_context: bool = False
    tell_stop: bool = False
    adapters: tuple[float, ...] | None = None


class Embedded(msgspec.Struct, frozen=True):
    """`vectors` is the inputs' rows one after another, [n_inputs, n_embd] f32 little endian; counts are tokens."""

    vectors: bytes
    n_embd: int
    n_tokens: tuple[int, ...]


class Embed(Message[Embedded], frozen=True, omit_defaults=True):
    """Embed texts, all in as few steps as fit. Raises ContextTooLong when one is too long and `truncate` is off.

    Attributes:
        inputs: texts, or tokens, which are taken as they are: nothing is put around them.
        normalize: scale each row to length 1 (L2).
        adapters: as in `Turn`.
    """

    inputs: tuple[str | tuple[int, ...], ...]
    truncate: bool = True
    normalize: bool = True
    adapters: tuple[float, ...] | None = None


class Ranked(msgspec.Struct, frozen=True):
    """Scores of documents in their order, higher is better, as the model's head gives them; counts are tokens."""

    scores: tuple[float, ...]
    n_tokens: tuple[int, ...]


class Rerank(Message[Ranked], frozen=True, omit_defaults=True):
    """Score how well documents answer a query, all in as few steps as fit.

    Raises:
        NotSupported: the model has no ranking head. ContextTooLong: a document is too long and `truncate` is off, or
        the query leaves none any room.
    """

    query: str
    documents: tuple[str, ...]
    truncate: bool = True
    adapters: tuple[float, ...] | None = None


class Render(Message[str], frozen=True, omit_defaults=True):
    """Render a prompt and return the text: as a turn would, or all of it when `truncate` is off."""

    prompt: Prompt
    truncate: bool = True


class CountTokens(Message[int], frozen=True):
    """Count the tokens of a whole prompt, nothing dropped. Marks of pictures and sounds count nothing."""

    prompt: Prompt


class Tokenize(Message[tuple[int, ...]], frozen=True, omit_defaults=True):
    """Turn text into token ids."""

    text: str
    add_special: bool = True
    parse_special: bool = True


class Detokenize(Message[str], frozen=True):
    """Turn token ids into text; bytes that are no UTF-8 become U+FFFD. Raises InvalidRequest for unknown tokens."""

    tokens: tuple[int, ...]


class Pieces(Message[tuple[bytes, ...]], frozen=True):
    """Give the bytes of each token, which need not be whole UTF-8. Raises InvalidRequest for unknown tokens."""

    tokens: tuple[int, ...]


class WorkerStats(msgspec.Struct, frozen=True, omit_defaults=True):
    """Counters of the engine: sequences running and waiting, KV cells used, steps and tokens so far."""

    n_running: int = 0
    n_waiting: int = 0
    n_cells_used: int = 0
    n_steps: int = 0
    n_prompt_tokens: int = 0
    n_decoded_tokens: int = 0


class WorkerStatsRequest(Message[WorkerStats], frozen=True):
    """Ask for the engine's counters."""
