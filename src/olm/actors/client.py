"""The face of the actor tree: what routes, the CLI's one-process mode and embedding programs call.

Requests and answers are values; the clients are Protocols implemented beside their actors
(`olm.actors.store`, `olm.actors.models`), so that a dialect can be tested with a small fake. Jobs: `jobs_client`.
A request's `client` says who asks: those who wait for a model are served in turn over the clients; calls without a
request are one client. It is no part of what is asked.
No HTTP, no JSON here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, Protocol

import attrs

from olm.actors.jobs_client import JobsClient
from olm.actors.queue import QueueRow
from olm.chat.types import ChatMessage, Constraint, Think, ToolChoice, TurnEvent

__all__ = [
    "BlobWriter",
    "ChatRequest",
    "EmbedRequest",
    "EmbedResult",
    "GenerateRequest",
    "LoadedModel",
    "ModelDetails",
    "ModelSummary",
    "ModelsClient",
    "Olm",
    "QueueRow",
    "RenderedPrompt",
    "RerankRequest",
    "RerankResult",
    "ShowResult",
    "ShownAdapter",
    "StoreClient",
    "StoredModel",
    "Turn",
]

_ANY_TOOL: Final = ToolChoice()


@attrs.frozen
class ModelDetails:
    """What Ollama calls `details`: `format` gguf, `family` llama, `parameter_size` 2.4M, `quantization_level` Q8_0."""

    parent_model: str = ""
    format: str = ""
    family: str = ""
    families: tuple[str, ...] = ()
    parameter_size: str = ""
    quantization_level: str = ""
    context_length: int = 0
    embedding_length: int = 0


@attrs.frozen
class ModelSummary:
    """A row of `list`. `name` is the shortest form with its tag; `digest` 64 hex digits; `size_bytes` all layers."""

    name: str
    digest: str
    size_bytes: int
    modified_ns: int
    details: ModelDetails
    capabilities: tuple[str, ...] = ()


@attrs.frozen
class StoredModel:
    """A model resolved from the store: everything a runner and a prompt need, weights as paths of verified blobs.

    Attributes:
        name: shortest form with tag; full_name: host/namespace/model:tag.
        parameters: the Modelfile's, as stored (JSON values).
        adapters, adapter_names: LoRA adapters in order; a name may be empty.
        template: the Go template layer, empty when there is none.
        uses_go_template: that template is to be used rather than the GGUF's own (spec/ollama §0, §12).
        has_chat_template: the GGUF carries a Jinja template.
        architecture, parameter_count, n_ctx_train: from the GGUF header, 0 or empty when absent.
        kv_bytes_per_token: f16 KV cache for one token of one sequence, bytes.
    """

    name: str
    full_name: str
    digest: str
    size_bytes: int
    modified_ns: int
    details: ModelDetails
    capabilities: tuple[str, ...]
    weights: Path
    weights_digest: str
    projectors: tuple[Path, ...] = ()
    adapters: tuple[Path, ...] = ()
    adapter_names: tuple[str, ...] = ()
    template: str = ""
    uses_go_template: bool = False
    has_chat_template: bool = False
    system: str = ""
    messages: tuple[ChatMessage, ...] = ()
    parameters: Mapping[str, object] = attrs.field(factory=dict)
    licenses: tuple[str, ...] = ()
    renderer: str = ""
    parser: str = ""
    architecture: str = ""
    parameter_count: int = 0
    n_ctx_train: int = 0
    kv_bytes_per_token: int = 0


@attrs.frozen
class ShownAdapter:
    """A LoRA adapter of a model: the scale it acts with when a request says nothing, and its blob, `sha256:<hex>`."""

    name: str
    scale: float
    digest: str


@attrs.frozen
class ShowResult:
    """Everything `/api/show` tells besides the model itself.

    Attributes:
        modelfile: a Modelfile that makes this model again.
        parameters: one `key value` a line, as Ollama lays them out.
        template: the Go template, or the GGUF's Jinja one when the model has no template layer.
        model_info: the GGUF's keys and values, arrays None unless `verbose`.
        tensors: (name, type, shape) in file order.
        links: files that are run in place: digest of the blob to path.
        adapters: LoRA adapters in order.
    """

    model: StoredModel
    modelfile: str
    parameters: str
    template: str
    model_info: Mapping[str, object]
    tensors: Sequence[tuple[str, str, tuple[int, ...]]]
    projector_info: Mapping[str, object] | None = None
    requires: str = ""
    links: Mapping[str, str] = attrs.field(factory=dict)
    adapters: Sequence[ShownAdapter] = ()


class BlobWriter(Protocol):
    """An upload on its way into the store."""

    async def write(self, data: bytes) -> None:
        """Append bytes; hashing and writing happen off the event loop. Raises StoreError, DiskFull."""

    async def commit(self) -> bool:
        """Verify and publish durably. True when the blob is new. Raises DigestMismatch, StoreError."""


class StoreClient(Protocol):
    """Names, manifests and blobs. Every method raises InvalidName and StoreError where they apply."""

    async def list(self) -> Sequence[ModelSummary]:
        """All models, newest first."""

    async def get(self, name: str) -> StoredModel:
        """Look a model up, ignoring case. Raises ModelNotFound (`model 'x' not found`), CorruptStore, GgufError."""

    async def show(self, name: str, *, verbose: bool = False) -> ShowResult:
        """Describe a model. Raises ModelNotFound."""

    async def copy(self, source: str, destination: str) -> None:
        """Give a model a second name. Raises ModelNotFound."""

    async def delete(self, name: str) -> None:
        """Remove a name, then every blob that no manifest needs any more. Raises ModelNotFound."""

    async def has_blob(self, digest: str) -> bool:
        """Say whether a blob (`sha256:<hex>`) is in the store."""

    def open_blob_writer(self, digest: str) -> AbstractAsyncContextManager[BlobWriter]:
        """Open an upload; leaving without `commit` removes what was written."""


@attrs.frozen(kw_only=True)
class ChatRequest:
    """A chat turn. `options` are the request's own, unchecked; `keep_alive_s` None keeps the runner's.

    `tools_json` is a JSON array of tools; `template_kwargs_json` a JSON object of variables for a Jinja template.
    """

    model: str
    messages: Sequence[ChatMessage]
    tools_json: str = ""
    tool_choice: ToolChoice = _ANY_TOOL
    parallel_tool_calls: bool = True
    template_kwargs_json: str = ""
    constraint: Constraint | None = None
    think: Think | None = None
    options: Mapping[str, object] = attrs.field(factory=dict)
    keep_alive_s: float | None = None
    truncate: bool = True
    shift: bool = True
    n_logprobs: int = -1
    client: str = attrs.field(default="", eq=False)


@attrs.frozen(kw_only=True)
class GenerateRequest:
    """A completion turn. `system` and `template` replace the Modelfile's for this call; `raw` sends `prompt` as it is.

    `prompt_tokens` (only with `raw`) stand before the text of `prompt`, which may then be empty.
    """

    model: str
    prompt: str
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: Sequence[int] = ()
    raw: bool = False
    prompt_tokens: Sequence[int] = ()
    images: Sequence[bytes] = ()
    constraint: Constraint | None = None
    think: Think | None = None
    options: Mapping[str, object] = attrs.field(factory=dict)
    keep_alive_s: float | None = None
    truncate: bool = True
    shift: bool = True
    n_logprobs: int = -1
    client: str = attrs.field(default="", eq=False)


@attrs.frozen(kw_only=True)
class EmbedRequest:
    """Texts, or tokens, to embed; `dimensions` cuts and normalises again; `normalize` off gives the raw pooled vectors."""

    model: str
    inputs: Sequence[str | Sequence[int]]
    truncate: bool = True
    dimensions: int = 0
    normalize: bool = True
    options: Mapping[str, object] = attrs.field(factory=dict)
    keep_alive_s: float | None = None
    client: str = attrs.field(default="", eq=False)


@attrs.frozen
class EmbedResult:
    """`vectors` [n_inputs][n_embd] floats; `n_tokens` the sum over the inputs; durations in nanoseconds."""

    vectors: Sequence[Sequence[float]]
    n_tokens: int
    load_ns: int


@attrs.frozen(kw_only=True)
class RerankRequest:
    """Texts to be scored by how well each answers the query."""

    model: str
    query: str
    documents: Sequence[str]
    truncate: bool = True
    options: Mapping[str, object] = attrs.field(factory=dict)
    keep_alive_s: float | None = None
    client: str = attrs.field(default="", eq=False)


@attrs.frozen
class RerankResult:
    """`scores` in the order of the documents, as the model gives them (higher is better); `n_tokens` the sum."""

    scores: Sequence[float]
    n_tokens: int
    load_ns: int


class Turn(Protocol):
    """A running turn: iterate its events; `drain` takes what already waits, so that it can share one write."""

    load_ns: int
    """How long the request waited for the model to be loaded, nanoseconds."""

    queue_position: int
    """Where the request stood in the model's queue when it came, from 1; 0 when it had to wait for nothing."""

    def __aiter__(self) -> AsyncIterator[TurnEvent]: ...

    async def __anext__(self) -> TurnEvent:
        """The next event. Raises RunnerCrashed, TemplateError, ContextTooLong; ends after `Done`."""

    def drain(self) -> Sequence[TurnEvent]:
        """Take the events that are already here, without waiting; may be empty."""


