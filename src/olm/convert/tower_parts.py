"""What several towers do to their tensors: patch embeddings as kernels of convolutions, grids of positions.

Facts about how llama.cpp's `clip` wants weights, as `parts` has them for language models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from olm.checkpoint.types import RowReader
from olm.convert.architecture import NamedTensor
from olm.convert.hparams import Hparams
from olm.convert.lazy import columns, constant, read_all, reshape, split, widen
from olm.convert.metadata import Metadata
from olm.errors import CheckpointError

__all__ = [
    "FRAME_NAMES",
    "frame_kernels",
    "patch_kernel",
    "thirds",
    "unsqueeze",
    "write_activation",
]

_PATCH: Final = "v.patch_embd.weight"
_N_FRAMES: Final = 2
_N_COLOURS: Final = 3

FRAME_NAMES: Final[Mapping[str, str]] = {f"{_PATCH}.{{bid}}": f"{_PATCH}.{{bid}}"}
"""The name of the second frame's kernel, which no table has: an `Architecture.names`."""


def frame_kernels(kernel: RowReader) -> Iterable[NamedTensor]:
    """Cut a patch embedding that spans two frames, [out, in, 2, height, width], into a kernel for each frame.

    Raises:
        CheckpointError: it has another shape.
    """
    if len(kernel.shape) != 5 or kernel.shape[2] != _N_FRAMES:
        raise CheckpointError(f"wanted a kernel over {_N_FRAMES} frames, found {kernel.shape}")
    values = np.asarray(read_all(widen(kernel)), np.float32)
    yield _PATCH, constant(values[:, :, 0])
    yield f"{_PATCH}.1", constant(values[:, :, 1])


def patch_kernel(matrix: RowReader, patch: int = 0) -> RowReader:
    """Turn a linear patch embedding, [out, height * width * colours], into a kernel [out, colours, height, width].

    Args:
        patch: pixels of a patch's side; worked out for three colours when 0.

    Raises:
        CheckpointError: the columns are no square patches.
    """
    n_columns = matrix.shape[-1] if len(matrix.shape) == 2 else 0
    side = patch or math.isqrt(n_columns // _N_COLOURS)
    if not n_columns or n_columns % (side * side):
        raise CheckpointError(f"{matrix.shape} is no embedding of patches of {side} x {side}")
    n_colours = n_columns // (side * side)
    order = np.arange(n_columns).reshape(side, side, n_colours).transpose(2, 0, 1)
    turned = columns(matrix, order.reshape(-1))
    return reshape(turned, (matrix.shape[0], n_colours, side, side))


def thirds(fused: RowReader) -> tuple[RowReader, ...]:
    """Cut queries, keys and values of equal size out of one projection, or its bias.

    Raises:
        CheckpointError: the rows do not divide by three.
    """
    if fused.shape[0] % 3:
        raise CheckpointError(f"{fused.shape[0]} rows are no queries, keys and values")
    return split(fused, [fused.shape[0] // 3] * 3)


def unsqueeze(vector: RowReader, n_behind: int, n_before: int = 0) -> RowReader:
    """Put dimensions of 1 behind and before: biases that are added to the outcome of a convolution."""
    return reshape(vector, (*[1] * n_before, *vector.shape, *[1] * n_behind))


def write_activation(meta: Metadata, settings: Hparams, name: str) -> None:
    """Write `clip.use_gelu` or `clip.use_silu`.

    Raises:
        CheckpointError: it is another function, which llama.cpp has no key for.
    """
    if name not in ("gelu", "silu"):
        raise CheckpointError(f"{settings.where}: unknown 'hidden_act' {name!r}")
    meta.flag(f".use_{name}", value=True)
