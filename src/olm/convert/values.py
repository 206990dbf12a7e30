"""Bits into numbers: every element type of a checkpoint as f32, F8 with its scales, MXFP4 in ggml's order.

Row by row, as everything in `olm.convert.lazy`. Packing numbers into ggml's block types is `olm.native.quantize`'s.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import numpy as np
from numpy.typing import NDArray

from olm.checkpoint.types import DTYPES, RowReader
from olm.errors import CheckpointError
from olm.gguf.types import TENSOR_TYPES, TensorType

__all__ = ["GGML_TYPES", "check_packed", "mxfp4", "row_bytes", "scaled", "to_f32"]

GGML_TYPES: Final[Mapping[str, tuple[int, TensorType]]] = {
    info.name: (number, info) for number, info in TENSOR_TYPES.items()
}
"""ggml's tensor types by name: their number in files, and how many elements take how many bytes."""

_MXFP4_BLOCK: Final = 32  # elements that share a scale; the same in every format of it


def row_bytes(type_name: str, n_elements: int) -> int:
    """Bytes of a row of `n_elements` in a ggml type; raises CheckpointError where it does not divide into blocks."""
    info = GGML_TYPES[type_name][1]
    if n_elements % info.block:
        raise CheckpointError(
            f"rows of {n_elements} are not a multiple of {type_name}'s {info.block}"
        )
    return n_elements // info.block * info.size_bytes


def check_packed(dtype: str, refusal: str) -> None:
    """Raise CheckpointError with `refusal` for a block type, whose elements cannot be moved one by one."""
    if dtype not in DTYPES:
        raise CheckpointError(f"{refusal}: the tensor is packed as {dtype}")


def to_f32(values: NDArray[np.generic], dtype: str, n_per_row: int) -> NDArray[np.float32]:
    """Rows of any dtype, as a reader of that dtype gives them, as f32 [n, n_per_row]; may be the same memory.

    Raises:
        CheckpointError: integers wider than 16 bits, which f32 cannot hold.
    """
    match dtype:
        case "F32":
            return np.asarray(values, dtype=np.float32)
        case "BF16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        case "F8_E4M3" | "F8_E5M2" | "F8_E8M0":
            return np.take(_f8_table(dtype), values.view(np.uint8))
        case "F64" | "F16" | "I16" | "I8" | "U8" | "BOOL":
            return values.astype(np.float32)
        case "I64" | "I32":
            raise CheckpointError(f"a tensor of {dtype} cannot become f32 without loss")
    from olm.native.quantize import rows_to_f32  # the engine, only for block types

    return rows_to_f32(dtype, values, n_per_row)


@functools.cache
def _f8_table(dtype: str) -> NDArray[np.float32]:
    """The 256 values of an 8-bit float (OCP 8-bit floating point specification 1.0; E8M0: OCP microscaling 1.0)."""
    codes = np.arange(256, dtype=np.uint16)
    if dtype == "F8_E5M2":
        return (codes << 8).view(np.float16).astype(np.float32)
    if dtype == "F8_E8M0":
        powers = np.exp2(codes.astype(np.float64) - 127)
        powers[255] = np.nan
        return powers.astype(np.float32)
    exponent, mantissa = (codes >> 3 & 15).astype(np.int32), (codes & 7).astype(np.float64)
    magnitude = np.where(
        exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * np.exp2(exponent - 7.0)
    )
    magnitude[(codes & 127) == 127] = np.nan
    return np.where(codes & 128, -magnitude, magnitude).astype(np.float32)


@attrs.frozen
class _Scaled:
    """Elements times the scale of the block they are in."""

    weight: RowReader
    scale: RowReader
    block: tuple[int, int]
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape

    def read(self, start: int, stop: int) -> NDArray[np.generic]:
        height, width = self.shape[-2:]
        scale_height, scale_width = self.scale.shape[-2:]
        rows = np.arange(start, stop)
        wanted = rows // height * scale_height + rows % height // self.block[0]
        low = int(wanted[0]) if len(wanted) else 0
        read = self.scale.read(low, int(wanted[-1]) + 1 if len(wanted) else 0)
        scales = to_f32(read, self.scale.dtype, scale_width)[wanted - low]
        values = to_f32(self.weight.read(start, stop), self.weight.dtype, width)
        if scale_width > 1:
            scales = np.repeat(scales, self.block[1], axis=1)[:, :width]
        return np.asarray(values * scales, dtype=np.float32)


