"""The `info` of a create request: what a model says of itself, in place of what its files tell. Pure.

Fields and error texts are Ollama's (`server/create.go`, applyCreateInfo; spec/ollama §1.16).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from olm.errors import InvalidRequest
from olm.store.manifests import ImageConfig

__all__ = ["check_info", "with_info"]

_TEXTS: Final = {
    "model_family": "model_family",
    "base_name": "base_name",
    "quantization_level": "file_type",
    "parameter_size": "model_type",
}
_NUMBERS: Final = {"context_length": "context_length", "embedding_length": "embedding_length"}
_MAX: Final = (1 << 63) - 1


def check_info(info: Mapping[str, object]) -> None:
    """Check an `info` object; fields that nobody knows are let pass. Raises InvalidRequest."""
    with_info(ImageConfig(), info)


def with_info(config: ImageConfig, info: Mapping[str, object]) -> ImageConfig:
    """A config that says what `info` does. Raises InvalidRequest."""
    changed: dict[str, object] = {}
    for key, field in _TEXTS.items():
        if key in info:
            changed[field] = _text(key, info[key])
    for key, field in _NUMBERS.items():
        if key in info:
            changed[field] = _number(key, info[key])
    if "capabilities" in info:
        changed["capabilities"] = _texts("capabilities", info["capabilities"]) or None
    if "model_family" in info:
        family = changed["model_family"]
        changed["model_families"] = (family,) if family else None
    return msgspec.structs.replace(config, **changed)


def _text(key: str, value: object) -> str:
    if isinstance(value, str):
        return value
    raise InvalidRequest(f'info field "{key}" must be a string')


def _texts(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InvalidRequest(f'info field "{key}" must be an array of strings')
    for place, item in enumerate(value):
        if not isinstance(item, str):
            raise InvalidRequest(f'info field "{key}" element {place} must be a string')
    return tuple(value)


def _number(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest(f'info field "{key}" must be a number')
    if not 0 <= value <= _MAX or value != int(value):
        raise InvalidRequest(f'info field "{key}" must be a non-negative integer')
    return int(value)
