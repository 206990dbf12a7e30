"""What the requests of all dialects have in common: names of models, thinking, counts, tokens, pictures as text. Pure.

Words are Ollama's (spec/ollama §1.3, §1.8, commit fb30760). What is one dialect's alone is in its own module.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Final

import msgspec

from olm.api.gojson import check_values
from olm.chat.types import Think
from olm.errors import InvalidName, InvalidRequest, OlmError
from olm.store.names import ModelName

__all__ = [
    "checked_name",
    "checked_top",
    "decoded_base64",
    "go_type",
    "json_object",
    "local_name",
    "parse_think",
    "quoted",
    "token_ids",
]

_MAX_TOP_LOGPROBS: Final = 20
_MAX_QUOTED: Final = 200
_MAX_TOKEN: Final = (1 << 31) - 1
_THINK_WORDS: Final = '"high", "medium", "low", "max", true, or false'
_GO_TYPES: Final = {
    bool: "bool",
    int: "float64",
    float: "float64",
    str: "string",
    list: "[]interface {}",
    dict: "map[string]interface {}",
}


def checked_name(given: str | None, refusal: OlmError) -> str:
    """The local name of a model; `refusal` is what the route says of a name that does not parse (spec §1.3)."""
    name = local_name((given or "").strip())
    try:
        ModelName.parse(name)
    except InvalidName:
        raise refusal from None
    return name


def local_name(name: str) -> str:
    """Strip the `:local` suffix; refuse names that ask for Ollama's cloud.

    Raises:
        InvalidRequest: both suffixes. OlmError 403: a cloud model (olm has no cloud).
    """
    base, source = _source(name)
    if source and _source(base)[1]:
        raise InvalidRequest(f"use either :local or :cloud, not both: {json.dumps(name)}")
    if source == "cloud":
        raise OlmError("ollama cloud is disabled: remote model is unavailable", status=403)
    return base


def _source(name: str) -> tuple[str, str]:
    stem, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        return name, ""
    if tag.lower() == "local":
        return stem, "local"
    if tag.lower() == "cloud":
        return stem, "cloud"
    if tag.lower().endswith("-cloud"):
        return name[: -len("-cloud")], "cloud"
    return name, ""


def parse_think(value: object) -> Think | None:
    """Read `think`: a boolean or a level.

    Raises:
        InvalidRequest: another word or type.
    """
    match value:
        case None | bool():
            return value
        case "high" | "medium" | "low" | "max":
            return value
        case str():
            raise InvalidRequest(f"invalid think value: {quoted(value)} (must be {_THINK_WORDS})")
        case _:
            raise InvalidRequest(f"think must be a boolean or string ({_THINK_WORDS})")


def checked_top(given: int | None, *, param: str = "top_logprobs") -> int:
    """Check how many alternatives to a token are wanted. Raises InvalidRequest, in Ollama's words."""
    n_top = given or 0
    if not 0 <= n_top <= _MAX_TOP_LOGPROBS:
        raise InvalidRequest(f"{param} must be between 0 and {_MAX_TOP_LOGPROBS}", param=param)
    return n_top


def token_ids(value: object, *, param: str) -> tuple[int, ...] | None:
    """Read a list of tokens; None when it is empty or something else is in it (JSON's true is no token).

    Raises:
        InvalidRequest: a number that is no token of any model.
    """
    if not isinstance(value, list) or not value or not all(type(item) is int for item in value):
        return None
    wrong = next((token for token in value if not 0 <= token <= _MAX_TOKEN), None)
    if wrong is not None:
        raise InvalidRequest(f"{param}: {wrong} is not a token", param=param)
    return tuple(value)


def json_object(given: Mapping[str, object] | None) -> str:
    """Write an object that travels on as text, empty for none. Raises InvalidRequest when it is nested too deep."""
    if not given:
        return ""
    text = msgspec.json.encode(given)
    check_values(text)
    return text.decode()


def decoded_base64(text: str) -> bytes:
    """Decode base64. Line breaks, as mail has them, are passed over as Go's decoder does. Raises ValueError."""
    if "\n" in text or "\r" in text:  # taking them out costs much, so only where they are
        text = text.replace("\r", "").replace("\n", "")
    return base64.b64decode(text, validate=True)


def quoted(value: object) -> str:
    """Show a value of the client's in an error's text: as JSON, cut where it is long."""
    if isinstance(value, str):
        return json.dumps(value[:_MAX_QUOTED], ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)[:_MAX_QUOTED]


def go_type(value: object) -> str:
    """Name the type of a decoded JSON value as Go's `%T` does."""
    return "<nil>" if value is None else _GO_TYPES[type(value)]
