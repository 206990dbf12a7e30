"""LFM2, with experts too, and the text models of LFM2-VL and LFM2-Audio. GGUF architectures `lfm2`, `lfm2moe`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.hparams import Hparams
from olm.convert.lazy import reshape
from olm.convert.metadata import Metadata
from olm.convert.pooling import write_pooling
from olm.convert.registry import register
from olm.errors import CheckpointError

__all__ = ["Lfm2", "Lfm2Embedding", "Lfm2Moe"]


class _ShortConvolutions(Architecture):
    """Most layers are short convolutions, and have no keys and values."""

    def read_hparams(self, config: Mapping[str, object]) -> Hparams:
        hparams = super().read_hparams(config)
        n_kv = hparams.integer("num_key_value_heads")
        heads = [n_kv if is_attention else 0 for is_attention in _attention_layers(hparams)]
        return hparams.with_values(num_key_value_heads=heads)

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.u32(".vocab_size", self.hparams.integer("vocab_size"))
        meta.u32(".shortconv.l_cache", self.hparams.integer("conv_L_cache"))

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if "conv.conv" in name and len(tensor.shape) == 3:
            tensor = reshape(tensor, (tensor.shape[0], tensor.shape[2]))
        yield name, tensor


def _attention_layers(hparams: Hparams) -> Sequence[bool]:
    kinds = hparams.texts("layer_types")
    if kinds:
        return [kind == "full_attention" for kind in kinds]
    if "full_attn_idxs" not in hparams:
        raise CheckpointError("config.json: 'layer_types' is missing, so no layer's kind is known")
    layers = hparams.integers("full_attn_idxs")
    return [layer in layers for layer in range(hparams.integer("num_hidden_layers"))]


@register(
    "Lfm2ForCausalLM",
    "LFM2ForCausalLM",
    "Lfm2VlForConditionalGeneration",
    "Lfm2AudioForConditionalGeneration",
)
class Lfm2(_ShortConvolutions):
    """The feed-forward's length is worked out from the one in the config."""

    gguf_name = "lfm2"
    skipped = (
        r"^(conformer|audio_adapter|audio_embedding|depthformer|depth_linear|depth_embeddings)"
    )

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.f32(".attention.layer_norm_rms_epsilon", self.hparams.number("norm_eps", default=1e-5))
        meta.u32(".feed_forward_length", self._n_ff())

    def _n_ff(self) -> int:
        hparams = self.hparams
        n_ff = hparams.integer("block_ff_dim", "intermediate_size")
        if not hparams.flag("block_auto_adjust_ff_dim", default=True):
            return n_ff
        multiple = max(hparams.integer("block_multiple_of", default=256), 1)
        factor = hparams.number("block_ffn_dim_multiplier", default=1.0)
        return multiple * -(int(factor * int(2 * n_ff / 3)) // -multiple)

    def keep(self, name: str) -> str | None:
        return super().keep(name.replace("lfm.", "model."))


@register("Lfm2Model", "Lfm2BidirectionalModel")
class Lfm2Embedding(Lfm2):
    """Embedding models; ColBERT's has a dense layer behind, in a folder of its own."""

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        if self.hf_name == "Lfm2BidirectionalModel":
            meta.flag(".attention.causal", value=False)
        write_pooling(meta, self.checkpoint, self.hparams)
        dense = self._dense()
        if dense is not None:
            meta.u32(".embedding_length_out", dense.shape[0])

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        for new, modified in super().modify(name, tensor):
            yield f"model.{new}", modified

    def extra(self) -> Iterable[NamedTensor]:
        dense = self._dense()
        if dense is not None:
            yield "dense_2.weight", dense

    def _dense(self) -> RowReader | None:
        if not (self.checkpoint.folder / "1_Dense").is_dir():
            return None
        return self.checkpoint.part("1_Dense").tensors.get("linear.weight")


@register("Lfm2MoeForCausalLM")
class Lfm2Moe(_ShortConvolutions):
    """Experts chosen by sigmoid, with a bias."""

    gguf_name = "lfm2moe"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        hparams = self.hparams
        meta.u32(".expert_feed_forward_length", hparams.integer("moe_intermediate_size"))
        meta.u32(".leading_dense_block_count", hparams.integer("num_dense_layers"))
        meta.u32(".expert_gating_func", 2)  # sigmoid

    def keep(self, name: str) -> str | None:
        return super().keep(f"{name}.bias" if name.endswith(".expert_bias") else name)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        for new, modified in super().modify(name, tensor):
            yield (new.removeprefix("model.") if ".experts." in new else new), modified
