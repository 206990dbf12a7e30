"""Regular expressions of pre-tokenizers: parsed, and matched with a bound on the work.

The dialect is Oniguruma's Ruby syntax, which the `tokenizers` library uses, as far as pre-tokenizers go: Unicode properties, nested
classes and `&&`, look-around, lazy and possessive quantifiers, `(?i:…)`. Python's `re` has no properties, and a hostile expression
can keep any backtracking matcher busy for years, so this one counts its steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import attrs

from olm.convert.tokenizers.char_classes import (
    WORD,
    CharSet,
    PatternError,
    Reader,
    escaped_set,
    read_class,
)

__all__ = ["Budget", "Pattern", "PatternError", "compile_pattern", "quoted"]

_MAX_CHARS: Final = 4096  # the longest of a known model has 900
_MAX_STEPS: Final = (
    150_000  # a fifth of a second; known pre-tokenizers need up to 30,000 for our text
)
_MAX_DEPTH: Final = 50
_FOREVER: Final = 1 << 30

_Matcher = Callable[["_Run", int], Iterator[int]]
"""Gives the ends of its matches from a position, the preferred one first."""


class Budget:
    """Steps that are left; one for all that is done for one stranger's file."""

    def __init__(self, n_steps: int = _MAX_STEPS) -> None:
        self._left = n_steps

    def step(self) -> None:
        """Count one. Raises PatternError when none is left."""
        self._left -= 1
        if self._left < 0:
            raise PatternError("takes too long")


@attrs.frozen
class _Run:
    """One search."""

    text: str
    budget: Budget

    def step(self) -> None:
        self.budget.step()


@attrs.frozen
class Pattern:
    """A compiled expression."""

    _matcher: _Matcher

    def find_all(self, text: str, budget: Budget) -> Iterator[tuple[int, int]]:
        """Spans of the matches from left to right; empty ones too, but none right behind another match.

        Raises:
            PatternError: it takes too many steps.
        """
        run, at = _Run(text, budget), 0
        try:
            while at <= len(text):
                end = next(self._matcher(run, at), None)
                if end is None:
                    at += 1
                else:
                    yield at, end
                    at = end if end > at else at + 1
        except RecursionError as exc:
            raise PatternError("is nested too deep") from exc


def compile_pattern(source: str) -> Pattern:
    """Compile an expression.

    Raises:
        PatternError: it is damaged, or uses what no known pre-tokenizer does.
    """
    if len(source) > _MAX_CHARS:
        raise PatternError(f"has more than {_MAX_CHARS} characters")
    reader = Reader(source)
    matcher = _Parser(reader).alternatives(ignore_case=False, depth=0)
    if reader.more:
        raise PatternError(f"has an unmatched {reader.peek()!r}")
    return Pattern(matcher)


def quoted(text: str) -> str:
    """An expression that matches just this text."""
    return "".join(char if char.isalnum() or char.isspace() else f"\\{char}" for char in text)


class _Parser:
    """Recursive descent over an expression; each method gives a matcher for what it read."""

    def __init__(self, reader: Reader) -> None:
        self._in = reader

    def alternatives(self, *, ignore_case: bool, depth: int) -> _Matcher:
        if depth > _MAX_DEPTH:
            raise PatternError("is nested too deep")
        branches = [self._sequence(ignore_case=ignore_case, depth=depth)]
        while self._in.take("|"):
            branches.append(self._sequence(ignore_case=ignore_case, depth=depth))
        return branches[0] if len(branches) == 1 else _either(branches)

    def _sequence(self, *, ignore_case: bool, depth: int) -> _Matcher:
        parts: list[_Matcher] = []
        while self._in.more and self._in.peek() not in "|)":
            if self._in.take("(?i)"):
                ignore_case = True
                continue
            parts.append(self._quantified(ignore_case=ignore_case, depth=depth))
        return _all_of(parts)

    def _quantified(self, *, ignore_case: bool, depth: int) -> _Matcher:
        item = self._item(ignore_case=ignore_case, depth=depth)
        while True:
            bounds = self._bounds()
            if bounds is None:
                return item if not isinstance(item, CharSet) else _one(item)
            low, high = bounds
            mode = "lazy" if self._in.take("?") else "greedy"
            if mode == "greedy" and self._in.take("+"):
                mode = "possessive"
            item = _repeat(item, low, high, mode)

    def _bounds(self) -> tuple[int, int] | None:
        for mark, bounds in (("?", (0, 1)), ("*", (0, _FOREVER)), ("+", (1, _FOREVER))):
            if self._in.take(mark):
                return bounds
        return self._in.braces(_FOREVER)

    def _item(self, *, ignore_case: bool, depth: int) -> _Matcher | CharSet:
        if self._in.take("("):
            return self._group(ignore_case=ignore_case, depth=depth + 1)
        if self._in.take("["):
            return read_class(self._in).case_folded(ignore_case)
        for mark, assertion in _ASSERTIONS.items():
            if self._in.take(mark):
                return assertion
        if self._in.take("."):
            return CharSet(lambda char: char != "\n")
        if self._in.take("\\"):
            return escaped_set(self._in).case_folded(ignore_case)
        char = self._in.next()
        if char in "*+?":
            raise PatternError(f"has {char!r} with nothing to repeat")
        return CharSet(char.__eq__).case_folded(ignore_case)

    def _group(self, *, ignore_case: bool, depth: int) -> _Matcher:
        wrap: Callable[[_Matcher], _Matcher] = _as_is
        for mark, wrapper in _GROUPS.items():
            if self._in.take(mark):
                wrap = wrapper
                ignore_case = ignore_case or mark == "?i:"
                break
        else:
            if self._in.peek() == "?":
                raise PatternError(f"has an unknown group {self._in.rest(4)!r}")
        inner = self.alternatives(ignore_case=ignore_case, depth=depth)
        if not self._in.take(")"):
            raise PatternError("lacks a closing parenthesis")
        return wrap(inner)


