"""From a request and a stored model to what the worker gets: checks, options, prompt. Pure.

The checks come in Ollama's order with Ollama's words (spec/ollama §1.4, §1.5, §1.12, commit fb30760). What olm does
not do yet is refused here too, so that nothing is ignored in silence. Which model runs where: `placement`.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import msgspec

from olm.actors.client import (
    ChatRequest,
    EmbedRequest,
    EmbedResult,
    GenerateRequest,
    RerankRequest,
    StoredModel,
)
from olm.chat.adapters import adapter_scales
from olm.chat.media import kind_of, media_of
from olm.chat.options import (
    LoadOptions,
    OptionValue,
    adapters,
    load_options,
    merge_options,
    sampling,
)
from olm.chat.parsers.kit.harmony_names import harmony_think
from olm.chat.prompt import (
    chat_messages,
    completion_messages,
    plain_text,
    without_old_thoughts,
)
from olm.chat.renderers.gemma4 import gemma4_variant
from olm.chat.types import (
    ChatMessage,
    ChatPrompt,
    Constraint,
    InfillPrompt,
    Prompt,
    PromptStyle,
    Sampling,
    TextPrompt,
    Think,
)
from olm.errors import InvalidRequest, NotSupported, NotYetSupported
from olm.native import wire

__all__ = [
    "TurnPlan",
    "check_thinking",
    "checked_tokens",
    "embed_message",
    "embed_result",
    "plan_chat",
    "plan_embed",
    "plan_generate",
    "plan_rerank",
    "rerank_message",
    "turn_message",
]

_HARMONY: Final = ("gptoss", "gpt-oss")

_TOKEN_END: Final = 1 << 31
"""llama.cpp numbers tokens in 32 bits, the negative ones of no meaning."""

_PREDICT_CONTEXTS: Final = 10
"""num_predict is bounded by this many contexts, also when it is unlimited (Ollama, spec §1.7)."""


@attrs.frozen
class TurnPlan:
    """A checked turn, still without a runner.

    Attributes:
        load: load-time options that the request or the Modelfile set; None where nobody did.
        tell_stop: the stop strings are the request's own, so its answer names the one that ended it. Those of a Modelfile
            stand for a template's, and are an ordinary end.
        adapters: the scale of each of the model's adapters; None for a model without.
    """

    prompt: Prompt
    sampling: Sampling
    load: LoadOptions
    constraint: Constraint | None = None
    truncate: bool = True
    shift: bool = True
    want_context: bool = False
    tell_stop: bool = False
    adapters: tuple[float, ...] | None = None


def plan_chat(request: ChatRequest, model: StoredModel) -> TurnPlan:
    """Check a chat request against its model and lay out its prompt.

    Raises:
        NotSupported: the model lacks a capability. InvalidOption: a mistyped option. NotYetSupported.
    """
    check_thinking(model, request.model, request.think)
    _check_completion(model, request.model, "chat")
    if request.tools_json:
        _require(model, "tools")
    messages = chat_messages(request.messages, system=model.system, preset=model.messages)
    _check_media(messages, model)
    options = merge_options(model.parameters, request.options)
    prompt = _prompt(messages, model, request.think)
    if isinstance(prompt, ChatPrompt):
        prompt = msgspec.structs.replace(
            prompt,
            tools_json=request.tools_json,
            tool_choice=request.tool_choice,
            parallel_tool_calls=request.parallel_tool_calls,
            template_kwargs_json=request.template_kwargs_json,
            has_form=request.constraint is not None,
        )
    return TurnPlan(
        prompt=prompt,
        sampling=sampling(options, n_logprobs=request.n_logprobs),
        load=load_options(options),
        constraint=request.constraint,
        truncate=request.truncate,
        shift=request.shift,
        tell_stop=bool(request.options.get("stop")),
        adapters=_adapters(options, model),
    )


def plan_generate(request: GenerateRequest, model: StoredModel) -> TurnPlan:
    """Check a completion request against its model and lay out its prompt.

    Raises:
        InvalidRequest: `raw` together with template, system or context, tokens as a prompt without it. Else as
        `plan_chat`.
    """
    if request.raw and (request.template or request.system or request.context):
        raise InvalidRequest("raw mode does not support template, system, or context")
    if request.prompt_tokens and not request.raw:
        raise InvalidRequest("a prompt of tokens needs raw mode")
    check_thinking(model, request.model, request.think)
    _check_completion(model, request.model, "generate")
    if request.suffix:
        _require(model, "insert")
    options = merge_options(model.parameters, request.options)
    return TurnPlan(
        prompt=_completion_prompt(request, model),
        sampling=sampling(options, n_logprobs=request.n_logprobs),
        load=load_options(options),
        constraint=request.constraint,
        truncate=request.truncate,
        shift=request.shift,
        want_context=not request.raw,
        tell_stop=bool(request.options.get("stop")),
        adapters=_adapters(options, model),
    )


def _adapters(options: Mapping[str, OptionValue], model: StoredModel) -> tuple[float, ...] | None:
    """Say how much each adapter of a model acts on a request. Raises InvalidOption for one that it has not."""
    # Models that were made before adapters had names have them without.
    names = [*model.adapter_names, *[""] * len(model.adapters)][: len(model.adapters)]
    return adapter_scales(adapters(options), names) or None


def check_thinking(model: StoredModel, asked: str, think: Think | None) -> None:
    """Refuse to think with a model that cannot. Raises NotSupported.

    Args:
        asked: the model's name as the request has it.
    """
    if think and "thinking" not in model.capabilities:
        raise NotSupported(f'"{asked}" does not support thinking')


def checked_tokens(tokens: Sequence[int]) -> tuple[int, ...]:
    """Refuse what no vocabulary can have, before it meets a C integer; the worker knows the model's own.

    Raises:
        InvalidRequest: it names the token.
    """
    for at, token in enumerate(tokens):
        if not 0 <= token < _TOKEN_END:
            raise InvalidRequest(f"token {token} at place {at} is not in any model's vocabulary")
    return tuple(tokens)


def plan_embed(request: EmbedRequest, model: StoredModel) -> LoadOptions:
    """Merge the options of an embedding request. Raises InvalidOption."""
    return load_options(merge_options(model.parameters, request.options))


def embed_message(request: EmbedRequest, model: StoredModel) -> wire.Embed:
    """Write an embedding request as the worker's message. Raises InvalidRequest, InvalidOption for what cannot be."""
    inputs = (
        given if isinstance(given, str) else checked_tokens(given) for given in request.inputs
    )
    return wire.Embed(
        inputs=tuple(inputs),
        truncate=request.truncate,
        normalize=request.normalize,
        adapters=_adapters(merge_options(model.parameters, request.options), model),
    )


