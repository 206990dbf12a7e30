"""What each route takes and gives: the table behind the OpenAPI document. A new route gets its line here.

`tests/api/test_openapi.py` holds the table against the routes that are there. How a document is made of it is in
`openapi`; the structs themselves are in the `schemas*` modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import attrs
import msgspec

from olm.api import openapi_answers as answers
from olm.api import schemas as ollama
from olm.api import schemas_anthropic as anthropic
from olm.api import schemas_openai as openai
from olm.api import schemas_operations as operations
from olm.api import schemas_responses as responses
from olm.api import schemas_text as text
from olm.api.routes.archive import ExportBody, ImportBody
from olm.api.routes.queue import QueueResponse
from olm.api.schemas_check import CheckAnswer, CheckBody, CheckLine
from olm.api.schemas_imatrix import ImatrixBody, ImatrixLine

__all__ = ["ROUTES", "Described", "Streamed"]

Struct = type[msgspec.Struct]
Streamed = Literal["", "ndjson", "sse"]


@attrs.frozen
class Described:
    """A route in words and structs.

    Attributes:
        tag: the group it is shown in.
        request: the JSON body; None for routes without one. required: its fields that cannot be left out.
        response: the JSON answer; None for an empty one, or for `media`.
        streamed: the answer comes as a stream when `stream` says so, or leaves it to the route; `line` is one object of it.
        status: of a good answer.
        media: content type of an answer that is no JSON; body_media: of a body that is none.
        example: a body to try.
        query: names and JSON types of what may follow the question mark.
    """

    tag: str
    summary: str
    request: Struct | None = None
    response: Struct | None = None
    required: tuple[str, ...] = ()
    streamed: Streamed = ""
    line: Struct | None = None
    status: int = 200
    media: str = ""
    body_media: str = ""
    example: Mapping[str, object] | None = None
    query: Mapping[str, str] = attrs.field(factory=dict)


_HELLO: Final = [{"role": "user", "content": "Hello"}]
_OLLAMA, _OPENAI, _ANTHROPIC = "Ollama", "OpenAI", "Anthropic"
_TEXT, _OPERATIONS = "Text and tokens", "Operations"

_GENERATE: Final = Described(
    _OLLAMA,
    "Complete a prompt; without one load the model, or unload it with keep_alive 0",
    ollama.GenerateRequest,
    ollama.GenerateResponse,
    required=("model",),
    streamed="ndjson",
    line=ollama.GenerateResponse,
    example={"model": "tiny", "prompt": "Why is the sky blue?"},
)
_CHAT: Final = Described(
    _OLLAMA,
    "Answer a conversation",
    ollama.ChatRequest,
    ollama.ChatResponse,
    required=("model",),
    streamed="ndjson",
    line=ollama.ChatResponse,
    example={"model": "tiny", "messages": _HELLO},
)
_EMBED: Final = Described(
    _OLLAMA,
    "Vectors of texts",
    ollama.EmbedRequest,
    answers.EmbedAnswer,
    required=("model",),
    example={"model": "tiny", "input": ["one", "two"]},
)
_EMBEDDINGS: Final = Described(
    _OLLAMA,
    "One vector, the old way",
    ollama.EmbeddingRequest,
    answers.EmbeddingAnswer,
    required=("model",),
    example={"model": "tiny", "prompt": "one"},
)
_CREATE: Final = Described(
    _OLLAMA,
    "Make a model from another one, or from uploaded files",
    ollama.CreateRequest,
    ollama.ProgressResponse,
    required=("model",),
    streamed="ndjson",
    line=ollama.ProgressResponse,
    example={"model": "pirate", "from": "tiny", "system": "You are a pirate."},
)
_PULL: Final = Described(
    _OLLAMA,
    "Fetch a model from its registry",
    ollama.PullRequest,
    ollama.ProgressResponse,
    required=("model",),
    streamed="ndjson",
    line=ollama.ProgressResponse,
    example={"model": "registry.example/library/tiny:latest"},
)
_PUSH: Final = Described(
    _OLLAMA,
    "Bring a model to its registry",
    ollama.PushRequest,
    ollama.ProgressResponse,
    required=("model",),
    streamed="ndjson",
    line=ollama.ProgressResponse,
    example={"model": "registry.example/library/tiny:latest"},
)
_EXPORT: Final = Described(
    _OLLAMA,
    "Write models to an archive on this machine; without a path the answer is the archive",
    ExportBody,
    ollama.ProgressResponse,
    required=("models",),
    streamed="ndjson",
    line=ollama.ProgressResponse,
    example={"models": ["tiny"], "path": "/tmp/tiny.tar"},
)
_IMATRIX: Final = Described(
    _OPERATIONS,
    "Measure what quantization must keep of a model; without a stream the answer is the file",
    ImatrixBody,
    required=("model", "text"),
    streamed="ndjson",
    line=ImatrixLine,
    media="application/octet-stream",
    example={"model": "tiny", "text": "The sky is blue. " * 40, "ctx": 64},
)
_CHECK: Final = Described(
    _OPERATIONS,
    "Look through the store: damaged and missing files, leftovers; mend them with `repair`",
    CheckBody,
    CheckAnswer,
    streamed="ndjson",
    line=CheckLine,
    example={"quick": True},
)
_IMPORT: Final = Described(
    _OLLAMA,
    "Read models from an archive on this machine, or from the body when it is application/x-tar",
    ImportBody,
    ollama.ProgressResponse,
    required=("path",),
    streamed="ndjson",
    line=ollama.ProgressResponse,
    example={"path": "/tmp/tiny.tar"},
)
_SHOW: Final = Described(
    _OLLAMA,
    "Everything about a model",
    ollama.ShowRequest,
    ollama.ShowResponse,
    required=("model",),
    example={"model": "tiny"},
)
_COPY: Final = Described(
    _OLLAMA,
    "Give a model a second name",
    ollama.CopyRequest,
    required=("source", "destination"),
    example={"source": "tiny", "destination": "mine"},
)
_DELETE: Final = Described(
    _OLLAMA,
    "Remove a name, and the files that no other needs",
    ollama.DeleteRequest,
    required=("model",),
    example={"model": "mine"},
)
_CHAT_COMPLETIONS: Final = Described(
    _OPENAI,
    "Answer a conversation",
    openai.ChatCompletionRequest,
    openai.ChatCompletion,
    required=("model", "messages"),
    streamed="sse",
    example={"model": "tiny", "messages": _HELLO},
)
_COMPLETIONS: Final = Described(
    _OPENAI,
    "Complete one or several prompts",
    openai.CompletionRequest,
    openai.Completion,
    required=("model",),
    streamed="sse",
    example={"model": "tiny", "prompt": "Once upon a time"},
)
_OPENAI_EMBEDDINGS: Final = Described(
    _OPENAI,
    "Vectors of texts or tokens",
    responses.EmbeddingsRequest,
    answers.OpenAIEmbeddingList,
    required=("model", "input"),
    example={"model": "tiny", "input": "one"},
)
_RESPONSES: Final = Described(
    _OPENAI,
    "Answer an input, alone or after an earlier response",
    responses.ResponsesRequest,
    responses.ResponseObject,
    required=("model", "input"),
    streamed="sse",
    example={"model": "tiny", "input": "Hello"},
)
_INPUT_TOKENS: Final = Described(
    _OPENAI,
    "Count the tokens of an input",
    responses.ResponsesRequest,
    responses.InputTokens,
    required=("model", "input"),
    example={"model": "tiny", "input": "Hello"},
)
_TOKENIZE: Final = Described(
    _TEXT,
    "Turn text into tokens",
    text.TokenizeRequest,
    answers.TokenizeAnswer,
    required=("content",),
    example={"model": "tiny", "content": "Hello", "with_pieces": True},
)
_DETOKENIZE: Final = Described(
    _TEXT,
    "Turn tokens into text",
    text.DetokenizeRequest,
    text.DetokenizeResponse,
    required=("tokens",),
    example={"model": "tiny", "tokens": [72, 105]},
)
_APPLY_TEMPLATE: Final = Described(
    _TEXT,
    "Render the prompt of a conversation, without an answer",
    openai.ChatCompletionRequest,
    text.PromptResponse,
    required=("messages",),
    example={"model": "tiny", "messages": _HELLO},
)
_RERANK: Final = Described(
    _TEXT,
    "Score documents by how well they answer a query",
    responses.RerankRequest,
    responses.RerankResponse,
    required=("model", "query", "documents"),
    example={"model": "reranker", "query": "panda", "documents": ["a bear", "a car"]},
)
_MESSAGES: Final = Described(
    _ANTHROPIC,
    "Answer a conversation",
    anthropic.MessagesRequest,
    anthropic.MessageResponse,
    required=("model", "messages", "max_tokens"),
    streamed="sse",
    example={"model": "tiny", "max_tokens": 100, "messages": _HELLO},
)
_COUNT_TOKENS: Final = Described(
    _ANTHROPIC,
    "Count the tokens of a conversation",
    anthropic.CountRequest,
    anthropic.TokenCount,
    required=("model", "messages"),
    example={"model": "tiny", "messages": _HELLO},
)
_TRANSCRIPTIONS: Final = Described(
    _OPENAI, "Turn speech into text (no model can yet)", body_media="multipart/form-data"
)
_BLOB_UPLOAD: Final = Described(
    _OLLAMA, "Upload a file", status=201, body_media="application/octet-stream"
)
_HEALTH: Final = Described(
    _OPERATIONS, "Whether the process takes requests", response=operations.HealthResponse
)

ROUTES: Final[Mapping[str, Described]] = {
    "POST /api/generate": _GENERATE,
    "POST /api/chat": _CHAT,
    "POST /api/embed": _EMBED,
    "POST /api/embeddings": _EMBEDDINGS,
    "GET /api/tags": Described(
        _OLLAMA, "Stored models, newest first", response=ollama.TagsResponse
    ),
    "GET /api/ps": Described(_OLLAMA, "Loaded models", response=ollama.ProcessResponse),
    "POST /api/show": _SHOW,
    "POST /api/create": _CREATE,
    "POST /api/pull": _PULL,
    "POST /api/push": _PUSH,
    "POST /api/export": _EXPORT,
    "POST /api/import": _IMPORT,
    "POST /api/imatrix": _IMATRIX,
    "POST /api/store/check": _CHECK,
    "POST /api/copy": _COPY,
    "DELETE /api/delete": _DELETE,
    "HEAD /api/blobs/{digest}": Described(_OLLAMA, "Whether a file is in the store"),
    "POST /api/blobs/{digest}": _BLOB_UPLOAD,
    "GET /api/version": Described(
        _OLLAMA, "The Ollama whose behaviour this is", response=ollama.VersionResponse
    ),
    "GET /api/status": Described(_OLLAMA, "There is no cloud", response=answers.StatusAnswer),
    "GET /api/experimental/model-recommendations": Described(
        _OLLAMA, "No recommendations", response=answers.RecommendationsAnswer
    ),
    "GET /": Described(_OLLAMA, "A sign of life", media="text/plain"),
    "POST /v1/chat/completions": _CHAT_COMPLETIONS,
    "POST /v1/completions": _COMPLETIONS,
    "POST /v1/embeddings": _OPENAI_EMBEDDINGS,
    "POST /v1/responses": _RESPONSES,
    "POST /v1/responses/input_tokens": _INPUT_TOKENS,
    "GET /v1/responses/{response_id}": Described(
        _OPENAI,
        "A response that is kept",
        response=responses.ResponseObject,
        query={"stream": "boolean"},
    ),
    "DELETE /v1/responses/{response_id}": Described(
        _OPENAI, "Forget a response", response=responses.Deleted
    ),
    "GET /v1/responses/{response_id}/input_items": Described(
        _OPENAI,
        "The items a response was made from",
        response=responses.InputItemList,
        query={"limit": "integer", "order": "string", "after": "string"},
    ),
    "GET /v1/models": Described(_OPENAI, "Stored models", response=openai.ModelList),
    "GET /v1/models/{model}": Described(_OPENAI, "One model", response=openai.Model),
    "POST /v1/audio/transcriptions": _TRANSCRIPTIONS,
    "POST /v1/messages": _MESSAGES,
    "POST /v1/messages/count_tokens": _COUNT_TOKENS,
    "POST /v1/rerank": _RERANK,
    "POST /api/rerank": _RERANK,
    "POST /tokenize": _TOKENIZE,
    "POST /api/tokenize": _TOKENIZE,
    "POST /detokenize": _DETOKENIZE,
    "POST /api/detokenize": _DETOKENIZE,
    "POST /apply-template": _APPLY_TEMPLATE,
    "POST /api/apply-template": _APPLY_TEMPLATE,
    "GET /health": _HEALTH,
    "GET /v1/health": _HEALTH,
    "GET /ready": Described(
        _OPERATIONS, "Whether store and scheduler answer", response=operations.ReadyResponse
    ),
    "GET /api/queue": Described(
        _OPERATIONS, "Who runs and who waits, by model", response=QueueResponse
    ),
    "GET /api/props": Described(
        _OPERATIONS, "Defaults and loaded models", response=operations.PropsResponse
    ),
    "GET /metrics": Described(_OPERATIONS, "Numbers for Prometheus", media="text/plain"),
    "GET /api/openapi.json": Described(_OPERATIONS, "This document", media="application/json"),
    "GET /api/docs": Described(_OPERATIONS, "This document to browse", media="text/html"),
}
"""By method and path. Where a path answers GET, its HEAD is described with it."""
