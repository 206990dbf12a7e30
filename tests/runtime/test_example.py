"""The example runs, and the runtime imports nothing it should not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

EXPECTED = """\
words: 8
  the: 3
  and: 2
  cat: 1
answered with an error: there is no word in this text
told about the crash: actor example/counter crashed: ZeroDivisionError: a bug
and it is back, with a new state
words: 3
in its own process: True
example (running)
  counter (running, 1 restarts)
  apart (running)
"""


@pytest.mark.slow
def test_the_example_says_what_it_should() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "actors_alone.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.stderr == ""
    assert done.stdout == EXPECTED


@pytest.mark.slow
def test_the_runtime_imports_nothing_of_olm_but_errors() -> None:
    code = "import sys, olm.actors.runtime.process._peer; print(*sorted(m for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = done.stdout.split()
    ours = {name for name in modules if name.split(".")[0] == "olm"}
    allowed = {"olm", "olm.errors", "olm.actors"}
    assert {name for name in ours if not name.startswith("olm.actors.runtime")} == allowed
    for heavy in ("numpy", "click", "quart", "hypercorn", "cffi", "asyncio", "multiprocessing"):
        assert heavy not in modules