def scaled(weight: RowReader, scale: RowReader, block: Sequence[int] | None = None) -> RowReader:
    """Undo a quantization by scales: `weight * scale`, f32.

    Args:
        weight: [..., rows, columns], of any dtype (F8, I8).
        scale: one number; one for each row ([rows] or [rows, 1]); or one for each block of `block` elements,
            [..., rows / block[0], columns / block[1]], rounded up. A stack of matrices may have one number each.
        block: (rows, columns) of a block; worked out from the shapes when they divide.

    Raises:
        CheckpointError: the shapes do not fit each other.
    """
    if len(weight.shape) < 2:
        raise CheckpointError(f"a tensor of {weight.shape} has no blocks to scale")
    *outer, height, width = weight.shape
    n_scales = math.prod(scale.shape)
    if n_scales in (1, math.prod(outer)) and n_scales != math.prod(weight.shape[:-1]):
        shaped = _with_shape(scale, (*(outer if n_scales > 1 else []), 1, 1))
        if n_scales == 1:  # one for all: as if everything were one matrix
            return (
                _Scaled(weight, shaped, (math.prod(weight.shape), width))
                if not outer
                else _Scaled(weight, _repeated(shaped, outer), (height, width))
            )
        return _Scaled(weight, shaped, (height, width))
    if n_scales == math.prod(weight.shape[:-1]):
        return _Scaled(weight, _with_shape(scale, (*outer, height, 1)), (1, width))
    if len(scale.shape) != len(weight.shape):
        raise CheckpointError(f"scales of {scale.shape} do not fit a tensor of {weight.shape}")
    sizes = (
        tuple(block)
        if block is not None
        else (-(-height // scale.shape[-2]), -(-width // scale.shape[-1]))
    )
    expected = (*outer, -(-height // sizes[0]), -(-width // sizes[1]))
    if len(sizes) != 2 or tuple(scale.shape) != expected:
        raise CheckpointError(
            f"scales of {scale.shape} do not fit a tensor of {weight.shape} in blocks of {sizes}"
        )
    return _Scaled(weight, scale, (sizes[0], sizes[1]))


@attrs.frozen
class _WithShape:
    source: RowReader
    shape: tuple[int, ...]
    n_repeats: int = 1

    @property
    def dtype(self) -> str:
        return self.source.dtype

    def read(self, start: int, stop: int) -> NDArray[np.generic]:
        whole = self.source.read(0, math.prod(self.source.shape[:-1])).reshape(-1, self.shape[-1])
        return np.tile(whole, (self.n_repeats, 1))[start:stop]


def _with_shape(scale: RowReader, shape: tuple[int, ...]) -> RowReader:
    return _WithShape(scale, shape)


def _repeated(scale: RowReader, outer: Sequence[int]) -> RowReader:
    return _WithShape(scale, (*outer, 1, 1), math.prod(outer))


@attrs.frozen
class _Mxfp4:
    blocks: RowReader
    scales: RowReader
    shape: tuple[int, ...]
    dtype: str = "MXFP4"

    def read(self, start: int, stop: int) -> NDArray[np.generic]:
        n_blocks = self.shape[-1] // _MXFP4_BLOCK
        n_inner = len(self.blocks.shape) == len(self.scales.shape) + 1
        per_row = n_blocks if n_inner else 1
        read = self.blocks.read(start * per_row, stop * per_row)
        codes = read.view(np.uint8).reshape(-1, n_blocks, 16)
        low, high = codes & 15, codes >> 4
        # In order: 0, 1, 2, …; ggml keeps element j with element j + 16 in byte j (block_mxfp4, ggml-common.h).
        ordered = np.stack((low, high), axis=-1).reshape(-1, n_blocks, 32)
        out = np.empty((stop - start, n_blocks, 17), dtype=np.uint8)
        out[..., 0] = self.scales.read(start, stop)
        out[..., 1:] = ordered[..., :16] | ordered[..., 16:] << 4
        return out.reshape(stop - start, -1)


def mxfp4(blocks: RowReader, scales: RowReader) -> RowReader:
    """Take 4-bit microscaling weights over bit by bit, as ggml's MXFP4 [..., columns].

    Args:
        blocks: U8 [..., n_blocks, 16] or [..., n_blocks * 16]; byte j of a block holds elements 2j (low) and 2j + 1.
        scales: U8 or F8_E8M0 [..., n_blocks].

    Raises:
        CheckpointError: the shapes do not fit each other.
    """
    *outer, n_blocks = scales.shape
    if tuple(blocks.shape) not in ((*outer, n_blocks, 16), (*outer, n_blocks * 16)):
        raise CheckpointError(f"MXFP4 blocks of {blocks.shape} do not fit scales of {scales.shape}")
    return _Mxfp4(blocks, scales, (*outer, n_blocks * _MXFP4_BLOCK))
