"""JSON out of checkpoints, with its cost bounded before it is parsed: configurations, tokenizers, indexes, headers.

What the values mean is not known here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final, NoReturn

from olm.errors import CheckpointError

__all__ = ["parse_json"]

_MARKS: Final = (b"{", b"[", b",")
_MAX_MARKS: Final = 8 << 20
"""Every value but the first follows one of these marks. A tokenizer of 262,000 pieces and 515,000 merges written as
pairs has 2 M, a header of 100,000 tensors 0.8 M. As empty lists, the largest file that passes takes some 0.5 GiB."""


class _Refused(ValueError):
    """Stops the parser; its text goes to the user."""


def parse_json(data: bytes, what: str, *, strict: bool = False) -> object:
    """Parse JSON in UTF-8, with or without BOM.

    Args:
        data: the whole text; the caller has bounded its size.
        what: how to call it in messages, like `config.json`.
        strict: refuse what Python lets pass: NaN and infinities, and names that appear twice in an object.

    Raises:
        CheckpointError: not JSON, nested too deep, or of too many values.
    """
    if sum(data.count(mark) for mark in _MARKS) > _MAX_MARKS:
        raise CheckpointError(f"{what}: has more than {_MAX_MARKS} values")
    try:
        text = data.decode("utf-8-sig")
        if strict:
            return json.loads(text, object_pairs_hook=_unique, parse_constant=_not_a_number)
        return json.loads(text)
    except UnicodeDecodeError as exc:
        raise CheckpointError(f"{what}: is not text in UTF-8") from exc
    except RecursionError as exc:
        raise CheckpointError(f"{what}: is nested too deep") from exc
    except ValueError as exc:  # JSONDecodeError, ours, and integers of thousands of digits
        raise CheckpointError(f"{what}: is not valid JSON: {exc}") from exc


def _unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise _Refused(f"the name {name[:200]!r} appears twice")
        seen.add(name)
    raise AssertionError("fewer names than pairs, so one is there twice")


def _not_a_number(literal: str) -> NoReturn:
    raise _Refused(f"{literal} is not a number")
