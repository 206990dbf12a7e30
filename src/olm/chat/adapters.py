"""The option `adapters`: which of a model's LoRA adapters act on a request, and how much. Pure.

An item is an object, `{"name": "poet", "scale": 0.5}` or `{"id": 0, "scale": 0.5}`, or the same as text, `poet=0.5`, as
Modelfiles write it. What a list leaves out is off. llama-server's `lora`, `[{"id": 0, "scale": 0.5}]`, means the same
(tools/server/README.md, tree of `native/ggml/UPSTREAM.toml`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from olm.errors import InvalidOption

__all__ = ["AdapterChoice", "adapter_scales", "adapter_text", "read_adapters"]

_FORM: Final = 'option "{}" must be an array of objects with "name" or "id", and "scale"'
_MAX_ITEMS: Final = 1024
_MAX_SCALE: Final = 1e6  # more is a slip; f32 goes on for long, but what it computes is noise


class AdapterChoice(msgspec.Struct, frozen=True, omit_defaults=True):
    """One adapter, by its name or by its place among the model's (`id`, from 0; -1: by name)."""

    name: str = ""
    id: int = -1
    scale: float = 1.0


def read_adapters(value: object, option: str = "adapters") -> tuple[AdapterChoice, ...]:
    """Check a list of adapters as it came from JSON.

    Raises:
        InvalidOption: it has another form, or a scale that is no finite number.
    """
    if not isinstance(value, list | tuple) or len(value) > _MAX_ITEMS:
        raise InvalidOption(_FORM.format(option))
    return tuple(_read_item(item, option) for item in value)


def _read_item(item: object, option: str) -> AdapterChoice:
    if isinstance(item, AdapterChoice):
        return item
    if isinstance(item, str):
        item = _of_text(item)
    if not isinstance(item, Mapping):
        raise InvalidOption(_FORM.format(option))
    name, number, scale = item.get("name"), item.get("id"), item.get("scale")
    scale = 1.0 if scale is None else scale
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale):
        raise InvalidOption(_FORM.format(option))
    if abs(scale) > _MAX_SCALE:
        raise InvalidOption(f'option "{option}" is out of range: {scale}', status=400)
    if isinstance(name, str) and name and number is None:
        return AdapterChoice(name=name, scale=float(scale))
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if name is None and isinstance(number, int) and not isinstance(number, bool) and number >= 0:
        return AdapterChoice(id=number, scale=float(scale))
    raise InvalidOption(_FORM.format(option))


def _of_text(text: str) -> Mapping[str, object]:
    """The object that `poet=0.5` or `poet` stands for; a scale that is no number becomes none."""
    name, is_scaled, scale = text.rpartition("=")
    name, scale = (name.strip(), scale) if is_scaled else (text.strip(), "1")
    try:
        value = float(scale)
    except ValueError:
        value = math.nan
    return {"id": int(name), "scale": value} if _is_id(name) else {"name": name, "scale": value}


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(_MAX_ITEMS))


def adapter_text(item: object) -> str:
    """Write an item as a Modelfile does, `poet=0.5`. Raises InvalidOption for what is none."""
    choice = _read_item(item, "adapters")
    return f"{choice.name or choice.id}={choice.scale:g}"


def adapter_scales(
    choices: Sequence[AdapterChoice] | None, names: Sequence[str]
) -> tuple[float, ...]:
    """The scale of each of a model's adapters.

    Args:
        choices: what the request or the Modelfile wants; None when neither says anything: all act fully.
        names: the model's adapters in order; "" for one without a name.

    Raises:
        InvalidOption: there is no such adapter, or one is named twice.
    """
    if choices is None:
        return (1.0,) * len(names)
    scales: dict[int, float] = {}
    for choice in choices:
        place = _place(choice, names)
        if place in scales:
            raise InvalidOption(f"adapter {_called(choice)} is named twice", status=400)
        scales[place] = choice.scale
    return tuple(scales.get(place, 0.0) for place in range(len(names)))


def _place(choice: AdapterChoice, names: Sequence[str]) -> int:
    if choice.name in names and choice.name:
        return names.index(choice.name)
    if choice.name and _is_id(choice.name):  # a name of digits, as text it counts as an id
        choice = AdapterChoice(id=int(choice.name), scale=choice.scale)
    if not choice.name and choice.id < len(names):
        return choice.id
    known = ", ".join(name or str(place) for place, name in enumerate(names))
    there = f"it has {known}" if names else "it has no adapters"
    raise InvalidOption(f"this model has no adapter {_called(choice)}: {there}", status=400)


def _called(choice: AdapterChoice) -> str:
    return repr(choice.name) if choice.name else str(choice.id)
