"""OpenAI's completion requests as `GenerateRequest`s: each prompt as often as it is to be answered. Pure.

As in Ollama a text goes through the model's template, unless olm's `raw` is set (spec/ollama §2.3, commit fb30760);
tokens are sent as they are. Lists of prompts, tokens, `n`, `best_of` and `echo` are OpenAI's and not in Ollama. Answers:
`openai_completions_events`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from olm.actors.client import GenerateRequest
from olm.api import schemas_openai as wire
from olm.api.dialects.common import checked_top, token_ids
from olm.api.dialects.openai_common import (
    checked_count,
    each_choice,
    form_of_answer,
    model_name,
    sampling_options,
    stop_strings,
    think_of,
)
from olm.errors import InvalidRequest, ModelNotFound
from olm.units import parse_keep_alive

__all__ = ["CompletionPlan", "plan_completions"]

MAX_TURNS: Final = 256
"""Most answers to one request, over all its prompts."""
_KINDS: Final = "a string, a list of strings, a list of tokens, or a list of lists of tokens"

Prompt = str | tuple[int, ...]


@attrs.frozen
class CompletionPlan:
    """The turns of one request.

    Attributes:
        prompts: texts or tokens.
        requests: `n_each` for each prompt, next to each other.
        n_kept: of these, how many are answered: the likeliest.
        echo: the prompt stands before each answer.
        with_logprobs: the client wants them (`best_of` needs them too).
    """

    prompts: Sequence[Prompt]
    requests: Sequence[GenerateRequest]
    n_each: int
    n_kept: int
    echo: bool
    with_logprobs: bool


def plan_completions(request: wire.CompletionRequest) -> CompletionPlan:
    """Translate `/v1/completions`.

    Raises:
        InvalidRequest, ModelNotFound: with Ollama's text and status where it takes the field, else with olm's own.
    """
    stop = stop_strings(request.stop, strict=True)
    prompts = _prompts(request.prompt)
    n_kept = checked_count(request.n, param="n")
    n_each = max(
        n_kept, 1 if request.best_of is None else checked_count(request.best_of, param="best_of")
    )
    _check_together(request, prompts, n_kept)
    if len(prompts) * n_each > MAX_TURNS:
        raise InvalidRequest(f"a request may have at most {MAX_TURNS} answers", param="prompt")
    options = sampling_options(request)
    if stop is not None:
        options["stop"] = stop
    n_logprobs = -1 if request.logprobs is None else checked_top(request.logprobs, param="logprobs")
    name = request.model or ""
    common = GenerateRequest(
        model=model_name(name, ModelNotFound(f"model '{name}' not found")),
        prompt="",
        suffix=request.suffix or "",
        raw=bool(request.raw),
        constraint=form_of_answer(request),
        think=think_of(request),
        options=options,
        keep_alive_s=parse_keep_alive(request.keep_alive),
        truncate=request.truncate is not False,
        shift=request.shift is not False,
        n_logprobs=max(n_logprobs, 0) if n_each > n_kept else n_logprobs,
    )
    return CompletionPlan(
        prompts=prompts,
        requests=[
            one for prompt in prompts for one in each_choice(_asking(common, prompt), n_each)
        ],
        n_each=n_each,
        n_kept=n_kept,
        echo=bool(request.echo),
        with_logprobs=n_logprobs >= 0,
    )


def _asking(common: GenerateRequest, prompt: Prompt) -> GenerateRequest:
    if isinstance(prompt, str):
        return attrs.evolve(common, prompt=prompt)
    return attrs.evolve(common, prompt_tokens=prompt, raw=True)


def _check_together(
    request: wire.CompletionRequest, prompts: Sequence[Prompt], n_kept: int
) -> None:
    """Refuse fields that do not go together. Raises InvalidRequest."""
    if request.best_of is not None and request.best_of < n_kept:
        raise InvalidRequest("best_of must not be smaller than n", param="best_of")
    if request.stream and (request.best_of or 1) > n_kept:
        raise InvalidRequest(
            "best_of cannot be streamed: the best is known at the end", param="best_of"
        )
    if request.echo and request.logprobs is not None:
        raise InvalidRequest(
            "echo with logprobs is not supported yet: there are no log-probabilities of a prompt",
            param="echo",
        )
    is_plain = request.raw or not all(isinstance(prompt, str) for prompt in prompts)
    if request.suffix and is_plain:
        raise InvalidRequest(
            "suffix needs the model's template: it cannot be combined with raw or with tokens",
            param="suffix",
        )


def _prompts(value: object) -> list[Prompt]:
    match value:
        case None:
            return [""]
        case str():
            return [value]
        case list() if value and all(isinstance(item, str) for item in value):
            return list(value)
        case list() if value and all(isinstance(item, list) and item for item in value):
            return [_tokens(item) for item in value]
        case list() if value and not any(isinstance(item, str | list) for item in value):
            return [_tokens(value)]
        case _:
            raise InvalidRequest(
                f"prompt must be {_KINDS}, and no list may be empty", param="prompt"
            )


def _tokens(value: object) -> tuple[int, ...]:
    tokens = token_ids(value, param="prompt")
    if tokens is None:
        raise InvalidRequest(f"prompt must be {_KINDS}", param="prompt")
    return tokens
