"""Mistral 3 and Ministral 3, the language models. GGUF architecture `mistral3`; `pixtral` has the tower."""

from __future__ import annotations

from olm.convert.architectures.llama import Llama
from olm.convert.architectures.mistral4 import Mistral4
from olm.convert.metadata import Metadata
from olm.convert.model_file import ModelFile
from olm.convert.registry import register
from olm.errors import CheckpointError

__all__ = ["Mistral3"]


@register("Mistral3ForConditionalGeneration", "Ministral3ForCausalLM")
class Mistral3(Llama):
    """A Llama; Ministral scales queries by their position. Mistral 4 comes under the same name."""

    gguf_name = "mistral3"

    def build(self) -> ModelFile:
        if self.hparams.text("model_type", default="") != "mistral4":
            return super().build()
        return Mistral4(self.checkpoint, self.hf_name, self.options).build()

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        if self.hparams.text("model_type", default="") != "ministral3":
            return
        rope = self.rope.full
        if rope.text("rope_type", default="") != "yarn":
            raise CheckpointError(f"{rope.where}: Ministral 3 has rope of type 'yarn'")
        meta.f32(".rope.scaling.yarn_log_multiplier", rope.number("mscale_all_dim"))
        meta.f32(".attention.temperature_scale", rope.number("llama_4_scaling_beta"))
