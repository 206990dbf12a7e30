"""Ranking documents by a query, in the form of Jina and Cohere. Pure.

Sources: Jina's reranker API and Cohere's `/v1/rerank`, which agree in the fields here; llama-server's and vLLM's routes
speak the same form. Ollama has none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import msgspec

from olm.actors import client
from olm.api import schemas_responses as wire
from olm.api.dialects.openai_common import model_name
from olm.api.encoding import to_json
from olm.api.floats import float32_row
from olm.errors import InvalidRequest, ModelError
from olm.units import parse_keep_alive

__all__ = ["Ranking", "rerank_json", "rerank_request"]


@attrs.frozen
class Ranking:
    """What is to be ranked, and how much of the ranking the client wants. `n_top` counts documents."""

    request: client.RerankRequest
    n_top: int
    return_documents: bool = False


def rerank_request(request: wire.RerankRequest) -> Ranking:
    """Translate a request.

    Raises:
        InvalidRequest: without a query or documents, or with documents that are no texts.
    """
    name = model_name(request.model)
    if not request.query:
        raise InvalidRequest("query is required", param="query")
    if not request.documents:
        raise InvalidRequest("documents is required", param="documents")
    texts = [_text(document, i) for i, document in enumerate(request.documents)]
    if request.top_n is not None and request.top_n < 1:
        raise InvalidRequest("top_n must be at least 1", param="top_n")
    wanted = client.RerankRequest(
        model=name,
        query=request.query,
        documents=texts,
        truncate=request.truncate is not False,
        keep_alive_s=parse_keep_alive(request.keep_alive),
    )
    n_top = min(request.top_n or len(texts), len(texts))
    return Ranking(wanted, n_top, return_documents=bool(request.return_documents))


def rerank_json(ranking: Ranking, result: client.RerankResult, model: str, answer_id: str) -> bytes:
    """Write the best documents, the best first; of equals the one that was given first.

    Raises:
        ModelError: the model gave something that is no score.
    """
    scores = result.scores
    if len(scores) != len(ranking.request.documents) or not all(map(math.isfinite, scores)):
        raise ModelError("the model did not give every document a score")
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[: ranking.n_top]
    answer = wire.RerankResponse(
        id=answer_id,
        model=model,
        results=[_result(ranking, scores, index) for index in order],
        usage=wire.RerankUsage(prompt_tokens=result.n_tokens, total_tokens=result.n_tokens),
        meta=wire.RerankMeta(tokens=wire.RerankTokens(input_tokens=result.n_tokens)),
    )
    return to_json(answer)


def _result(ranking: Ranking, scores: Sequence[float], index: int) -> wire.RerankDocument:
    # The digits of a float32, as vectors have them.
    score = msgspec.Raw(float32_row((scores[index],))[1:-1])
    if not ranking.return_documents:
        return wire.RerankDocument(index=index, relevance_score=score)
    text = wire.RerankText(text=ranking.request.documents[index])
    return wire.RerankDocument(index=index, relevance_score=score, document=text)


def _text(document: object, index: int) -> str:
    match document:
        case str():
            return document
        case {"text": str(text)}:
            return text
        case _:
            raise InvalidRequest(
                f'documents[{index}] must be a string or an object with a "text"',
                param="documents",
            )
