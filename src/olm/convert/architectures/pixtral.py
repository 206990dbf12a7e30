"""Pixtral's tower, also that of Mistral Small 3 and Ministral 3. A projector `pixtral`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Final

from olm.checkpoint.types import RowReader
from olm.convert.architecture import NamedTensor
from olm.convert.lazy import reshape, take
from olm.convert.metadata import Metadata
from olm.convert.parts import interleave_rope
from olm.convert.projector import Projector
from olm.convert.registry import register
from olm.convert.tokenizers.files import table
from olm.errors import CheckpointError

__all__ = ["Pixtral"]

_EPS: Final = 1e-5  # written into modeling_pixtral.py
_BREAK: Final = "[IMG_BREAK]"


@register("Mistral3ForConditionalGeneration", "LlavaForConditionalGeneration", projector=True)
class Pixtral(Projector):
    """Its rope rotates neighbours; rows of a picture end in a token, whose embedding goes along."""

    projector_type = "pixtral"
    vision_defaults: ClassVar[Mapping[str, object]] = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 1024,
        "patch_size": 16,
        "hidden_act": "gelu",
    }
    prefixes = (
        "multi_modal_projector.",
        "vision_tower.",
        "vision_encoder.",
        "vision_language_adapter.",
        "patch_merger.",
    )
    names: ClassVar[Mapping[str, str]] = {"v.token_embd.img_break": "v.token_embd.img_break"}

    def write_keys(self, meta: Metadata) -> None:
        kind = self.vision.text("model_type", default=self.projector_type)
        if kind != self.projector_type:
            raise CheckpointError(f"{self.vision.where}: unknown 'model_type' {kind!r}")
        super().write_keys(meta)
        meta.f32(
            ".vision.attention.layer_norm_epsilon",
            self.vision.number("layer_norm_eps", default=_EPS),
        )
        activation = self.vision.text("hidden_act", default="silu")
        if activation not in ("silu", "gelu"):
            raise CheckpointError(f"{self.vision.where}: unknown 'hidden_act' {activation!r}")
        meta.flag(f".use_{activation}", value=True)
        merge = self.hparams.find_integer("spatial_merge_size")
        if merge is not None:
            meta.u32(".vision.spatial_merge_size", merge)

    def is_present(self) -> bool:
        kept = (self.keep(name) for name in self.checkpoint.tensors)
        return any(name is not None and not name.endswith("embed_tokens.weight") for name in kept)

    def keep(self, name: str) -> str | None:
        if name.endswith("embed_tokens.weight"):
            return name
        return super().keep(name.removeprefix("model."))

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.endswith("embed_tokens.weight"):
            row = take(tensor, [_break_id(self)])
            yield "v.token_embd.img_break", reshape(row, tensor.shape[-1:])
            return
        if name.endswith(("q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias")):
            tensor = interleave_rope(tensor, self.vision.integer("num_attention_heads"))
        yield name, tensor


def _break_id(tower: Pixtral) -> int:
    """The token that ends a row of a picture."""
    for name, key in (("tokenizer.json", "added_tokens"), ("tekken.json", "special_tokens")):
        listed = table(tower.checkpoint.json(name), name).get(key)
        for entry in listed if isinstance(listed, list) else ():
            token = table(entry, name)
            if token.get("content", "token_str") == _BREAK:
                return token.integer("id", "rank")
    raise CheckpointError(f"tokenizer.json: the token {_BREAK} is missing")
