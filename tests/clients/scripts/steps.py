"""What the scripts of this folder share: run each step, print one JSON object, `{step: {"value": …} | {"error": …}}`.

A script drives one client package, unchanged, against the server of $OLLAMA_HOST (with `/v1`: $OPENAI_BASE_URL). It
prints what it was given; ../test_packages.py says what that has to be. This is the only file of ours the scripts import:
they run in an environment that has no olm.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["QUESTION", "WEATHER", "failure", "get_weather", "run_steps"]

QUESTION = "What is your name?"
WEATHER = "What is the weather in Paris?"


def get_weather(location: str) -> str:
    """Get the weather for a city.

    Args:
        location: The city
    """
    return f"22 degrees and sunny in {location}"


@contextmanager
def failure(into: dict[str, Any]) -> Iterator[None]:
    """Expect the block to raise, and note the class and the words of what it raised."""
    try:
        yield
    except Exception as exc:
        into |= {"class": type(exc).__name__, "text": str(exc)}


def run_steps(steps: Mapping[str, Callable[[], object]]) -> None:
    """Run every step, whatever becomes of the others, and print the results as one line of JSON."""
    results: dict[str, object] = {}
    for name, step in steps.items():
        try:
            results[name] = {"value": step()}
        except Exception:
            results[name] = {"error": traceback.format_exc()}
    # The last line: some clients print words of their own before it.
    sys.stdout.write("\n" + json.dumps(results) + "\n")
