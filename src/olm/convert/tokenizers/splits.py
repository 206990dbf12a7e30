"""How a pre-tokenizer cuts text: tokenizer.json's `pre_tokenizer` as plain steps, and the steps at work on a text.

Which of them llama.cpp knows is `recognize`'s business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from olm.convert.hparams import Hparams
from olm.convert.tokenizers.files import table
from olm.convert.tokenizers.patterns import Budget, PatternError, compile_pattern, quoted
from olm.errors import CheckpointError

__all__ = ["GPT2_PATTERN", "Step", "UnknownSplitError", "split", "steps_of"]

GPT2_PATTERN: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What `ByteLevel` splits by (tokenizers, pre_tokenizers/byte_level.rs)."""

_PUNCTUATION: Final = r"[\p{P}!-/:-@\[-`{-~]"  # tokenizers: Unicode's, and all of ASCII's

_BEHAVIORS: Final = ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous")
_MAX_STEPS: Final = 50

_Span = tuple[int, int]


class UnknownSplitError(Exception):
    """A pre-tokenizer does what no steps can say. Says what."""


@attrs.frozen
class Step:
    """One cut: where the pattern matches, and what becomes of the matches.

    Attributes:
        behavior: `Isolated`, `Removed`, `MergedWithPrevious`, `MergedWithNext` or `Contiguous`, as tokenizers has them.
        invert: what does not match is what the pattern means.
    """

    pattern: str
    behavior: str = "Isolated"
    invert: bool = False


def steps_of(pre_tokenizer: object, where: str = "tokenizer.json: pre_tokenizer") -> Sequence[Step]:
    """A pre-tokenizer of tokenizer.json as steps; none for null.

    Raises:
        CheckpointError: it is damaged.
        UnknownSplitError: it has a part that is no cut at a pattern.
    """
    found: list[Step] = []
    waiting = [table(pre_tokenizer, where)]
    while waiting:
        part = waiting.pop(0)
        several = part.get("pretokenizers")
        if isinstance(several, list):
            waiting = [table(entry, where) for entry in several] + waiting
        elif part.values:
            found += _steps_of_part(part)
        if len(found) + len(waiting) > _MAX_STEPS:
            raise CheckpointError(f"{where}: more than {_MAX_STEPS} parts")
    return tuple(found)


def _steps_of_part(part: Hparams) -> Iterator[Step]:
    match part.get("type"):
        case "ByteLevel":
            if part.flag("use_regex", default=True):
                yield Step(GPT2_PATTERN)
        case "Digits":
            yield Step(r"\p{N}" if part.flag("individual_digits") else r"\p{N}+")
        case "Punctuation":
            yield Step(_PUNCTUATION, _behavior(part))
        case "Split":
            yield Step(_pattern(part), _behavior(part), part.flag("invert"))
        case "Whitespace":
            yield Step(r"\w+|[^\w\s]+", "Removed", invert=True)
        case "WhitespaceSplit":
            yield Step(r"\s", "Removed")
        case kind:
            raise UnknownSplitError(f"the part {kind!r}")


def _behavior(part: Hparams) -> str:
    behavior = part.text("behavior", default="Isolated")
    if behavior not in _BEHAVIORS:
        raise CheckpointError(f"{part.where}: unknown behavior {behavior[:40]!r}")
    return behavior


def _pattern(part: Hparams) -> str:
    pattern = part.get("pattern")
    if isinstance(pattern, Mapping):
        pattern = table(pattern, part.where)
        if "Regex" in pattern:
            return pattern.text("Regex")
        return quoted(pattern.text("String"))
    return quoted(part.text("pattern"))


def split(text: str, steps: Sequence[Step]) -> Sequence[_Span]:
    """Cut a text. Each step sees the pieces of the one before alone, as tokenizers and llama.cpp have it.

    Returns:
        Spans of the pieces, none of them empty.

    Raises:
        UnknownSplitError: a pattern cannot be read, or takes too long.
    """
    spans: Sequence[_Span] = [(0, len(text))]
    budget = Budget()
    for step in steps:
        try:
            pattern = compile_pattern(step.pattern)
            spans = [
                (start + first, start + last)
                for start, end in spans
                for first, last in _cut(
                    text[start:end], pattern.find_all(text[start:end], budget), step
                )
                if first < last
            ]
        except PatternError as exc:
            raise UnknownSplitError(f"the expression {step.pattern[:80]!r}, which {exc}") from exc
    return spans


def _cut(text: str, matches: Iterator[_Span], step: Step) -> Iterator[_Span]:
    """Pieces of one text after one step (the rules of `NormalizedString::split` in tokenizers)."""
    pieces: list[tuple[_Span, bool]] = []
    at = 0
    for start, end in matches:
        if start > at:
            pieces.append(((at, start), step.invert))
        pieces.append(((start, end), not step.invert))
        at = end
    if at < len(text):
        pieces.append(((at, len(text)), step.invert))
    match step.behavior:
        case "Removed":
            yield from (span for span, is_match in pieces if not is_match)
        case "MergedWithPrevious":
            yield from _merged(pieces)
        case "MergedWithNext":
            # The same from the other end, in mirrored positions.
            mirrored = [((-end, -start), m) for (start, end), m in reversed(pieces)]
            yield from reversed([(-end, -start) for start, end in _merged(mirrored)])
        case "Contiguous":
            yield from _joined(pieces)
        case _:
            yield from (span for span, _ in pieces)


def _merged(pieces: Sequence[tuple[_Span, bool]]) -> Sequence[_Span]:
    """A match goes to the piece before it, unless that is a match too."""
    found: list[_Span] = []
    was_match = False
    for span, is_match in pieces:
        if is_match and not was_match and found:
            found[-1] = (found[-1][0], span[1])
        else:
            found.append(span)
        was_match = is_match
    return found


def _joined(pieces: Sequence[tuple[_Span, bool]]) -> Sequence[_Span]:
    """Neighbours of one kind become one."""
    found: list[_Span] = []
    previous: bool | None = None
    for span, is_match in pieces:
        if found and is_match == previous:
            found[-1] = (found[-1][0], span[1])
        else:
            found.append(span)
        previous = is_match
    return found
