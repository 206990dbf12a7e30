"""Jina's second embedding models. GGUF architecture `jina-bert-v2`; the third are in `bert`."""

from __future__ import annotations

import attrs

from olm.convert.architectures.bert import Bert
from olm.convert.registry import register
from olm.convert.vocab import Vocab

__all__ = ["JinaBert"]


@register("JinaBertModel", "JinaBertForMaskedLM")
class JinaBert(Bert):
    """ALiBi instead of positions. Some have a byte-level tokenizer and still two token types."""

    gguf_name = "jina-bert-v2"

    def vocab(self) -> Vocab | None:
        vocab = super().vocab()
        if vocab is None or vocab.n_token_types is not None:
            return vocab
        return attrs.evolve(vocab, n_token_types=2)
