"""The nouns of a chat as every layer of olm shares them: messages, prompts, sampling, and what a turn sends back.

These structs cross the process boundary to a worker as msgpack, so they hold plain values only; JSON whose key
order matters (tools, schemas) travels as text. The wire forms of the HTTP dialects are in `olm.api.schemas`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = [
    "ChatMessage",
    "ChatPrompt",
    "Done",
    "DoneReason",
    "Piece",
    "Prompt",
    "Sampling",
    "TextPrompt",
    "Think",
    "TokenLogprob",
    "ToolCall",
    "TopLogprob",
    "TurnEvent",
]

DoneReason = Literal["stop", "length", "cancelled"]
Think = bool | Literal["low", "medium", "high", "max"]


class ToolCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """One function call of an assistant turn. `arguments_json` is a JSON object as text, key order kept."""

    name: str
    arguments_json: str = "{}"
    id: str = ""
    index: int = 0


class ChatMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message. `role` is lower case; `images` are decoded bytes of pictures or sound."""

    role: str
    content: str = ""
    thinking: str = ""
    images: tuple[bytes, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_name: str = ""
    tool_call_id: str = ""


class ChatPrompt(msgspec.Struct, frozen=True, omit_defaults=True, tag="chat"):
    """A conversation to be rendered by the model's own template in the worker.

    Attributes:
        messages: everything the template sees, system and Modelfile messages already in place.
        tools_json: a JSON array of tools, or empty.
        think: None leaves it to the template; False closes the thinking at once.
    """

    messages: tuple[ChatMessage, ...]
    tools_json: str = ""
    think: Think | None = None


class TextPrompt(msgspec.Struct, frozen=True, omit_defaults=True, tag="text"):
    """Text that is tokenized as it is (raw mode, or already rendered).

    Attributes:
        text: the prompt; special tokens written in it are recognised, as llama-server does for raw completions.
        context: tokens of an earlier answer that stand before the text (Ollama's deprecated `context`).
    """

    text: str
    context: tuple[int, ...] = ()


Prompt = ChatPrompt | TextPrompt


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """How tokens are chosen and when to stop: the request-time options of `spec/ollama.md` §1.7 and llama.cpp's more.

    Defaults are Ollama's (commit fb30760). `n_predict` -1 is unlimited within the context's bounds; `seed` -1
    draws a fresh one. `logit_bias` maps token ids to a value added to their logit.
    """

    n_predict: int = -1
    n_keep: int = 4
    seed: int = -1
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    repeat_last_n: int = 64
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    logit_bias: dict[int, float] = {}
    n_logprobs: int = -1
    """-1: no logprobs. 0: the taken token's. n: also the n best."""


class TopLogprob(msgspec.Struct, frozen=True, array_like=True):
    """A candidate token and its natural-log probability. `token` is its bytes, which may not be whole UTF-8."""

    token: bytes
    logprob: float


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """The taken token, its natural-log probability (<= 0), and the best candidates in falling order."""

    token: bytes
    logprob: float
    top: tuple[TopLogprob, ...] = ()


class Piece(msgspec.Struct, frozen=True, omit_defaults=True, tag="p", array_like=True):
    """What one step added to the answer. Text is whole UTF-8 and never a part of a stop string."""

    content: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


class Done(msgspec.Struct, frozen=True, omit_defaults=True, tag="d", array_like=True):
    """The end of a turn: why, and what it cost.

    Attributes:
        reason: `stop` (end token or stop string), `length` (n_predict or context), `cancelled`.
        n_prompt: prompt tokens, cached ones included.
        n_cached: of these, how many needed no computation.
        n_generated: tokens taken, the end token counted: llama-server's `predicted_n`, which Ollama reports.
        prompt_ns / eval_ns: time in prompt processing and in generation, nanoseconds.
        context: prompt and answer tokens, when the turn asked for them.
        truncated: the prompt was cut to fit.
    """

    reason: DoneReason
    n_prompt: int = 0
    n_cached: int = 0
    n_generated: int = 0
    prompt_ns: int = 0
    eval_ns: int = 0
    context: tuple[int, ...] = ()
    truncated: bool = False


TurnEvent = Piece | Done
