"""Wire structs of the routes about text and tokens, in llama-server's field order. Checks and meanings: `dialects.text`.

Source: llama.cpp 832db06, tools/server/server-context.cpp, `post_tokenize` and `post_detokenize`; `model` is olm's, which
serves several. Every field may be absent or `null`.
"""

from __future__ import annotations

import msgspec

from olm.api.schemas import Int

__all__ = [
    "DetokenizeRequest",
    "DetokenizeResponse",
    "PromptResponse",
    "TokenPiece",
    "TokenizeRequest",
    "TokenizeResponse",
]


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`content`: a text, or a list of texts and tokens. The special tokens around it only come when asked for."""

    model: str | None = None
    content: object = None
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None


class TokenPiece(msgspec.Struct, frozen=True):
    """A token and its text, or its bytes where they are no text by themselves."""

    id: int
    piece: str | list[int]


class TokenizeResponse(msgspec.Struct, frozen=True):
    """The tokens, or all with their pieces."""

    tokens: list[int] | list[TokenPiece]


class DetokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens to be turned into text."""

    model: str | None = None
    tokens: list[Int] | None = None


class DetokenizeResponse(msgspec.Struct, frozen=True):
    """Their text; bytes that are no UTF-8 are U+FFFD."""

    content: str


class PromptResponse(msgspec.Struct, frozen=True):
    """What a chat comes to when it is rendered."""

    prompt: str
