"""Qwen 3, dense, and the rerankers made of it. GGUF architecture `qwen3`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Final

import attrs

from olm.checkpoint.types import Checkpoint, RowReader
from olm.convert.architecture import NamedTensor, Options
from olm.convert.architectures.qwen2 import Qwen2
from olm.convert.hparams import Hparams
from olm.convert.lazy import take
from olm.convert.metadata import Metadata
from olm.convert.registry import register
from olm.convert.tokenizers.files import table
from olm.convert.vocab import Vocab
from olm.errors import CheckpointError

__all__ = ["Qwen3"]

_RANK: Final = 4  # llama_pooling_type
_LABELS: Final = ("yes", "no")
# The prompt that Qwen's model card asks for, with llama.cpp's place-holders.
_RERANK: Final = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: {query}\n<Document>: {document}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


@register("Qwen3ForCausalLM", "Qwen3Model")
class Qwen3(Qwen2):
    """A reranker answers `yes` or `no`: the two rows of its head become a classifier, and the rest of the head goes."""

    gguf_name = "qwen3"
    names: ClassVar[Mapping[str, str]] = {"cls.output": "cls.output"}

    def __init__(self, checkpoint: Checkpoint, hf_name: str, options: Options) -> None:
        super().__init__(checkpoint, hf_name, options)
        self.is_reranker = _is_reranker(checkpoint, self.hparams, options)
        self.is_tied = self.hparams.flag("tie_word_embeddings")

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        if self.is_reranker:
            meta.u32(".pooling_type", _RANK)
            meta.texts(".classifier.output_labels", _LABELS)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if self.is_reranker and ("embed_tokens" if self.is_tied else "lm_head") in name:
            yield "cls.output.weight", take(tensor, _answer_ids(self.checkpoint))
            if not self.is_tied:
                return
        yield from super().modify(name, tensor)

    def vocab(self) -> Vocab | None:
        vocab = super().vocab()
        if vocab is None or not self.is_reranker:
            return vocab
        return attrs.evolve(vocab, chat_templates={**vocab.chat_templates, "rerank": _RERANK})


def _is_reranker(checkpoint: Checkpoint, hparams: Hparams, options: Options) -> bool:
    """By the name, for the config says nothing (as in llama.cpp's converter)."""
    names = [options.name, checkpoint.folder.name, hparams.text("_name_or_path", default="")]
    if any("qwen3-reranker" in name.lower() for name in names):
        return True
    return "# qwen3-reranker" in (checkpoint.text("README.md") or "").lower()


def _answer_ids(checkpoint: Checkpoint) -> list[int]:
    """Token ids of `yes` and `no`."""
    tokenizer = table(checkpoint.json("tokenizer.json"), "tokenizer.json")
    pieces = tokenizer.table("model").get("vocab") or checkpoint.json("vocab.json")
    ids = [pieces.get(label) for label in _LABELS] if isinstance(pieces, Mapping) else []
    found = [number for number in ids if isinstance(number, int)]
    if len(found) != len(_LABELS):
        raise CheckpointError("tokenizer.json: a reranker's vocabulary has no `yes` and `no`")
    return found
