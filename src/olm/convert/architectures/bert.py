"""BERT and its close kin: RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT. GGUF architecture `bert`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.hparams import Hparams
from olm.convert.lazy import take
from olm.convert.metadata import Metadata
from olm.convert.pooling import write_pooling
from olm.convert.registry import register
from olm.convert.vocab import Vocab

__all__ = ["Bert", "DistilBert", "Roberta", "class_labels"]

_DISTIL_EPS: Final = 1e-12  # written into DistilBERT's code
_RANK: Final = 4  # llama_pooling_type
_POSITIONS: Final = "embeddings.position_embeddings.weight"


def class_labels(hparams: Hparams) -> list[str]:
    """What a classifier's outputs mean, in order; none where the names are those that Transformers makes up for two."""
    table = hparams.table("id2label")
    labels = [table.text(key) for key in sorted(table.values, key=_number)]
    is_made_up = len(labels) == 2 and labels[0] == "LABEL_0"
    return [] if is_made_up else labels


def _number(key: str) -> tuple[int, str]:
    return (int(key) if key.isdecimal() else 0), key


@register("BertModel", "BertForMaskedLM", "BertForSequenceClassification", "CamembertModel")
class Bert(Architecture):
    """Looks both ways. Heads for pre-training go; those of a classifier stay, and its pooler, without which scores are wrong.

    In both llama.cpp's converter differs: it says nothing of ranking, and drops the pooler.
    """

    gguf_name = "bert"
    prefix = "bert."
    has_tanh_head = True
    skipped = r"^embeddings\.position_ids$|^cls\.predictions|^cls\.seq_relationship|^lm_head\."

    @property
    def is_classifier(self) -> bool:
        """Whether it scores texts, in the way that llama.cpp computes it."""
        return self.has_tanh_head and self.hf_name.endswith("ForSequenceClassification")

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.flag(".attention.causal", value=False)
        write_pooling(meta, self.checkpoint, self.hparams)
        if self.is_classifier:
            meta.u32(".pooling_type", _RANK)
        labels = class_labels(self.hparams)
        if labels:
            meta.texts(".classifier.output_labels", labels)

    def keep(self, name: str) -> str | None:
        name = name.removeprefix(self.prefix)
        if name.endswith(".gamma"):
            name = f"{name.removesuffix('.gamma')}.weight"
        elif name.endswith(".beta"):
            name = f"{name.removesuffix('.beta')}.bias"
        if name.startswith("pooler.dense."):
            return name if self.is_classifier else None
        return super().keep(name)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name in ("classifier.weight", "classifier.bias"):
            name = name.replace("classifier", "classifier.out_proj")
        elif name.startswith("pooler.dense."):
            name = name.replace("pooler.dense", "classifier.dense")
        yield name, tensor


@register("DistilBertModel", "DistilBertForMaskedLM", "DistilBertForSequenceClassification")
class DistilBert(Bert):
    """Half the layers, no token types. Its classifiers have another function in their head than llama.cpp computes."""

    prefix = "distilbert."
    has_tanh_head = False
    skipped = rf"{Bert.skipped}|^vocab_"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.f32(".attention.layer_norm_epsilon", _DISTIL_EPS)


@register(
    "RobertaModel",
    "RobertaForMaskedLM",
    "RobertaForSequenceClassification",
    "XLMRobertaModel",
    "XLMRobertaForMaskedLM",
    "XLMRobertaForSequenceClassification",
)
class Roberta(Bert):
    """Positions are counted from behind the padding token; the rows before are never used. Also Jina's third (`jina-bert-v3`).

    Jina's adapters for tasks are left out: llama.cpp's converter puts each into a file of its own, and the model runs without.
    """

    prefix = "roberta."
    skipped = rf"{Bert.skipped}|\.lora_[AB]$"

    def architecture(self) -> str:
        return "jina-bert-v3" if self.hparams.get("lora_adaptations") else self.gguf_name

    def read_hparams(self, config: Mapping[str, object]) -> Hparams:
        found = super().read_hparams(config)
        pad = found.find_integer("pad_token_id")
        n_positions = found.find_integer("max_position_embeddings")
        if pad is None or n_positions is None:
            return found
        return found.with_values(max_position_embeddings=max(n_positions - pad - 1, 0))

    def keep(self, name: str) -> str | None:
        name = name.replace(".parametrizations.", ".").removesuffix(".original")
        return super().keep(name)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        pad = self.hparams.find_integer("pad_token_id")
        if name == _POSITIONS and pad is not None:
            tensor = take(tensor, slice(pad + 1, None))
        yield from super().modify(name, tensor)

    def vocab(self) -> Vocab | None:
        vocab = super().vocab()
        if vocab is None:
            return None
        n_types = self.hparams.integer("type_vocab_size", default=1)
        return attrs.evolve(vocab, n_token_types=n_types)
