"""File types by name: `Q4_K_M` and the others, in any case, with the aliases people use. Pure, and no numpy: the daemon asks too."""

from __future__ import annotations

from typing import Final

from olm.errors import InvalidRequest
from olm.gguf.types import FILE_TYPES, TENSOR_TYPES

__all__ = ["checked_tensor_type", "file_type_name", "file_type_number"]

_NUMBERS: Final = {name: number for number, name in FILE_TYPES.items()}
# Names that people use for others; the first three as in llama-quantize.
_ALIASES: Final = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "MXFP4_MOE": "MXFP4"}


def file_type_name(name: str) -> str:
    """The file type that people mean by a name, in any case. Raises InvalidRequest for an unknown one."""
    upper = name.upper()
    found = _ALIASES.get(upper, upper)
    if found not in _NUMBERS:
        raise InvalidRequest(
            f"unsupported quantization type {upper[:40]} - supported types are {', '.join(_NUMBERS)}"
        )
    return found


def file_type_number(name: str) -> int:
    """Its number in `general.file_type`. Raises InvalidRequest as `file_type_name` does."""
    return _NUMBERS[file_type_name(name)]


def checked_tensor_type(name: str) -> str:
    """A tensor type's name as ggml writes it. Raises InvalidRequest for an unknown one."""
    upper, known = name.upper(), [kind.name for kind in TENSOR_TYPES.values()]
    if upper not in known:
        raise InvalidRequest(f"unknown tensor type {upper[:40]!r}, known are {', '.join(known)}")
    return upper
