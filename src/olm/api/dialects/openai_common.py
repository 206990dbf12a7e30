"""What OpenAI's chat and completions have in common on the way in: names, sampling, form of the answer, thinking. Pure.

Where Ollama takes a field (spec/ollama §2.2, §2.3, commit fb30760), its checks and words are kept; the fields it ignores
follow OpenAI's API reference, and those of other servers their own names (vLLM, llama-server).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import attrs
import msgspec

from olm.actors.client import ChatRequest, GenerateRequest
from olm.api.body import decode
from olm.api.dialects.common import checked_name, go_type, parse_think, quoted
from olm.api.dialects.constraints import constraint
from olm.api.schemas import ABSENT, StructuredOutputs
from olm.api.schemas_openai import ResponseFormat, TurnFields
from olm.chat.adapters import AdapterChoice, read_adapters
from olm.chat.options import coerce_options
from olm.chat.types import Constraint, Think
from olm.errors import InvalidOption, InvalidRequest, OlmError

__all__ = [
    "MAX_CHOICES",
    "checked_count",
    "decode_body",
    "each_choice",
    "form_of_answer",
    "model_name",
    "sampling_options",
    "stop_strings",
    "think_of",
]

T = TypeVar("T", bound=msgspec.Struct)
Request = TypeVar("Request", ChatRequest, GenerateRequest)

MAX_CHOICES: Final = 16
"""Most answers to one prompt: each takes a place in the model's queue. OpenAI allows 128."""
MAX_BIAS: Final = 100.0
_INT31: Final = 1 << 31

_EFFORTS: Final[Mapping[str, Think]] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "ultra": "max",
    "max": "max",
}
_EFFORT_WORDS: Final = (
    '"minimal", "low", "medium", "high", "xhigh", "ultra", "max", or "none"'  # Ollama's order
)
_OPTIONS: Final[Mapping[str, str]] = {
    "num_predict": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "top_k": "top_k",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repeat_penalty": "repeat_penalty",
    "repeat_last_n": "repeat_last_n",
    "ignore_eos": "ignore_eos",
    "think_budget": "think_budget",
}
"""Option: field of the request."""


def decode_body(body: bytes, kind: type[T]) -> T:
    """Decode a request of these routes. An empty body is `EOF`, as Ollama says here and nowhere else.

    Raises:
        InvalidRequest: as `olm.api.body.decode`.
    """
    if not body or body.isspace():
        raise InvalidRequest("EOF")
    return decode(body, kind)


def model_name(given: str | None, refusal: OlmError | None = None) -> str:
    """The local name of the model; `refusal` (`model is required`) is raised for none and for what is no name."""
    return checked_name(given, refusal or InvalidRequest("model is required", param="model"))


def sampling_options(request: TurnFields) -> dict[str, object]:
    """Gather the options: `options` first, the request's own fields over them. Absent ones stay the Modelfile's.

    Raises:
        InvalidRequest: a bias out of range or of no token, an option of the wrong type (which is 500 in Ollama's own
            API, in this one a bad request like any other).
    """
    options = dict(request.options or {})
    try:
        coerce_options(options)
    except InvalidOption as exc:
        raise InvalidRequest(exc.message, param="options") from exc
    for option, field in _OPTIONS.items():
        value: object = getattr(request, field)
        if value is not None:
            options[option] = value
    if request.repeat_penalty is None and request.repetition_penalty is not None:
        options["repeat_penalty"] = request.repetition_penalty
    if request.seed is not None:
        # OpenAI's seeds have 64 bits, the engine's 32 with -1 for a fresh one.
        options["seed"] = request.seed if -1 <= request.seed < _INT31 else request.seed % _INT31
    if request.logit_bias:
        options["logit_bias"] = _biases(request.logit_bias)
    for field, chosen in (("lora", request.lora), ("adapters", request.adapters)):
        if chosen is not None:
            options["adapters"] = _adapters(field, chosen)
    return options


def _adapters(field: str, chosen: object) -> Sequence[AdapterChoice]:
    try:
        return read_adapters(chosen, field)
    except InvalidOption as exc:
        raise InvalidRequest(exc.message, param=field) from exc


