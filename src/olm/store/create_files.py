"""What a create is made of: which of its files are a checkpoint's, and what the result is to be quantized to. Pure.

Formats are told by a file's first bytes, which the caller looked at, and by its name. Error texts are Ollama's where it has
the case (spec/ollama §1.16).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

import attrs

from olm.convert.file_types import checked_tensor_type, file_type_name
from olm.errors import InvalidRequest
from olm.store.names import Digest

__all__ = [
    "Quantize",
    "adapter_names",
    "checked_quantize",
    "checkpoint_level",
    "checkpoint_names",
    "draft_error",
    "is_checkpoint_weights",
    "quantize_error",
]

_WEIGHTS: Final = (".safetensors", ".bin", ".pth", ".pt")
_ADAPTER_CONFIG: Final = "adapter_config.json"
_PLAIN: Final = ("F32", "F16", "BF16")
_MAX_OVERRIDES: Final = 1024
_DTYPE: Final = re.compile(rb'"(?:torch_)?dtype"\s*:\s*"(\w+)"')


@attrs.frozen
class Quantize:
    """What a model is to be quantized to.

    Attributes:
        file_type: as `olm.gguf.types.FILE_TYPES` spells it.
        overrides: regular expression of tensor names to tensor type; the first that fits counts.
        imatrix: an uploaded importance matrix, and what its file is called.
    """

    file_type: str
    overrides: Mapping[str, str] = attrs.field(factory=dict)
    imatrix: Digest | None = None
    imatrix_name: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether it is no quantization at all: another width of floats, one for all matrices."""
        return self.file_type in _PLAIN and not self.overrides


def checked_quantize(
    wanted: str, tensor_types: Mapping[str, str], imatrix: Mapping[str, Digest]
) -> Quantize | None:
    """Check a request's quantization; None when there is none.

    Args:
        imatrix: the file's name and digest, or empty.

    Raises:
        InvalidRequest: `unsupported quantization type …`, or options without one.
    """
    if not wanted:
        if tensor_types or imatrix:
            raise InvalidRequest("tensor_types and imatrix are for quantizing: say quantize, too")
        return None
    if len(imatrix) > 1:
        raise InvalidRequest("only one imatrix can be used")
    if len(tensor_types) > _MAX_OVERRIDES:
        raise InvalidRequest(f"more than {_MAX_OVERRIDES} tensor_types")
    name, digest = next(iter(imatrix.items()), ("", None))
    overrides = {pattern: checked_tensor_type(kind) for pattern, kind in tensor_types.items()}
    return Quantize(file_type_name(wanted), overrides, digest, PurePosixPath(name).name)


def quantize_error(level: str) -> InvalidRequest | None:
    """The error for a GGUF of this level that shall be quantized; None when it can be, or when only its tensors tell."""
    if level in (*_PLAIN, "unknown"):
        return None
    return InvalidRequest("quantization is only supported for F16, BF16 and F32 models")


def draft_error(level: str) -> InvalidRequest | None:
    """As `quantize_error`, of a draft model."""
    if quantize_error(level) is None:
        return None
    return InvalidRequest(f"draft quantization requires an unquantized draft model, got {level}")


def is_checkpoint_weights(name: str) -> bool:
    """Whether a file that is no GGUF holds weights, by its name."""
    return name.lower().endswith(_WEIGHTS)


def adapter_names(names: Collection[str]) -> dict[str, dict[str, str]]:
    """The files of each adapter that is a checkpoint, as `checkpoint_names` has them, by what the adapter is called.

    An adapter is a folder with an `adapter_config.json`, and called as that folder.
    """
    configs = [PurePosixPath(name) for name in sorted(names)]
    folders = [path.parent for path in configs if path.name == _ADAPTER_CONFIG]
    if len(folders) < 2:
        called = folders[0].name if folders else ""
        return {called or "adapter": checkpoint_names(names)}
    found: dict[str, dict[str, str]] = {}
    for folder in folders:
        inside = {str(path) for path in configs if path.is_relative_to(folder)}
        called = folder.name if folder.name not in found else str(folder).replace("/", "-")
        found[called or "adapter"] = checkpoint_names(inside)
    return found


def checkpoint_names(names: Collection[str]) -> dict[str, str]:
    """What a checkpoint's files are called in its folder, by their names in the request: that folder's path is taken off."""
    split = [PurePosixPath(name) for name in sorted(names)]
    weights = [path.parent.parts for path in split if is_checkpoint_weights(path.name)]
    root = _common([*weights, *(path.parent.parts for path in split)])
    return {str(path): str(PurePosixPath(*path.parts[len(root) :])) for path in split}


def _common(folders: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    shortest = min(folders, key=len, default=())
    n_same = next(
        (i for i, part in enumerate(shortest) if any(folder[i] != part for folder in folders)),
        len(shortest),
    )
    return shortest[:n_same]


def checkpoint_level(config: bytes) -> str:
    """What a checkpoint's weights are before they are quantized, by what its config.json says: `BF16`, `F32`, else `F16`."""
    found = _DTYPE.search(config)
    return {b"bfloat16": "BF16", b"float32": "F32"}.get(found[1] if found else b"", "F16")
