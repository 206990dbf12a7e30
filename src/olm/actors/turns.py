"""From a request and a stored model to what the worker gets: checks, options, prompt. Pure.

The checks come in Ollama's order with Ollama's words (spec/ollama §1.4, §1.5, §1.12, commit fb30760). What olm does
not do yet is refused here too, so that nothing is ignored in silence. Which model runs where: `placement`.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable
from typing import Final

import attrs
import msgspec

from olm.actors.client import (
    ChatRequest,
    EmbedRequest,
    EmbedResult,
    GenerateRequest,
    StoredModel,
)
from olm.chat.options import LoadOptions, load_options, merge_options, sampling
from olm.chat.prompt import chat_messages, completion_messages, plain_text
from olm.chat.types import ChatMessage, ChatPrompt, Prompt, Sampling, TextPrompt, Think
from olm.errors import InvalidRequest, NotSupported, NotYetSupported
from olm.native import wire

__all__ = ["TurnPlan", "embed_result", "plan_chat", "plan_embed", "plan_generate", "turn_message"]

_PREDICT_CONTEXTS: Final = 10
"""num_predict is bounded by this many contexts, also when it is unlimited (Ollama, spec §1.7)."""


@attrs.frozen
class TurnPlan:
    """A checked turn, still without a runner.

    Attributes:
        load: load-time options that the request or the Modelfile set; None where nobody did.
        context: tokens that stand in front of a chat prompt (Ollama's deprecated `context`); the prompt is then
            rendered first and sent as text.
    """

    prompt: Prompt
    sampling: Sampling
    load: LoadOptions
    context: tuple[int, ...] = ()
    truncate: bool = True
    shift: bool = True
    want_context: bool = False


def plan_chat(request: ChatRequest, model: StoredModel) -> TurnPlan:
    """Check a chat request against its model and lay out its prompt.

    Raises:
        NotSupported: the model lacks a capability. InvalidOption: a mistyped option. NotYetSupported.
    """
    _check_completion(model, request.model, "chat")
    _check_thinking(model, request.model, request.think)
    if request.tools_json:
        _require(model, "tools")
        raise NotYetSupported("tools are not supported yet")
    _refuse_format(request.format_json)
    messages = chat_messages(request.messages, system=model.system, preset=model.messages)
    _refuse_images(image for message in messages for image in message.images)
    options = merge_options(model.parameters, request.options)
    return TurnPlan(
        prompt=_prompt(messages, model),
        sampling=sampling(options, n_logprobs=request.n_logprobs),
        load=load_options(options),
        truncate=request.truncate,
        shift=request.shift,
    )


def plan_generate(request: GenerateRequest, model: StoredModel) -> TurnPlan:
    """Check a completion request against its model and lay out its prompt.

    Raises:
        InvalidRequest: `raw` together with template, system or context. Else as `plan_chat`.
    """
    if request.raw and (request.template or request.system or request.context):
        raise InvalidRequest("raw mode does not support template, system, or context")
    _check_thinking(model, request.model, request.think)
    _check_completion(model, request.model, "generate")
    if request.suffix:
        _require(model, "insert")
        raise NotYetSupported("suffix (fill in the middle) is not supported yet")
    if request.template:
        raise NotYetSupported("a template in the request is not supported yet")
    _refuse_format(request.format_json)
    _refuse_images(request.images)
    options = merge_options(model.parameters, request.options)
    prompt = TextPrompt(text=request.prompt) if request.raw else _completion_prompt(request, model)
    return TurnPlan(
        prompt=prompt,
        sampling=sampling(options, n_logprobs=request.n_logprobs),
        load=load_options(options),
        context=tuple(request.context),
        truncate=request.truncate,
        shift=request.shift,
        want_context=not request.raw,
    )


def plan_embed(request: EmbedRequest, model: StoredModel) -> LoadOptions:
    """Merge the options of an embedding request. Raises InvalidOption."""
    return load_options(merge_options(model.parameters, request.options))


def turn_message(plan: TurnPlan, *, n_ctx: int, rendered: str | None = None) -> wire.Turn:
    """Write a plan as the worker's message.

    Args:
        n_ctx: context of the runner's slots, tokens; bounds how much may be generated.
        rendered: the prompt's text, when there are `context` tokens to put in front of it.
    """
    bound = _PREDICT_CONTEXTS * n_ctx
    n_predict = plan.sampling.n_predict
    if n_predict < 0 or n_predict > bound:
        n_predict = bound
    prompt = plan.prompt
    if rendered is not None:
        prompt = TextPrompt(text=rendered, context=plan.context)
    elif plan.context and isinstance(prompt, TextPrompt):
        prompt = TextPrompt(text=prompt.text, context=plan.context)
    return wire.Turn(
        prompt=prompt,
        sampling=msgspec.structs.replace(plan.sampling, n_predict=n_predict),
        truncate=plan.truncate,
        shift=plan.shift,
        want_context=plan.want_context,
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
    messages = completion_messages(
        request.prompt,
        system=request.system or model.system,
        preset=() if request.context else model.messages,
        images=tuple(request.images),
    )
    return _prompt(messages, model)


def _prompt(messages: tuple[ChatMessage, ...], model: StoredModel) -> Prompt:
    if model.has_chat_template:
        # Thinking is closed: its text has no parser yet, so it would run into the answer.
        return ChatPrompt(messages=messages, think=False)
    if model.template or model.renderer:
        raise NotYetSupported(
            f'model "{model.name}" has no chat template in its weights; Go templates are not supported yet'
        )
    return TextPrompt(text=plain_text(messages))


def _check_completion(model: StoredModel, asked: str, verb: str) -> None:
    if "completion" not in model.capabilities:
        raise NotSupported(f'"{asked}" does not support {verb}')


def _check_thinking(model: StoredModel, asked: str, think: Think | None) -> None:
    if not think:
        return
    if "thinking" not in model.capabilities:
        raise NotSupported(f'"{asked}" does not support thinking')
    raise NotYetSupported("thinking output is not supported yet")


def _require(model: StoredModel, capability: str) -> None:
    if capability not in model.capabilities:
        raise NotSupported(f"{model.full_name} does not support {capability}")


def _refuse_format(format_json: str) -> None:
    if format_json:
        raise NotYetSupported("format (structured output) is not supported yet")


def _refuse_images(images: Iterable[bytes]) -> None:
    if any(True for _ in images):
        raise NotYetSupported("images are not supported yet")
