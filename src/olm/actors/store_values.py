"""What callers of the store get to know of a model, made from what the store has read. No messages."""

from __future__ import annotations

from olm.actors.client import ModelDetails, ModelSummary, StoredModel
from olm.gguf import Header, ModelFacts
from olm.store.catalog import Entry
from olm.store.create_plan import Base
from olm.store.library import Library
from olm.store.manifests import PARAMS, ImageConfig
from olm.store.model import Listed, Model, decode_params

__all__ = ["base_of", "shown_template", "stored_of", "summary_of"]


def base_of(library: Library, entry: Entry) -> Base:
    """What a create needs to know of the model it starts from. Blocking: reads its parameters."""
    parameters: dict[str, object] = {}
    for layer in entry.manifest.of_type(PARAMS):
        parameters.update(decode_params(library.blobs.read(layer.blob)))
    return Base(
        entry.name.shortest, entry.manifest.layers, library.catalog.config(entry), parameters
    )


def shown_template(model: Model, header: Header) -> str:
    """The template that prompts are made with: the Go one, or the GGUF's own when the model runs by that."""
    jinja = header.text("tokenizer.chat_template")
    return model.template if model.template and (model.is_rendered or not jinja) else jinja


def _details_of(item: Listed | Model, parent: str = "") -> ModelDetails:
    config, facts = item.config or ImageConfig(), item.facts or ModelFacts()
    return ModelDetails(
        parent_model=parent,
        format=config.model_format,
        family=config.model_family,
        families=tuple(config.model_families or ()),
        parameter_size=config.model_type,
        quantization_level=config.file_type,
        context_length=config.context_length or facts.n_ctx_train,
        embedding_length=config.embedding_length or facts.n_embd,
    )


def summary_of(item: Listed) -> ModelSummary:
    entry = item.entry
    return ModelSummary(
        name=entry.name.shortest,
        digest=entry.digest,
        size_bytes=entry.manifest.size_bytes,
        modified_ns=entry.modified_ns,
        details=_details_of(item),
        capabilities=item.capabilities,
    )


def stored_of(model: Model) -> StoredModel:
    entry, facts = model.entry, model.facts
    return StoredModel(
        name=entry.name.shortest,
        full_name=str(entry.name),
        digest=entry.digest,
        size_bytes=entry.manifest.size_bytes,
        modified_ns=entry.modified_ns,
        details=_details_of(model, model.parent),
        capabilities=model.capabilities,
        weights=model.weights,
        weights_digest=str(model.weights_digest),
        projectors=model.projectors,
        adapters=model.adapters,
        adapter_names=model.adapter_names,
        template=model.template,
        uses_go_template=model.prefers_go_template,
        has_chat_template=facts.has_chat_template,
        system=model.system,
        messages=model.messages,
        parameters=model.parameters,
        licenses=model.licenses,
        renderer=model.config.renderer,
        parser=model.config.parser,
        architecture=facts.architecture,
        parameter_count=facts.parameter_count,
        n_ctx_train=facts.n_ctx_train,
        kv_bytes_per_token=facts.kv_bytes_per_token,
    )
