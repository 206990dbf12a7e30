"""EuroBERT. GGUF architecture `eurobert`."""

from __future__ import annotations

from olm.convert.architecture import Architecture
from olm.convert.metadata import Metadata
from olm.convert.pooling import write_pooling
from olm.convert.registry import register

__all__ = ["EuroBert"]


@register("EuroBertModel")
class EuroBert(Architecture):
    """A Llama that looks both ways."""

    gguf_name = "eurobert"
    skipped = r"^lm_head\."

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.flag(".attention.causal", value=False)
        meta.text(".rope.scaling.type", "none")
        # How its classifier would pool is nothing to an embedding.
        hparams = self.hparams.with_values(classifier_pooling=None)
        write_pooling(meta, self.checkpoint, hparams)

    def keep(self, name: str) -> str | None:
        return super().keep(name.removeprefix("model."))