# -- matchers ------------------------------------------------------------------------------------------------------------


def _one(wanted: CharSet) -> _Matcher:
    def match(run: _Run, at: int) -> Iterator[int]:
        run.step()
        if at < len(run.text) and run.text[at] in wanted:
            yield at + 1

    return match


def _either(branches: list[_Matcher]) -> _Matcher:
    def match(run: _Run, at: int) -> Iterator[int]:
        for branch in branches:
            yield from branch(run, at)

    return match


def _all_of(parts: list[_Matcher]) -> _Matcher:
    if len(parts) == 1:
        return parts[0]

    def match_from(run: _Run, at: int, index: int) -> Iterator[int]:
        run.step()
        if index == len(parts):
            yield at
            return
        for end in parts[index](run, at):
            yield from match_from(run, end, index + 1)

    return lambda run, at: match_from(run, at, 0)


def _repeat(item: _Matcher | CharSet, low: int, high: int, mode: str) -> _Matcher:
    if mode == "possessive":
        return _atomic(_repeat(item, low, high, "greedy"))
    if isinstance(item, CharSet):
        return _run_of(item, low, high, mode)
    return _rounds(item, low, high, mode)


def _run_of(wanted: CharSet, low: int, high: int, mode: str) -> _Matcher:
    """Repetition of single characters, without recursion."""

    def match(run: _Run, at: int) -> Iterator[int]:
        text, end = run.text, at
        last = min(len(text), at + high)
        while end < last and text[end] in wanted:
            run.step()
            end += 1
        run.step()
        ends = range(at + low, end + 1)
        yield from ends if mode == "lazy" else reversed(ends)

    return match


def _rounds(item: _Matcher, low: int, high: int, mode: str) -> _Matcher:
    def match(run: _Run, at: int, count: int = 0) -> Iterator[int]:
        run.step()
        if mode == "lazy" and count >= low:
            yield at
        if count < high:
            for end in item(run, at):
                if end > at or count < low:  # an empty round could go on for ever
                    yield from match(run, end, count + 1)
        if mode == "greedy" and count >= low:
            yield at

    return match


def _as_is(inner: _Matcher) -> _Matcher:
    return inner


def _atomic(inner: _Matcher) -> _Matcher:
    def match(run: _Run, at: int) -> Iterator[int]:
        end = next(inner(run, at), None)
        if end is not None:
            yield end

    return match


def _ahead(inner: _Matcher, *, wanted: bool) -> _Matcher:
    def match(run: _Run, at: int) -> Iterator[int]:
        if (next(inner(run, at), None) is not None) == wanted:
            yield at

    return match


def _behind(inner: _Matcher, *, wanted: bool) -> _Matcher:
    def match(run: _Run, at: int) -> Iterator[int]:
        found = any(at in inner(run, start) for start in range(at, -1, -1))
        if found == wanted:
            yield at

    return match


_GROUPS: Final[dict[str, Callable[[_Matcher], _Matcher]]] = {
    "?:": _as_is,
    "?i:": _as_is,
    "?>": _atomic,
    "?=": lambda inner: _ahead(inner, wanted=True),
    "?!": lambda inner: _ahead(inner, wanted=False),
    "?<=": lambda inner: _behind(inner, wanted=True),
    "?<!": lambda inner: _behind(inner, wanted=False),
}


def _is_word(text: str, at: int) -> bool:
    return 0 <= at < len(text) and text[at] in WORD


def _where(test: Callable[[str, int], bool]) -> _Matcher:
    def match(run: _Run, at: int) -> Iterator[int]:
        if test(run.text, at):
            yield at

    return match


_ASSERTIONS: Final[dict[str, _Matcher]] = {
    "^": _where(lambda text, at: at == 0 or text[at - 1] == "\n"),
    "$": _where(lambda text, at: at == len(text) or text[at] == "\n"),
    r"\b": _where(lambda text, at: _is_word(text, at) != _is_word(text, at - 1)),
    r"\B": _where(lambda text, at: _is_word(text, at) == _is_word(text, at - 1)),
    r"\A": _where(lambda text, at: at == 0),
    r"\z": _where(lambda text, at: at == len(text)),
    r"\Z": _where(lambda text, at: text[at:] in ("", "\n")),
}
"""Assertions; `^` and `$` are those of lines, as Ruby has them."""
