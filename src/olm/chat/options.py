"""Model options: their table, Ollama's coercions and error texts, and the split into load time and request time.

Precedence is defaults < Modelfile parameters < request. Unknown keys are ignored (Ollama logs and drops them), null
values are skipped, JSON floats are truncated where an integer is wanted (spec/ollama §1.7, commit fb30760).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from olm.chat.adapters import AdapterChoice, read_adapters
from olm.chat.types import Sampling
from olm.errors import InvalidOption

__all__ = [
    "OPTION_TYPES",
    "LoadOptions",
    "adapters",
    "coerce_options",
    "load_options",
    "merge_options",
    "sampling",
]

OptionValue = (
    int | float | bool | str | tuple[str, ...] | dict[int, float] | tuple[AdapterChoice, ...]
)

OPTION_TYPES: Final[Mapping[str, str]] = {
    # request time
    "num_keep": "integer",
    "seed": "integer",
    "num_predict": "integer",
    "top_k": "integer",
    "top_p": "float32",
    "min_p": "float32",
    "typical_p": "float32",
    "repeat_last_n": "integer",
    "temperature": "float32",
    "repeat_penalty": "float32",
    "presence_penalty": "float32",
    "frequency_penalty": "float32",
    "stop": "array",
    # llama.cpp's own, beyond Ollama
    "mirostat": "integer",
    "mirostat_tau": "float32",
    "mirostat_eta": "float32",
    "top_n_sigma": "float32",
    "dry_multiplier": "float32",
    "dry_base": "float32",
    "dry_allowed_length": "integer",
    "dry_penalty_last_n": "integer",
    "xtc_probability": "float32",
    "xtc_threshold": "float32",
    "dynatemp_range": "float32",
    "dynatemp_exponent": "float32",
    "ignore_eos": "boolean",
    "logit_bias": "bias",
    # olm's own
    "think_budget": "integer",
    "adapters": "adapters",
    # load time: a different value needs a new runner
    "num_ctx": "integer",
    "num_batch": "integer",
    "num_gpu": "integer",
    "main_gpu": "integer",
    "use_mmap": "boolean",
    "num_thread": "integer",
    "draft_num_predict": "integer",
}

_ALIASES: Final = {"lora": "adapters"}
"""llama-server's names."""

_SAMPLING_FIELD: Final = {"num_keep": "n_keep", "num_predict": "n_predict"}
_LOAD_KEYS: Final = frozenset(
    ("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict")
)
_INT32: Final = range(-(1 << 31), 1 << 31)
_LOAD_RANGES: Final[Mapping[str, range]] = {
    "num_batch": range(1 << 20),
    "num_gpu": range(-1, 1 << 16),
    "main_gpu": range(16),  # llama_max_devices()
    "num_thread": range(513),  # GGML_MAX_N_THREADS
    "draft_num_predict": range(1 << 10),
}
"""What the engine takes; num_ctx has rules of its own (`placement.resolve_n_ctx`)."""


class LoadOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """Options fixed when the weights are loaded. None means the runner chooses.

    Attributes:
        n_ctx: tokens of context for each parallel slot.
        n_batch: prompt tokens a step.
        n_gpu_layers: layers on the GPU, -1 for as many as fit.
        n_threads: compute threads.
    """

    n_ctx: int | None = None
    n_batch: int | None = None
    n_gpu_layers: int | None = None
    main_gpu: int | None = None
    use_mmap: bool | None = None
    n_threads: int | None = None
    draft_n_predict: int | None = None


def coerce_options(options: Mapping[str, object]) -> dict[str, OptionValue]:
    """Check and convert options as they came from JSON or a manifest.

    Raises:
        InvalidOption: a value of the wrong type or out of range, in Ollama's words.
    """
    checked: dict[str, OptionValue] = {}
    for name, value in options.items():
        key = _ALIASES.get(name, name)
        kind = OPTION_TYPES.get(key)
        if kind is None or value is None:
            continue
        checked[key] = _coerce(name, kind, value)
    return checked


