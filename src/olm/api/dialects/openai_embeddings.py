"""OpenAI's `/v1/embeddings`: the request as a value, vectors as numbers or base64. Pure.

Beyond Ollama: tokens as input, and `truncate` and `keep_alive` of its native route. Sources: spec/ollama §2.4, OpenAI's
API reference (embeddings).
"""

from __future__ import annotations

import base64
import math
import sys
from array import array
from collections.abc import Sequence
from typing import Literal

from olm.actors import client
from olm.api import schemas_responses as wire
from olm.api.dialects.common import quoted, token_ids
from olm.api.dialects.openai_common import model_name
from olm.api.encoding import to_json
from olm.api.floats import float32_row
from olm.errors import InvalidRequest
from olm.units import parse_keep_alive

__all__ = ["Encoding", "embed_request", "embeddings_json", "encoding_format", "vector_json"]

Encoding = Literal["float", "base64"]


def embed_request(request: wire.EmbeddingsRequest) -> client.EmbedRequest:
    """Translate a request.

    Raises:
        InvalidRequest: in Ollama's words where it has some.
    """
    name = model_name(request.model)
    dimensions = request.dimensions or 0
    if dimensions < 0:
        raise InvalidRequest("dimensions must not be negative", param="dimensions")
    return client.EmbedRequest(
        model=name,
        inputs=_inputs(request.input),
        truncate=request.truncate is not False,
        dimensions=dimensions,
        keep_alive_s=parse_keep_alive(request.keep_alive),
    )


def encoding_format(value: str | None) -> Encoding:
    """Read `encoding_format`, in any case as Ollama takes it.

    Raises:
        InvalidRequest: another word.
    """
    match (value or "float").lower():
        case "float":
            return "float"
        case "base64":
            return "base64"
        case _:
            raise InvalidRequest(
                f"Invalid value for 'encoding_format' = {value}. "
                "Supported values: ['float', 'base64'].",
                param="encoding_format",
            )


def vector_json(values: Sequence[float], encoding: Encoding) -> bytes:
    """Write one vector as JSON: an array of numbers, or base64 of little-endian float32.

    Raises:
        InvalidRequest: `embedding contains NaN or Inf values`, as Ollama says.
    """
    if encoding == "float":
        return float32_row(values)
    row = array("f", values)
    if not all(map(math.isfinite, row)):
        raise InvalidRequest("embedding contains NaN or Inf values")
    if sys.byteorder == "big":
        row.byteswap()
    return b'"' + base64.b64encode(row.tobytes()) + b'"'


def embeddings_json(vectors: Sequence[bytes], model: str, n_tokens: int) -> bytes:
    """Put the answer together from vectors that are JSON already."""
    data = b",".join(
        b'{"object":"embedding","embedding":%b,"index":%d}' % (vector, index)
        for index, vector in enumerate(vectors)
    )
    usage = b'{"prompt_tokens":%d,"total_tokens":%d}' % (n_tokens, n_tokens)
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (data, to_json(model), usage)


def _inputs(value: object) -> Sequence[str | Sequence[int]]:
    """One text, texts, the tokens of one text, or of several."""
    match value:
        case str():
            return (value,)
        case [str(), *_]:
            texts = tuple(item for item in value if isinstance(item, str))
            if len(texts) != len(value):
                raise _invalid(value)
            return texts
        case [int(), *_]:
            return (_tokens(value),)
        case [list(), *_]:
            return tuple(_tokens(item) for item in value)
        case _:
            raise _invalid(value)


def _tokens(value: object) -> Sequence[int]:
    tokens = token_ids(value, param="input")
    if tokens is None:
        raise _invalid(value)
    return tokens


def _invalid(value: object) -> InvalidRequest:
    if value in (None, []):
        return InvalidRequest("invalid input", param="input")
    return InvalidRequest(
        f"invalid input: {quoted(value)} (must be a string, strings, tokens, or lists of tokens)",
        param="input",
    )
