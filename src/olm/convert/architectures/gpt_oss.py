"""gpt-oss. GGUF architecture `gpt-oss`."""

from __future__ import annotations

from collections.abc import Iterable

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.lazy import columns, reshape, take, transpose
from olm.convert.metadata import Metadata
from olm.convert.registry import register

__all__ = ["GptOss"]


@register("GptOssForCausalLM")
class GptOss(Architecture):
    """Experts in MXFP4, which stay so; gate and up alternate row by row. Unpacked ones stand the other way round."""

    gguf_name = "gpt-oss"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        meta.u32(".attention.sliding_window", self.hparams.integer("sliding_window"))
        meta.u32(".expert_feed_forward_length", self.hparams.integer("intermediate_size"))

    def keep(self, name: str) -> str | None:
        return super().keep(f"{name}.weight" if name.endswith("sinks") else name)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        stem, _, kind = name.rpartition("experts.")
        if kind == "down_proj_bias":
            yield f"{stem}experts.down_proj.bias", tensor
        elif kind == "down_proj":
            yield f"{name}.weight", _rows_first(tensor)
        elif kind == "gate_up_proj_bias":
            yield f"{stem}experts.gate_proj.bias", columns(tensor, slice(0, None, 2))
            yield f"{stem}experts.up_proj.bias", columns(tensor, slice(1, None, 2))
        elif kind == "gate_up_proj":
            gate, up = _alternate(_rows_first(tensor))
            yield f"{stem}experts.gate_proj.weight", gate
            yield f"{stem}experts.up_proj.weight", up
        else:
            yield name, tensor


def _rows_first(experts: RowReader) -> RowReader:
    """[experts, outputs, inputs]: packed ones are so, others have inputs before outputs."""
    return experts if experts.dtype == "MXFP4" else transpose(experts)


def _alternate(experts: RowReader) -> tuple[RowReader, RowReader]:
    """The even rows of each expert, and the odd ones."""
    n_experts, n_rows, length = experts.shape
    flat = reshape(experts, (n_experts * n_rows, length))
    shape = (n_experts, n_rows // 2, length)
    even, odd = (take(flat, slice(first, None, 2)) for first in (0, 1))
    return reshape(even, shape), reshape(odd, shape)
