"""Writes the generated conformance cases: random templates from a seed, over the data named `tree` and `chat`.

Run it as `python tests/template/make_cases.py`; it writes `cases/generated.json`. Then run the Go program for the goldens
(see `test_conformance.py`). The templates mix constructs that the hand-written cases try one by one; about a tenth of the
expressions are wrong on purpose.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

SEED: Final = 20260828
N_CASES: Final = 300
TARGET: Final = Path(__file__).parent / "cases" / "generated.json"

_STRINGS: Final = (
    ".Name",
    ".Empty",
    ".Accents",
    ".Lines",
    '"lit"',
    "`raw\\n`",
    '"a\\tb"',
    ".Deep.A.B.C",
    "(index .Words 1)",
    "$.Name",
)
_NUMBERS: Final = (
    "1",
    "0",
    "-7",
    ".Int",
    ".Small",
    "(len .Words)",
    "(len .Name)",
    "0x1f",
    "'a'",
    "$.Int",
)
_FLOATS: Final = (".Age", ".Pi", ".Half", ".Zero", "2.5", "1e3", ".Minus")
_LISTS: Final = (
    ".List",
    ".Words",
    ".Numbers",
    ".None",
    ".Nested",
    "(slice .Words 1)",
    "(slice .List 1 3)",
    "$.Words",
)
_MAPS: Final = (".Map", ".NoMap", ".Deep", ".Deep.A", "$.Map")
_ODD: Final = (
    ".Null",
    ".Missing",
    "nil",
    ".Missing.X",
    ".Name.X",
    "(index .Words 9)",
    ".Reading",
    ".Said",
    "(len 3)",
    ".Bag",
)
_VERBS: Final = (
    "%v",
    "%d",
    "%s",
    "%q",
    "%5v",
    "%-5v|",
    "%05d",
    "%x",
    "%t",
    "%.2f",
    "%T",
    "%+v",
    "%#v",
    "%8.3f",
    "%e",
    "%g",
    "%c",
    "%[1]v",
    "%%",
)
_FULL_LISTS: Final = (
    ".List",
    ".Words",
    ".Numbers",
    ".Nested",
    "(slice .Words 1)",
    ".Name",
    ".Strings",
)
_STAGES: Final = (
    "print",
    "html",
    "js",
    "urlquery",
    'printf "%v"',
    'printf "%q"',
    "not",
    "json",
    "print 1",
    "printf `%s`",
    "len",
)
_FIELD: Final = re.compile(r"(?<![\w$\"`.])\.(?=[A-Z])")
_TEXTS: Final = ("a", " ", "\n", " b\n", "\t", "é", "<|im|>", "\n\n  ", "x y", "}", "{ ", "")


class Generator:
    """Makes one template. The variables that are in scope are kept, so that most templates are right."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._variables: list[str] = []
        self._loops = 0
        self._moved = 0
        self._n_templates = 0
        self._definitions: list[str] = []

    def template(self) -> str:
        """Make a whole template, with what it defines at its end."""
        body = self._body(2)
        return body + "".join(self._definitions)

    def _pick(self, items: Sequence[str]) -> str:
        return self._rng.choice(items)

    def _value(self, *groups: Sequence[str]) -> str:
        # Where the cursor has moved, fields are mostly taken from the root.
        value = self._pick(self._rng.choice(groups))
        if self._moved and self._rng.random() < 0.95:
            return _FIELD.sub("$.", value)
        return value

    def _body(self, depth: int) -> str:
        n_variables = len(self._variables)
        pieces = [self._piece(depth) for _ in range(self._rng.randint(1, 4))]
        del self._variables[n_variables:]
        return "".join(pieces)

    def _piece(self, depth: int) -> str:
        kinds: list[Callable[[int], str]] = [self._text, self._print, self._print, self._set]
        if depth:
            kinds += [self._if, self._range, self._with, self._range, self._if]
        if depth == 2:
            kinds.append(self._invoke)
        if self._loops:
            kinds.append(self._jump)
        return self._rng.choice(kinds)(depth)

    def _action(self, inside: str) -> str:
        left = "{{- " if self._rng.random() < 0.25 else "{{"
        right = " -}}" if self._rng.random() < 0.25 else "}}"
        comment = "{{/* note */}}" if self._rng.random() < 0.05 else ""
        return f"{left}{inside}{right}{comment}"

    def _text(self, _depth: int) -> str:
        return self._pick(_TEXTS)

    def _print(self, _depth: int) -> str:
        return self._action(self._pipeline())

    def _set(self, _depth: int) -> str:
        if self._variables and self._rng.random() < 0.5:
            # Never from itself: a text that doubles in a loop would fill the memory of the Go program.
            value = self._value(_STRINGS, _NUMBERS, _LISTS)
            return self._action(f"{self._pick(self._variables)} = {value}")
        value = self._pipeline()
        name = f"${self._pick('xyzw')}"
        self._variables.append(name)
        return self._action(f"{name} := {value}")

    def _if(self, depth: int) -> str:
        text = self._action(f"if {self._pipeline()}") + self._body(depth - 1)
        while self._rng.random() < 0.25:
            text += self._action(f"else if {self._condition()}") + self._body(depth - 1)
        if self._rng.random() < 0.5:
            text += self._action("else") + self._body(depth - 1)
        return text + self._action("end")

    def _with(self, depth: int) -> str:
        value = self._value((*_MAPS, "$", ".Deep", ".", "(index .Nested 0)", ".Name"))
        self._moved += 1
        text = self._action(f"with {value}") + self._body(depth - 1)
        self._moved -= 1
        if self._rng.random() < 0.5:
            text += self._action("else") + self._body(depth - 1)
        return text + self._action("end")

    def _range(self, depth: int) -> str:
        n_variables = len(self._variables)
        value = self._value((*_LISTS, *_LISTS, *_MAPS, "3", ".Missing"))
        names = self._pick(("", "", "$i, $e := ", "$e := "))
        self._variables += [name for name in ("$i", "$e") if name in names]
        self._loops += 1
        self._moved += 1
        text = self._action(f"range {names}{value}") + self._body(depth - 1)
        self._loops -= 1
        self._moved -= 1
        if self._rng.random() < 0.3:
            text += self._action("else") + self._body(depth - 1)
        del self._variables[n_variables:]
        return text + self._action("end")

    def _jump(self, _depth: int) -> str:
        return (
            self._action(f"if {self._condition()}")
            + self._action(self._pick(("break", "continue")))
            + "{{end}}"
        )

    def _invoke(self, _depth: int) -> str:
        name = f"t{self._n_templates}"
        self._n_templates += 1
        outer, self._variables, loops, self._loops = self._variables, [], self._loops, 0
        body = self._body(1)
        self._variables, self._loops = outer, loops
        if self._rng.random() < 0.3:
            return self._action(f'block "{name}" {self._root()}') + body + "{{end}}"
        self._definitions.append(f'{{{{define "{name}"}}}}{body}{{{{end}}}}')
        return self._action(f'template "{name}" {self._root()}')

    def _root(self) -> str:
        return "$" if self._rng.random() < 0.9 else self._argument()

    def _argument(self) -> str:
        roll = self._rng.random()
        if self._variables and roll < 0.25:
            return self._pick(self._variables)
        if roll < 0.27:
            return "."
        if roll < 0.30:
            return self._value(_ODD)
        return self._value(_STRINGS, _STRINGS, _NUMBERS, _FLOATS, _LISTS, _MAPS)

    def _condition(self) -> str:
        roll = self._rng.random()
        if roll < 0.3:
            return f"{self._pick(('eq', 'ne'))} {self._value(_STRINGS)} {self._value(_STRINGS)}"
        if roll < 0.6:
            return f"{self._pick(('lt', 'le', 'gt', 'ge', 'eq'))} {self._value(_NUMBERS)} {self._value(_NUMBERS)}"
        if roll < 0.8:
            return f"{self._pick(('and', 'or'))} ({self._condition()}) {self._argument()}"
        return f"not {self._argument()}"

    def _pipeline(self) -> str:
        text = self._command()
        while self._rng.random() < 0.2:
            text += f" | {self._pick(_STAGES)}"
        return text

    def _command(self) -> str:
        roll = self._rng.random()
        if roll < 0.35:
            return self._argument()
        if roll < 0.5:
            return self._printf()
        if roll < 0.6:
            return self._condition()
        if roll < 0.65:
            return f"index {self._value(_FULL_LISTS)} {self._pick(('0', '1'))}"
        if roll < 0.68:
            return f"index {self._value(_MAPS)} {self._value(_STRINGS)}"
        if roll < 0.75:
            return f"slice {self._value(_FULL_LISTS)} {self._pick(('0', '1', '1 2', '0 2', '', '0 9'))}"
        name = self._pick(("print", "println", "html", "js", "urlquery", "json", "not", "len"))
        if name == "len":
            return f"len {self._value(_STRINGS, _LISTS, _MAPS)}"
        n_args = self._rng.randint(1, 3) if name.startswith("print") else 1
        return " ".join((name, *(self._argument() for _ in range(n_args))))

    def _printf(self) -> str:
        verbs = [self._pick(_VERBS) for _ in range(self._rng.randint(1, 3))]
        args = [self._argument() for _ in range(max(0, len(verbs) + self._pick_offset()))]
        return f'printf "{" ".join(verbs)}" {" ".join(args)}'.rstrip()

    def _pick_offset(self) -> int:
        return self._rng.choice((0, 0, 0, 0, 1, -1))


def make_cases(seed: int, n_cases: int) -> list[list[str]]:
    """Make cases as the files hold them: template, name of the data, missingkey option."""
    rng = random.Random(seed)
    options = ("zero", "zero", "default", "error")
    return [[Generator(rng).template(), "tree", rng.choice(options)] for _ in range(n_cases)]


def main() -> None:
    """Write the file."""
    lines = (json.dumps(case, ensure_ascii=False) for case in make_cases(SEED, N_CASES))
    TARGET.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