def _coerce(key: str, kind: str, value: object) -> OptionValue:
    match kind:
        case "integer":
            return _integer(key, value)
        case "float32":
            return _float(key, value)
        case "boolean":
            if isinstance(value, bool):
                return value
            raise InvalidOption(f'option "{key}" must be of type boolean')
        case "array":
            return _strings(key, value)
        case "adapters":
            return read_adapters(value, key)
        case _:
            return _bias(key, value)


def _integer(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidOption(f'option "{key}" must be of type integer')
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidOption(f'option "{key}" must be of type integer')
    number = int(value)
    if number not in _INT32:
        raise InvalidOption(f'option "{key}" is out of range: {number}', status=400)
    return number


def _float(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidOption(f'option "{key}" must be of type float32')
    number = float(value)
    if not math.isfinite(number) or abs(number) > 3.4e38:
        raise InvalidOption(f'option "{key}" is out of range: {value}', status=400)
    return number


def _strings(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise InvalidOption(f'option "{key}" must be of type array')
    items: Iterable[object] = value
    strings: list[str] = []
    for item in items:
        if not isinstance(item, str):
            raise InvalidOption(f'option "{key}" must be of an array of strings')
        strings.append(item)
    return tuple(strings)


def _bias(key: str, value: object) -> dict[int, float]:
    if not isinstance(value, Mapping):
        raise InvalidOption(f'option "{key}" must be an object of token ids and numbers')
    return dict(_bias_pair(key, str(token), bias) for token, bias in value.items())


def _bias_pair(key: str, token: str, bias: object) -> tuple[int, float]:
    # isdigit alone would let superscripts through, which int() refuses.
    if not (token.isascii() and token.isdigit()):
        raise InvalidOption(f'option "{key}" must be an object of token ids and numbers')
    if len(token) > 10 or int(token) not in _INT32:
        raise InvalidOption(f'option "{key}" is out of range: {token[:40]}', status=400)
    return int(token), _float(key, bias)


def merge_options(*layers: Mapping[str, object]) -> dict[str, OptionValue]:
    """Merge option layers, later ones winning; each is checked as `coerce_options` does."""
    merged: dict[str, OptionValue] = {}
    for layer in layers:
        merged.update(coerce_options(layer))
    return merged


def sampling(options: Mapping[str, OptionValue], *, n_logprobs: int = -1) -> Sampling:
    """Pick the request-time options out of merged ones."""
    fields: dict[str, object] = {
        _SAMPLING_FIELD.get(key, key): value
        for key, value in options.items()
        if key not in _LOAD_KEYS and key != "adapters"
    }
    return msgspec.convert({**fields, "n_logprobs": n_logprobs}, Sampling)


def adapters(options: Mapping[str, OptionValue]) -> tuple[AdapterChoice, ...] | None:
    """Pick the adapters that are to act out of merged options; None when nobody says."""
    found = options.get("adapters")
    if not isinstance(found, tuple):
        return None
    return tuple(item for item in found if isinstance(item, AdapterChoice))


def load_options(options: Mapping[str, OptionValue]) -> LoadOptions:
    """Pick the load-time options out of merged ones; `num_gpu` -1 and `num_thread` 0 mean "the runner chooses".

    Raises:
        InvalidOption: a number that no engine takes. Found here it costs nobody a reload.
    """
    for key, allowed in _LOAD_RANGES.items():
        value = options.get(key)
        if isinstance(value, int) and value not in allowed:
            raise InvalidOption(f'option "{key}" is out of range: {value}', status=400)

    def integer(key: str, unset: int | None = None) -> int | None:
        value = options.get(key)
        return int(value) if isinstance(value, int) and value != unset else None

    mmap = options.get("use_mmap")
    return LoadOptions(
        n_ctx=integer("num_ctx", 0),
        n_batch=integer("num_batch", 0),
        n_gpu_layers=integer("num_gpu", -1),
        main_gpu=integer("main_gpu"),
        use_mmap=mmap if isinstance(mmap, bool) else None,
        n_threads=integer("num_thread", 0),
        draft_n_predict=integer("draft_num_predict"),
    )
