"""What the routes about tokens are given and give back: contents of texts and tokens, pieces. Pure.

The meaning is llama-server's (llama.cpp 832db06, tools/server/server-common.cpp, `tokenize_mixed`).
"""

from __future__ import annotations

from collections.abc import Sequence

from olm.actors.client import LoadedModel
from olm.api import schemas_text as wire
from olm.errors import InvalidRequest

__all__ = ["content_parts", "only_model", "piece"]

_WANTED = "content must be a string, or a list of strings and tokens"


def content_parts(content: object) -> Sequence[str | int]:
    """Take a content apart: a text alone, or texts and tokens that follow each other.

    Raises:
        InvalidRequest: there is none, or something else is in it.
    """
    match content:
        case None:
            raise InvalidRequest("content is required")
        case str():
            return (content,)
        case list():
            return [_part(item, at) for at, item in enumerate(content)]
        case _:
            raise InvalidRequest(_WANTED)


def _part(item: object, at: int) -> str | int:
    # JSON's true is no token, though Python counts it as an int.
    if isinstance(item, str | int) and not isinstance(item, bool):
        return item
    raise InvalidRequest(f"{_WANTED}: content[{at}] is neither")


def piece(token: int, data: bytes) -> wire.TokenPiece:
    """Write a token with its text, or with its bytes where they are no UTF-8 by themselves."""
    try:
        return wire.TokenPiece(token, data.decode())
    except UnicodeDecodeError:
        return wire.TokenPiece(token, list(data))


def only_model(loaded: Sequence[LoadedModel]) -> str:
    """Choose the model of a request that names none: llama-server's clients know of one only.

    Raises:
        InvalidRequest: not exactly one is loaded.
    """
    if len(loaded) == 1:
        return loaded[0].name
    names = ", ".join(row.name for row in loaded)
    which = f"{len(loaded)} are loaded: {names}" if loaded else "none is loaded"
    raise InvalidRequest(f"model is required: {which}")