def plan_rerank(request: RerankRequest, model: StoredModel) -> LoadOptions:
    """Merge the options of a ranking request.

    Raises:
        NotSupported: the model cannot be a ranking one: its file names no pooling. InvalidOption.
    """
    if "embedding" not in model.capabilities:
        raise NotSupported(f"{model.full_name} does not support reranking")
    return load_options(merge_options(model.parameters, request.options))


def rerank_message(request: RerankRequest, model: StoredModel) -> wire.Rerank:
    """Write a ranking request as the worker's message. Raises InvalidOption."""
    return wire.Rerank(
        query=request.query,
        documents=tuple(request.documents),
        truncate=request.truncate,
        adapters=_adapters(merge_options(model.parameters, request.options), model),
    )


def turn_message(plan: TurnPlan, *, n_ctx: int) -> wire.Turn:
    """Write a plan as the worker's message.

    Args:
        n_ctx: context of the runner's slots, tokens; bounds how much may be generated.

    Raises:
        NotYetSupported: the prompt has pictures or sound: their places are known, but there is no encoder yet.
    """
    if isinstance(plan.prompt, ChatPrompt) and media_of(plan.prompt.messages):
        raise NotYetSupported("images and audio are not supported yet")
    bound = _PREDICT_CONTEXTS * n_ctx
    n_predict = plan.sampling.n_predict
    if n_predict < 0 or n_predict > bound:
        n_predict = bound
    return wire.Turn(
        prompt=plan.prompt,
        sampling=msgspec.structs.replace(plan.sampling, n_predict=n_predict),
        constraint=plan.constraint,
        truncate=plan.truncate,
        shift=plan.shift,
        want_context=plan.want_context,
        tell_stop=plan.tell_stop,
        adapters=plan.adapters,
    )


