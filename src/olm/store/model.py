"""A model read out of the store: its layers as values, its weights as paths and facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import msgspec

from olm.chat.types import ChatMessage
from olm.errors import CorruptStore, NotYetSupported
from olm.gguf import ModelFacts
from olm.store.blobs import BlobStore
from olm.store.capabilities import Sources, capabilities, is_rendered, uses_go_template
from olm.store.catalog import Entry
from olm.store.index import FactsIndex
from olm.store.manifests import (
    ADAPTER,
    DRAFT,
    LICENSE,
    MESSAGES,
    MODEL,
    PARAMS,
    PROJECTOR,
    PROMPT,
    SYSTEM,
    TEMPLATE,
    ImageConfig,
    Layer,
)
from olm.store.messages import decode_messages
from olm.store.names import Digest
from olm.store.splits import whole_facts

__all__ = ["Listed", "Model", "decode_params", "has_files", "read_model"]


@attrs.frozen
class Listed:
    """A model as a list shows it: config and facts are None when they cannot be read."""

    entry: Entry
    config: ImageConfig | None
    facts: ModelFacts | None
    capabilities: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Model:
    """A model resolved: paths of blobs that are in the store, texts and values of its small layers.

    `parent` is the model its weights were inherited from; `prefers_go_template`: prompts are made with the Go template;
    `is_rendered`: with it, or by a named renderer or parser, and not by the GGUF's own template; `parts`: the blobs of
    weights that are split, in order, `weights` being the first of them; `drafts`: kept for whoever speculates with them, and
    not looked at.
    """

    entry: Entry
    config: ImageConfig
    facts: ModelFacts
    weights: Path
    weights_digest: Digest
    parent: str
    projectors: tuple[Path, ...]
    adapters: tuple[Path, ...]
    adapter_names: tuple[str, ...]
    template: str
    prefers_go_template: bool
    is_rendered: bool
    system: str
    messages: tuple[ChatMessage, ...]
    parameters: Mapping[str, object]
    licenses: tuple[str, ...]
    capabilities: tuple[str, ...]
    parts: tuple[Digest, ...] = ()
    drafts: tuple[Path, ...] = ()


def read_model(
    entry: Entry,
    config: ImageConfig,
    blobs: BlobStore,
    index: FactsIndex,
    *,
    go_template: bool | None = None,
) -> Model:
    """Read the layers of a model. `go_template` is OLM_GO_TEMPLATE.

    Raises:
        CorruptStore: a blob is missing, cut or damaged.
        GgufError: the weights are no sound GGUF.
        NotYetSupported: the weights are in another format.
    """
    manifest, shortest = entry.manifest, entry.name.shortest
    layers = manifest.of_type(MODEL)
    if config.model_format not in ("", "gguf"):
        raise NotYetSupported(
            f"model '{shortest}' is in {config.model_format} format, which is not supported yet"
        )
    if not layers:
        raise CorruptStore(f"model '{shortest}' has no weights")
    files = (*layers[:1], *manifest.of_type(PROJECTOR), *manifest.of_type(ADAPTER))
    for layer in files:
        _check_size(layer, blobs, shortest)
    facts = index.weights(layers[0].blob)
    parts: Sequence[Digest] = ()
    if facts.n_splits > 1:
        for layer in layers[1:]:
            _check_size(layer, blobs, shortest)
        parts = _in_order(layers, index, shortest)
        facts = whole_facts([index.weights(part) for part in parts])
    templates = manifest.of_type(TEMPLATE) or manifest.of_type(PROMPT)
    sources = Sources(
        config=config,
        facts=facts,
        template=index.template(templates[-1].blob) if templates else None,
        projectors=[index.weights(layer.blob) for layer in manifest.of_type(PROJECTOR)],
        go_template=go_template,
    )
    systems, licenses = _texts(manifest.of_type(SYSTEM), blobs), manifest.of_type(LICENSE)
    return Model(
        entry=entry,
        config=config,
        facts=facts,
        weights=blobs.path(parts[0] if parts else layers[0].blob),
        weights_digest=parts[0] if parts else layers[0].blob,
        parts=tuple(parts),
        parent=layers[0].from_,
        projectors=tuple(blobs.path(layer.blob) for layer in manifest.of_type(PROJECTOR)),
        adapters=tuple(blobs.path(layer.blob) for layer in manifest.of_type(ADAPTER)),
        drafts=tuple(blobs.path(layer.blob) for layer in manifest.of_type(DRAFT)),
        adapter_names=tuple(layer.name for layer in manifest.of_type(ADAPTER)),
        template=_texts(templates, blobs)[-1] if templates else "",
        prefers_go_template=uses_go_template(sources),
        is_rendered=is_rendered(sources),
        system=systems[-1] if systems else "",
        messages=_messages(manifest.of_type(MESSAGES), blobs),
        parameters=_params(manifest.of_type(PARAMS), blobs),
        licenses=_texts(licenses, blobs),
        capabilities=capabilities(sources),
    )


def has_files(model: Model, blobs: BlobStore) -> bool:
    """Whether the weights of a model that was read before are still there, whole."""
    manifest = model.entry.manifest
    files = (
        *manifest.of_type(MODEL)[: max(len(model.parts), 1)],
        *manifest.of_type(PROJECTOR),
        *manifest.of_type(ADAPTER),
    )
    return all(blobs.size(layer.blob) == layer.size for layer in files)


def _in_order(layers: Sequence[Layer], index: FactsIndex, shortest: str) -> list[Digest]:
    """The parts of split weights by the numbers in their headers."""
    by_number = {index.weights(layer.blob).split_no: layer.blob for layer in layers}
    n_parts = index.weights(layers[0].blob).n_splits
    if sorted(by_number) != list(range(n_parts)):
        raise CorruptStore(
            f"model '{shortest}' has {len(by_number)} of the {n_parts} parts it is split in"
        )
    return [by_number[no] for no in range(n_parts)]


def _check_size(layer: Layer, blobs: BlobStore, shortest: str) -> None:
    size = blobs.size(layer.blob)
    if size is None:
        link = blobs.links.record(layer.blob)
        trouble = link.trouble() if link else ""
        raise CorruptStore(
            f"model '{shortest}': {trouble or f'blob {layer.digest} is missing from the store'}"
        )
    if size != layer.size:
        raise CorruptStore(
            f"model '{shortest}': blob {layer.digest} has {size} bytes, not {layer.size}; "
            "delete the model and create it again"
        )


def _texts(layers: Sequence[Layer], blobs: BlobStore) -> tuple[str, ...]:
    return tuple(blobs.read(layer.blob).decode(errors="replace") for layer in layers)


def _params(layers: Sequence[Layer], blobs: BlobStore) -> dict[str, object]:
    merged: dict[str, object] = {}
    for layer in layers:
        merged.update(decode_params(blobs.read(layer.blob)))
    return merged


def _messages(layers: Sequence[Layer], blobs: BlobStore) -> tuple[ChatMessage, ...]:
    return decode_messages(blobs.read(layers[-1].blob)) if layers else ()


def decode_params(data: bytes) -> dict[str, object]:
    """Read a params layer. Raises CorruptStore when it is no JSON object."""
    try:
        return msgspec.json.decode(data, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise CorruptStore(f"a params layer in the store is damaged: {exc}") from exc
