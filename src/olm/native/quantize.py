"""Rows of weights between ggml's types, and llama.cpp's choice of a type for each tensor of a file.

Only for converting processes: the functions behind it are in `native/decl/quantize.h`. What is converted is decided in
`olm.convert`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs
import msgspec
import numpy as np
from numpy.typing import NDArray

from olm.errors import CheckpointError
from olm.gguf.types import TENSOR_TYPES
from olm.native.lib import Pointer, check, ffi, lib, new_int, take_text

__all__ = [
    "CancelFlag",
    "Chosen",
    "Override",
    "TensorFacts",
    "TypeQuestion",
    "choose_types",
    "convert_rows",
    "rows_to_f32",
]

_NUMBERS: Final = {info.name: number for number, info in TENSOR_TYPES.items()}
_SIZES: Final = {info.name: info for info in TENSOR_TYPES.values()}


class CancelFlag:
    """Stops conversions that run in other threads, within some milliseconds."""

    def __init__(self) -> None:
        self.memory = np.zeros(1, dtype=np.int32)

    def set(self) -> None:
        """Let every conversion that was given this flag end with `Cancelled`."""
        self.memory[0] = 1

    @property
    def is_set(self) -> bool:
        """Whether `set` was called."""
        return bool(self.memory[0])


def convert_rows(
    rows: NDArray[np.generic],
    from_type: str,
    to_type: str,
    n_per_row: int,
    *,
    imatrix: NDArray[np.float32] | None = None,
    cancel: CancelFlag | None = None,
    memory: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.uint8], int]:
    """Convert rows from one ggml type into another. Any thread; runs without Python's lock.

    Args:
        rows: as they lie in memory, one after another, in `from_type`.
        n_per_row: elements of a row.
        imatrix: importance of each element of a row, [n_per_row].
        memory: flat, to write into; used where it is large enough, so that a loop need not ask for new pages each time.

    Returns:
        Bytes, [n_rows, bytes of a row], perhaps a view of `memory`; and how many elements were NaN or infinite, before or after.

    Raises:
        InvalidArgument: a type that cannot be read or written, or rows that do not divide into its blocks.
        Cancelled: `cancel` was set.
    """
    source = np.ascontiguousarray(rows)
    before, after = _SIZES[from_type], _SIZES[to_type]
    if n_per_row % before.block or n_per_row % after.block:
        raise CheckpointError(f"rows of {n_per_row} do not divide into blocks of {to_type}")
    n_rows = source.nbytes // (n_per_row // before.block * before.size_bytes)
    shape = (n_rows, n_per_row // after.block * after.size_bytes)
    n_bytes = shape[0] * shape[1]
    if memory is not None and memory.nbytes >= n_bytes:
        out = memory[:n_bytes].reshape(shape)
    else:
        out = np.empty(shape, dtype=np.uint8)
    n_bad = new_int("int64_t *")
    weights = None if imatrix is None else np.ascontiguousarray(imatrix, dtype=np.float32)
    # The arrays are held in locals, so their memory stays until the call returns.
    check(
        lib.olm_rows_convert(
            _NUMBERS[from_type],
            ffi.from_buffer("char[]", source.view(np.uint8).reshape(-1)),
            _NUMBERS[to_type],
            ffi.from_buffer("char[]", out),
            n_rows,
            n_per_row,
            _floats(weights),
            ffi.NULL if cancel is None else ffi.from_buffer("int32_t[]", cancel.memory),
            n_bad,
        )
    )
    return out, n_bad[0]


def rows_to_f32(from_type: str, rows: NDArray[np.generic], n_per_row: int) -> NDArray[np.float32]:
    """Unpack rows of a ggml type, [n_rows, n_per_row] f32. Raises InvalidArgument for a type without values."""
    out, _ = convert_rows(rows, from_type, "F32", n_per_row)
    return out.view(np.float32)


def _floats(values: NDArray[np.float32] | None) -> Pointer | object:
    return ffi.NULL if values is None else ffi.from_buffer("float[]", values)


class TensorFacts(msgspec.Struct, frozen=True):
    """A tensor to be given a type. `shape` is in ggml's order, the fastest dimension first."""

    name: str
    type: int
    shape: Sequence[int]


class Override(msgspec.Struct, frozen=True):
    """A type for all tensors in whose name `pattern` (an ECMAScript regular expression) is found."""

    pattern: str
    type: int


class TypeQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """What llama.cpp wants to know of a model to choose types; see `olm_quantize_types`. -1 is not said."""

    architecture: str
    ftype: int
    tensors: Sequence[TensorFacts]
    overrides: Sequence[Override] = ()
    n_embd: int = 0
    n_ff: int = 0
    n_layer: int = 1
    n_head: int = 0
    n_head_kv: int = 0
    n_expert: int = 0
    head_k: int = 0
    head_v: int = 0
    is_70b: bool = False
    pure: bool = False
    keep_output: bool = False
    output_type: int = -1
    embedding_type: int = -1


@attrs.frozen
class Chosen:
    """The answer for one tensor: its type's number, and whether it may be quantized at all."""

    type: int
    quantizable: bool


def choose_types(question: TypeQuestion) -> Sequence[Chosen]:
    """Ask llama.cpp which type each tensor of a quantized file gets, without an importance matrix.

    Raises:
        InvalidArgument: an unknown architecture or file type, or an override that is no regular expression.
    """
    json = msgspec.json.encode(question)
    text = take_text(lambda out: lib.olm_quantize_types(json, out))
    return msgspec.json.decode(text, type=list[Chosen])
