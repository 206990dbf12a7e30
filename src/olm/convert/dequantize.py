"""Checkpoints that come quantized: each weight is joined with its scales, before architectures see it.

Known are 8-bit floats (`fp8`, compressed-tensors), 8-bit integers (compressed-tensors) and MXFP4. Other methods
(GPTQ, AWQ, bitsandbytes) are refused by name: what they rounded is better converted from the original weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from olm.checkpoint.types import RowReader
from olm.convert.hparams import Hparams
from olm.convert.values import mxfp4, scaled
from olm.errors import CheckpointError

__all__ = ["F8_TYPES", "dequantized"]

F8_TYPES: Final = ("F8_E4M3", "F8_E5M2")
_METHODS: Final = ("fp8", "fbgemm_fp8", "compressed-tensors", "mxfp4", "modelopt")
_SCALES: Final = ("_scale_inv", "_scale")
# Scales of activations, calibration and key-value caches: an engine that computes in f32 has no use for them.
_UNUSED: Final = (
    ".input_scale",
    ".activation_scale",
    ".output_scale",
    ".k_scale",
    ".v_scale",
    ".q_scale",
    ".kv_scale",
    ".input_scale_ub",
    ".weight_shape",
)


def dequantized(tensors: Mapping[str, RowReader], config: Hparams) -> dict[str, RowReader]:
    """All tensors by name, in their order; those with scales are joined with them and lose them.

    Raises:
        CheckpointError: an unknown method, a missing scale, or shapes that do not fit; names the tensor.
    """
    settings = config.table("quantization_config", "compression_config")
    method = settings.text("quant_method", default="")
    if method and method not in _METHODS:
        raise CheckpointError(
            f"config.json: weights quantized with {method!r} cannot be converted "
            f"(known: {', '.join(_METHODS)}); convert the original weights"
        )
    block = settings.integers("weight_block_size") or None
    found: dict[str, RowReader] = {}
    for name, tensor in tensors.items():
        if name.endswith(_UNUSED) or (name.endswith(_SCALES) and _weight_of(name) in tensors):
            continue
        if name.endswith("_scales") and f"{name[:-7]}_blocks" in tensors:
            continue
        try:
            target, reader = _joined(name, tensor, tensors, block)
        except CheckpointError as exc:
            raise CheckpointError(f"tensor {name!r}: {exc}") from exc
        found[target] = reader
    return found


def _weight_of(scale: str) -> str:
    """The name of the weight that a scale belongs to."""
    for suffix in _SCALES:
        if scale.endswith(suffix):
            return scale.removesuffix(suffix)
    return scale


def _joined(
    name: str, tensor: RowReader, tensors: Mapping[str, RowReader], block: tuple[int, ...] | None
) -> tuple[str, RowReader]:
    if name.endswith("_blocks") and f"{name[:-7]}_scales" in tensors:
        return name[:-7], mxfp4(tensor, tensors[f"{name[:-7]}_scales"])
    scale = next((tensors[name + s] for s in _SCALES if name + s in tensors), None)
    if scale is not None:
        is_per_block = tensor.dtype in F8_TYPES and len(scale.shape) >= 2 and scale.shape[-1] > 1
        return name, scaled(tensor, scale, block if is_per_block else None)
    if tensor.dtype == "I8" and name.endswith(".weight"):
        raise CheckpointError("8-bit integers without scales")
    return name, tensor
