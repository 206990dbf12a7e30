"""T5, its kin, and their encoders alone. GGUF architectures `t5` and `t5encoder`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from olm.checkpoint.types import Checkpoint, RowReader
from olm.convert.architecture import Architecture, NamedTensor, Options
from olm.convert.metadata import Metadata
from olm.convert.registry import register

__all__ = ["T5", "T5Encoder"]

_CONTEXT: Final = 512
_EMBEDDINGS: Final = (
    "decoder.embed_tokens.weight",
    "encoder.embed_tokens.weight",
    "shared.weight",
)


@register("T5EncoderModel", "UMT5EncoderModel", "MT5EncoderModel")
class T5Encoder(Architecture):
    """Relative positions in buckets. The embedding may be there more than once, under several names."""

    gguf_name = "t5encoder"

    def __init__(self, checkpoint: Checkpoint, hf_name: str, options: Options) -> None:
        super().__init__(checkpoint, hf_name, options)
        self.embedding = next((name for name in checkpoint.tensors if name in _EMBEDDINGS), "")

    def write_keys(self, meta: Metadata) -> None:
        hparams = self.hparams
        eps = hparams.number("layer_norm_epsilon")
        meta.u32(".context_length", hparams.integer("n_positions", default=_CONTEXT))
        meta.u32(".embedding_length", hparams.integer("d_model"))
        meta.u32(".feed_forward_length", hparams.integer("d_ff"))
        meta.u32(".block_count", self.n_blocks)
        meta.u32(".attention.head_count", hparams.integer("num_heads"))
        meta.u32(".attention.key_length", hparams.integer("d_kv"))
        meta.u32(".attention.value_length", hparams.integer("d_kv"))
        meta.f32(".attention.layer_norm_epsilon", eps)
        meta.f32(".attention.layer_norm_rms_epsilon", eps)
        meta.u32(
            ".attention.relative_buckets_count", hparams.integer("relative_attention_num_buckets")
        )
        meta.u32("general.file_type", 0)  # its place; the value is known when all types are

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name not in _EMBEDDINGS:
            yield name, tensor
        elif name == self.embedding:
            yield "shared.weight", tensor


@register(
    "T5ForConditionalGeneration",
    "T5WithLMHeadModel",
    "MT5ForConditionalGeneration",
    "UMT5ForConditionalGeneration",
    "UMT5Model",
)
class T5(T5Encoder):
    """With the decoder."""

    gguf_name = "t5"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        n_decoder = self.hparams.find_integer("num_decoder_layers")
        if n_decoder is not None:
            meta.u32(".decoder_block_count", n_decoder)
        meta.u32(".decoder_start_token_id", self.hparams.integer("decoder_start_token_id"))