def _biases(given: Mapping[str, float]) -> dict[str, float]:
    for token, bias in given.items():
        if not (token.isascii() and token.isdigit()):
            raise InvalidRequest(
                f"logit_bias: {quoted(token)} is not a token id", param="logit_bias"
            )
        if not -MAX_BIAS <= bias <= MAX_BIAS:
            raise InvalidRequest(
                f"logit_bias: {bias:g} of token {token[:40]} is not between -100 and 100",
                param="logit_bias",
            )
    return dict(given)


def stop_strings(value: object, *, strict: bool) -> tuple[str, ...] | None:
    """Read `stop`: one text or several; None leaves the Modelfile's. Empty texts are dropped.

    Args:
        strict: refuse what is no text (completions); else it is dropped (chat), as Ollama does.

    Raises:
        InvalidRequest: with Ollama's text.
    """
    if value is None:
        return None
    items: list[object] = value if isinstance(value, list) else [value]
    texts = tuple(item for item in items if isinstance(item, str))
    if strict and len(texts) != len(items):
        wrong = next(item for item in items if not isinstance(item, str))
        raise InvalidRequest(f"invalid type for 'stop' field: {go_type(wrong)}", param="stop")
    return tuple(text for text in texts if text)


def form_of_answer(request: TurnFields) -> Constraint | None:
    """Find the one constraint of a request, None when there is none.

    Raises:
        InvalidRequest: more than one, a malformed one, or an unknown `response_format`.
    """
    outputs = _guided(request)
    if outputs is not None and request.structured_outputs is not None:
        raise InvalidRequest("structured_outputs and guided_* cannot be combined")
    other = constraint(ABSENT, outputs or request.structured_outputs, request.grammar)
    wanted = _response_format(request.response_format) if request.response_format else None
    if wanted is not None and other is not None:
        raise InvalidRequest(
            "response_format, structured_outputs and grammar cannot be combined",
            param="response_format",
        )
    return wanted or other


def _guided(request: TurnFields) -> StructuredOutputs | None:
    """vLLM's older fields under their newer name."""
    outputs = StructuredOutputs(
        json=ABSENT if bytes(request.guided_json) in (b"", b"null") else request.guided_json,
        regex=request.guided_regex,
        choice=request.guided_choice,
        grammar=request.guided_grammar,
    )
    return None if outputs == StructuredOutputs() else outputs


def _response_format(wanted: ResponseFormat) -> Constraint | None:
    match wanted.type:
        case None | "" | "text":
            return None
        case "json_object":
            schema = bytes(wanted.schema).strip()
            return Constraint("json") if schema in (b"", b"null") else _schema(schema)
        case "json_schema":
            return _schema(bytes(wanted.json_schema.schema if wanted.json_schema else b"").strip())
        case other:
            shown = quoted(other)
            raise InvalidRequest(
                f'invalid response_format: {shown} (must be "text", "json_object" or "json_schema")',
                param="response_format",
            )


def _schema(text: bytes) -> Constraint | None:
    if not text.startswith(b"{"):
        raise InvalidRequest(
            "response_format: a JSON schema is missing or is not an object", param="response_format"
        )
    return constraint(msgspec.Raw(text), None, None)


def think_of(request: TurnFields) -> Think | None:
    """Whether and how much to think: `reasoning.effort`, else `reasoning_effort`, else olm's own `think`.

    Raises:
        InvalidRequest: an unknown effort, in Ollama's words.
    """
    effort = (request.reasoning.effort if request.reasoning else None) or request.reasoning_effort
    if not effort:
        return parse_think(request.think)
    if effort not in _EFFORTS:
        shown = quoted(effort)
        raise InvalidRequest(
            f"invalid reasoning value: {shown} (must be {_EFFORT_WORDS})", param="reasoning_effort"
        )
    return _EFFORTS[effort]


def checked_count(given: int | None, *, param: str) -> int:
    """Check how many answers are wanted, 1 when nothing is said. Raises InvalidRequest."""
    count = 1 if given is None else given
    if not 1 <= count <= MAX_CHOICES:
        raise InvalidRequest(f"{param} must be between 1 and {MAX_CHOICES}", param=param)
    return count


def each_choice(request: Request, n: int) -> list[Request]:
    """The requests of `n` answers to one prompt: with a seed each gets its own, or all answers would be the same."""
    seed = request.options.get("seed")
    if n == 1 or not isinstance(seed, int) or seed < 0:
        return [request] * n
    return [
        attrs.evolve(request, options={**request.options, "seed": (seed + index) % _INT31})
        for index in range(n)
    ]
