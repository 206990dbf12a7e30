"""The vocabulary of GGUF: value types, tensor types with their block sizes, file types, and the header as a value.

Numbers are those of ggml 0.25.3 (`ggml.h`, `llama.h`); the format is the GGUF specification, versions 2 and 3.
No reading here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import attrs

__all__ = [
    "FILE_TYPES",
    "SCALARS",
    "TENSOR_TYPES",
    "TYPE_ARRAY",
    "TYPE_BOOL",
    "TYPE_FLOAT32",
    "TYPE_STRING",
    "TYPE_UINT32",
    "Array",
    "Header",
    "Scalar",
    "Tensor",
    "TensorType",
    "Value",
]

TYPE_UINT32: Final = 4
TYPE_FLOAT32: Final = 6
TYPE_BOOL: Final = 7
TYPE_STRING: Final = 8
TYPE_ARRAY: Final = 9

SCALARS: Final[Mapping[int, tuple[str, int]]] = {
    0: ("B", 1),
    1: ("b", 1),
    2: ("H", 2),
    3: ("h", 2),
    4: ("I", 4),
    5: ("i", 4),
    TYPE_FLOAT32: ("f", 4),
    TYPE_BOOL: ("?", 1),
    10: ("Q", 8),
    11: ("q", 8),
    12: ("d", 8),
}
"""GGUF value type -> (struct code, bytes). Strings and arrays are not in it."""


class TensorType(NamedTuple):
    """A ggml tensor type: `block` elements are stored in `size_bytes` bytes."""

    name: str
    block: int
    size_bytes: int


TENSOR_TYPES: Final[Mapping[int, TensorType]] = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    9: TensorType("Q8_1", 32, 36),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    15: TensorType("Q8_K", 256, 292),
    16: TensorType("IQ2_XXS", 256, 66),
    17: TensorType("IQ2_XS", 256, 74),
    18: TensorType("IQ3_XXS", 256, 98),
    19: TensorType("IQ1_S", 256, 50),
    20: TensorType("IQ4_NL", 32, 18),
    21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82),
    23: TensorType("IQ4_XS", 256, 136),
    24: TensorType("I8", 1, 1),
    25: TensorType("I16", 1, 2),
    26: TensorType("I32", 1, 4),
    27: TensorType("I64", 1, 8),
    28: TensorType("F64", 1, 8),
    29: TensorType("IQ1_M", 256, 56),
    30: TensorType("BF16", 1, 2),
    34: TensorType("TQ1_0", 256, 54),
    35: TensorType("TQ2_0", 256, 66),
    39: TensorType("MXFP4", 32, 17),
    40: TensorType("NVFP4", 64, 36),
    41: TensorType("Q1_0", 128, 18),
    42: TensorType("Q2_0", 64, 18),
}
"""The numbers missing in between were removed from the format and are refused."""

FILE_TYPES: Final[Mapping[int, str]] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4",
    39: "NVFP4",
    40: "Q1_0",
    41: "Q2_0",
}
"""`general.file_type` -> the quantization level that `list` and `show` print."""

Scalar = int | float | bool | str


class Array(NamedTuple):
    """An array value. `values` is None when the reader skipped it: it was long and nobody asked for it."""

    n_items: int
    values: Sequence[Scalar] | None


Value = Scalar | Array


class Tensor(NamedTuple):
    """One tensor's place. `shape` is in file order (fastest dimension first); `offset` from the start of the data."""

    name: str
    type_name: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int
    n_elements: int


@attrs.frozen
class Header:
    """Everything a GGUF file says before its tensor data, checked.

    Attributes:
        version: 2 or 3.
        values: the key-value pairs in file order.
        tensors: in file order; their extents lie inside the file and do not overlap.
        data_offset: where tensor data begins, bytes from the start of the file.
        size_bytes: of the whole file.
    """

    version: int
    values: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    data_offset: int
    size_bytes: int

    def text(self, key: str, default: str = "") -> str:
        """The string at `key`, or `default` when it is absent or of another type."""
        value = self.values.get(key)
        return value if isinstance(value, str) else default

    def integer(self, key: str, default: int = 0) -> int:
        """The integer at `key`, or `default` when it is absent or of another type."""
        value = self.values.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    def integers(self, key: str) -> tuple[int, ...]:
        """The integers of an array at `key`; a single integer counts as an array of one; empty when absent."""
        value = self.values.get(key)
        if isinstance(value, Array):
            return tuple(v for v in value.values or () if isinstance(v, int))
        return (value,) if isinstance(value, int) and not isinstance(value, bool) else ()