def embed_result(embedded: wire.Embedded, *, dimensions: int, load_ns: int) -> EmbedResult:
    """Unpack the worker's rows; `dimensions` cuts each and scales it to length 1 again (spec §1.11).

    Raises:
        InvalidRequest: a value that is no number (Ollama's words).
    """
    floats = array("f", embedded.vectors)
    if sys.byteorder == "big":
        floats.byteswap()
    n_embd = embedded.n_embd
    rows = [floats[start : start + n_embd] for start in range(0, len(floats), n_embd)]
    if not all(map(math.isfinite, floats)):
        raise InvalidRequest("embedding contains NaN or Inf values")
    if 0 < dimensions < n_embd:
        rows = [_unit(row[:dimensions]) for row in rows]
    return EmbedResult([row.tolist() for row in rows], sum(embedded.n_tokens), load_ns)


def _unit(row: array[float]) -> array[float]:
    norm = math.sqrt(math.fsum(value * value for value in row))
    return array("f", (value / norm for value in row)) if norm > 0 else row


def _completion_prompt(request: GenerateRequest, model: StoredModel) -> Prompt:
    context = checked_tokens(request.context)
    if request.raw:
        if request.images:
            raise NotYetSupported("images are not supported yet")
        return TextPrompt(text=request.prompt, context=checked_tokens(request.prompt_tokens))
    style = PromptStyle(template=request.template) if request.template else _style(model)
    if request.suffix:
        return InfillPrompt(request.prompt, request.suffix, style, context)
    messages = completion_messages(
        request.prompt,
        system=request.system or model.system,
        preset=() if context else model.messages,
        images=tuple(request.images),
    )
    _check_media(messages, model)
    prompt = _prompt(messages, model, request.think, style)
    return msgspec.structs.replace(prompt, context=context)


def _prompt(
    messages: tuple[ChatMessage, ...],
    model: StoredModel,
    think: Think | None,
    style: PromptStyle | None = None,
) -> ChatPrompt | TextPrompt:
    style = style or _style(model)
    if style == PromptStyle() and not model.has_chat_template:
        return TextPrompt(text=plain_text(messages))
    if model.details.family == "qwen3" or _base_name(model) == "deepseek-r1":
        messages = without_old_thoughts(messages)
    return ChatPrompt(messages=messages, think=_thinking(think, model, style), style=style)


def _style(model: StoredModel) -> PromptStyle:
    """Choose the way to the prompt and back (spec/ollama §0)."""
    template, parser = model.template if model.uses_go_template else "", model.parser
    if not parser and _is_harmony(model):
        template, parser = model.template, "harmony"
    renderer = model.renderer
    if renderer == "gemma4":
        renderer = gemma4_variant(model.name, model.parameter_count)
    return PromptStyle(renderer, parser, "" if renderer else template)


def _is_harmony(model: StoredModel) -> bool:
    """Whether answers come in OpenAI's harmony format: by family, and by what the Go template writes."""
    marks = ("<|start|>", "<|end|>")
    return model.details.family in _HARMONY and all(mark in model.template for mark in marks)


def _thinking(think: Think | None, model: StoredModel, style: PromptStyle) -> Think | None:
    """A model that can think does, unless told not to (spec/ollama §1.8)."""
    if think is None:
        return True if "thinking" in model.capabilities else None
    return harmony_think(think) if style.parser == "harmony" else think


def _base_name(model: StoredModel) -> str:
    return model.name.rpartition("/")[2].partition(":")[0]


def _check_completion(model: StoredModel, asked: str, verb: str) -> None:
    if "completion" not in model.capabilities:
        raise NotSupported(f'"{asked}" does not support {verb}')


def _require(model: StoredModel, capability: str) -> None:
    if capability not in model.capabilities:
        raise NotSupported(f"{model.full_name} does not support {capability}")


def _check_media(messages: Sequence[ChatMessage], model: StoredModel) -> None:
    for item in media_of(messages):
        _require(model, "audio" if kind_of(item) == "audio" else "vision")
