"""Our templates against Go's own: every case gives the text, or the error to the letter, that text/template gave.

The goldens come from `go/main.go`. To make them anew after a change of the cases or the data, with Go 1.26:

    go build -C tests/template/go -o /tmp/cases .
    /tmp/cases tests/template/data.json tests/template/cases/*.json > tests/template/goldens.json
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from template.conformance_kit import (
    CASES,
    DATA,
    GOLDENS,
    HERE,
    Result,
    load_cases,
    load_data,
    run_case,
)
from template.make_cases import N_CASES, SEED, make_cases

LEAST_CASES: Final = 300
GO: Final = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")

_MARKED: Final = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem == "generated" else [])
    for path in CASES
]


def _goldens() -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = json.loads(GOLDENS.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("path", _MARKED)
def test_templates_give_what_go_gives(path: Path) -> None:
    data = load_data()
    cases = load_cases(path)

    results = [run_case(case, data) for case in cases]

    wanted = _goldens()[path.stem]
    wrong = [
        f"{case}\n  wanted {want}\n  got    {got}"
        for case, want, got in zip(cases, wanted, results, strict=True)
        if want != got
    ]
    assert not wrong, "\n".join(wrong[:10])


def test_there_are_enough_cases_and_most_of_them_render() -> None:
    results = [result for file in _goldens().values() for result in file]

    rendered = [result for result in results if isinstance(result, str)]
    assert len(results) >= LEAST_CASES
    assert len(rendered) > len(results) / 2


def test_generated_cases_are_those_of_the_seed() -> None:
    committed = load_cases(HERE / "cases" / "generated.json")

    assert make_cases(SEED, N_CASES) == committed


@pytest.mark.slow
@pytest.mark.skipif(GO is None, reason="needs a Go toolchain")
def test_goldens_are_what_go_gives_today(tmp_path: Path) -> None:
    assert GO is not None
    program = tmp_path / "cases"
    subprocess.run([GO, "build", "-C", str(HERE / "go"), "-o", str(program), "."], check=True)

    run = subprocess.run([program, DATA, *CASES], check=True, capture_output=True)

    assert json.loads(run.stdout) == _goldens()
