"""The tree inside somebody else's nursery: the example that the README shows, run as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.native, pytest.mark.slow]

EXAMPLE = Path(__file__).parents[2] / "examples" / "embed_in_trio.py"


def test_the_example_streams_a_chat_without_a_daemon(tmp_path: Path) -> None:
    """It opens a store of its own, answers, and ends by itself."""
    env = {**os.environ, "OLM_HOME": str(tmp_path), "OLM_MODELS": ""}

    result = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        capture_output=True,
        text=True,
        env=env,
        timeout=60,
        check=False,
    )

    assert (result.returncode, "Hello!" in result.stdout) == (0, True), result.stderr