@attrs.frozen
class RenderedPrompt:
    """What a request would send to the model: the prompt's text, and how many pictures or sounds it has marks for."""

    text: str
    n_images: int = 0


@attrs.frozen
class LoadedModel:
    """A row of `ps`. `expires_s` is seconds from now, infinite for ever, negative or 0 while it stops."""

    name: str
    digest: str
    details: ModelDetails
    size_bytes: int
    vram_bytes: int
    n_ctx: int
    expires_s: float


class ModelsClient(Protocol):
    """Loaded models. All methods raise ModelNotFound, NotSupported, InvalidOption, Busy, ShuttingDown, LoadFailed."""

    def chat(self, request: ChatRequest) -> AbstractAsyncContextManager[Turn]:
        """Start a chat turn; entering waits for the model and for a slot. Leaving frees the slot."""

    def generate(self, request: GenerateRequest) -> AbstractAsyncContextManager[Turn]:
        """Start a completion turn, as `chat` does."""

    async def render(self, request: ChatRequest | GenerateRequest) -> RenderedPrompt:
        """Load the model and render the prompt, without generating anything. Raises TemplateError too."""

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """Embed texts."""

    async def rerank(self, request: RerankRequest) -> RerankResult:
        """Score documents. Raises NotSupported when the model has no ranking head."""

    async def tokenize(
        self, model: str, text: str, *, add_special: bool = True, parse_special: bool = True
    ) -> Sequence[int]:
        """Turn text into the model's tokens; the model is loaded if it is not."""

    async def detokenize(self, model: str, tokens: Sequence[int]) -> str:
        """Turn tokens into text; bytes that are no UTF-8 become U+FFFD. Raises InvalidRequest for unknown tokens."""

    async def pieces(self, model: str, tokens: Sequence[int]) -> Sequence[bytes]:
        """Give the bytes of each token, which need not be whole UTF-8. Raises InvalidRequest for unknown tokens."""

    async def count_tokens(self, request: ChatRequest) -> int:
        """Count the tokens of the whole prompt of a chat, nothing dropped or generated."""

    async def load(
        self,
        model: str,
        *,
        options: Mapping[str, object],
        keep_alive_s: float | None,
        think: Think | None = None,
        client: str = "",
    ) -> int:
        """Load a model without a prompt; returns the nanoseconds it took. `think` is only checked."""

    async def unload(self, model: str) -> None:
        """Let a model go as soon as it is idle; nothing happens when it is not loaded."""

    async def ps(self) -> Sequence[LoadedModel]:
        """The loaded models, the longest-lived first."""

    async def queue(self) -> Sequence[QueueRow]:
        """Who runs and who waits: a row for each model that is loaded, loading or waited for, by name."""


@attrs.frozen
class Olm:
    """The clients of one running tree. Made by `olm.embed.open_olm` and by the daemon."""

    store: StoreClient
    models: ModelsClient
    jobs: JobsClient
