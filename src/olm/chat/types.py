"""The nouns of a chat as every layer of olm shares them: messages, prompts, sampling, and what a turn sends back.

These structs cross the process boundary to a worker as msgpack, so they hold plain values only; JSON whose key
order matters (tools, schemas) travels as text. The wire forms of the HTTP dialects are in `olm.api.schemas`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = [
    "AnswerEvent",
    "CallArguments",
    "CallEnd",
    "CallStart",
    "ChatMessage",
    "ChatPrompt",
    "Constraint",
    "ConstraintKind",
    "Done",
    "DoneReason",
    "InfillPrompt",
    "Piece",
    "Prompt",
    "PromptStyle",
    "Sampling",
    "TextPrompt",
    "Think",
    "TokenLogprob",
    "ToolCall",
    "ToolChoice",
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


class PromptStyle(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which of the three ways leads from messages to a prompt and back (spec/ollama §0).

    With `renderer` or `parser`: the named ones of olm.chat (a parser may stand beside a Go template). Else with
    `template`: a Go template, its tags inferred. Else the GGUF's own Jinja template.
    """

    renderer: str = ""
    parser: str = ""
    template: str = ""


class ToolChoice(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether the answer may, must or must not call tools. `name` (only with `required`): this one and no other."""

    mode: Literal["auto", "none", "required"] = "auto"
    name: str = ""


ConstraintKind = Literal["json", "json_schema", "regex", "choice", "lark", "gbnf"]


class Constraint(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the content of an answer must look like. `text`: the schema, expression or grammar; of a choice, a JSON array."""

    kind: ConstraintKind
    text: str = ""


class ChatPrompt(msgspec.Struct, frozen=True, omit_defaults=True, tag="chat"):
    """A conversation to be rendered in the worker.

    Attributes:
        messages: everything the template sees, system and Modelfile messages already in place.
        tools_json: a JSON array of tools, or empty.
        think: None leaves it to the model's habit; False closes the thinking at once.
        template_kwargs_json: a JSON object of further variables for a Jinja template, or empty.
        context: tokens of an earlier answer that stand before the prompt (Ollama's deprecated `context`).
        has_form: the answer must match a form where it is no call.
    """

    messages: tuple[ChatMessage, ...]
    tools_json: str = ""
    think: Think | None = None
    style: PromptStyle = PromptStyle()
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    template_kwargs_json: str = ""
    context: tuple[int, ...] = ()
    has_form: bool = False


class InfillPrompt(msgspec.Struct, frozen=True, omit_defaults=True, tag="infill"):
    """A gap to be filled: the text before and after it, for a Go template with `.Suffix`."""

    prompt: str
    suffix: str
    style: PromptStyle = PromptStyle()
    context: tuple[int, ...] = ()


class TextPrompt(msgspec.Struct, frozen=True, omit_defaults=True, tag="text"):
    """Text that is tokenized as it is (raw mode, or already rendered).

    Attributes:
        text: the prompt; special tokens written in it are recognised, as llama-server does for raw completions.
        context: as in `ChatPrompt`.
    """

    text: str
    context: tuple[int, ...] = ()


Prompt = ChatPrompt | InfillPrompt | TextPrompt


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """How tokens are chosen and when to stop: the request-time options of `spec/ollama.md` §1.7 and llama.cpp's more.

    Defaults are Ollama's (commit fb30760). `n_predict` -1 is unlimited within the context's bounds; `seed` -1
    draws a fresh one. `logit_bias` maps token ids to a value added to their logit. `think_budget` (tokens, -1 without
    bound): after so many tokens of thinking its end is forced.
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
    think_budget: int = -1
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
    """What one step added to the answer. Text is whole UTF-8 and never a part of a stop string.

    `malformed`: the content is the text of a tool call that could not be read.
    """

    content: str = ""
    thinking: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    malformed: bool = False


class CallStart(msgspec.Struct, frozen=True, tag="s", array_like=True):
    """A tool call begins. `index` counts the calls of an answer from 0."""

    index: int
    id: str
    name: str


class CallArguments(msgspec.Struct, frozen=True, tag="a", array_like=True):
    """The next part of a call's arguments. All parts together are one JSON object as text."""

    index: int
    json: str


class CallEnd(msgspec.Struct, frozen=True, tag="e", array_like=True):
    """A call is over: the whole of it, or None when it broke off or could not be read (its text follows as a Piece)."""

    index: int
    call: ToolCall | None


AnswerEvent = Piece | CallStart | CallArguments | CallEnd
"""What a parser makes of generated text."""


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
        malformed: a tool call could not be read, and stands in the content as it was written.
        stop: the stop string that ended it, empty for an end token or another reason.
    """

    reason: DoneReason
    n_prompt: int = 0
    n_cached: int = 0
    n_generated: int = 0
    prompt_ns: int = 0
    eval_ns: int = 0
    context: tuple[int, ...] = ()
    truncated: bool = False
    malformed: bool = False
    stop: str = ""


TurnEvent = AnswerEvent | Done
