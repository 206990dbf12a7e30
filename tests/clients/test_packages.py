"""Client packages that the development environment does not have, each unchanged, against a real daemon.

`make test-clients` installs them (scripts/setup_clients.sh) and names the place in $OLM_CLIENTS; without it all of this
is skipped. A script of scripts/ drives one package and prints what it got; here is what that must be. What each client
needs of a server is in docs/clients.md.
"""

from __future__ import annotations

import functools
import json
import math
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kit.daemon import Daemon

HERE = Path(__file__).parent
SCRIPTS = HERE / "scripts"
LIMIT_S = 90

pytestmark = [
    pytest.mark.network,
    pytest.mark.daemon,
    pytest.mark.native,
    pytest.mark.slow,
    pytest.mark.skipif("OLM_CLIENTS" not in os.environ, reason="run by `make test-clients`"),
]

CHAT = ("list", "chat", "stream", "tool", "error", "embed")
STEPS = {
    "drive_langchain.py": (*CHAT, "structured", "thinking"),
    "drive_litellm.py": CHAT,
    "drive_llm.py": (*CHAT, "structured"),
    "drive_instructor.py": ("list", "stream", "error", "structured"),
    "drive_pydantic_ai.py": ("chat", "stream", "tool", "error", "embed", "structured"),
    "drive_ollama.mjs": (*CHAT, "structured", "abort"),
    "drive_openai.mjs": (*CHAT, "structured", "runner", "responses"),
}
"""What each package offers and its script does: a step that is missing from the output fails."""


def installed() -> Path:
    """Where the packages are."""
    return Path(os.environ["OLM_CLIENTS"])


@pytest.fixture(scope="module")
def drive(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Run a script once, however many tests look at what it printed."""
    folder = tmp_path_factory.mktemp("clients")
    for script in SCRIPTS.iterdir():
        if script.is_file():
            shutil.copy(script, folder)
    # Node looks for modules beside the script, and at its real place.
    (folder / "node_modules").symlink_to(installed() / "node_modules")
    environ = {
        **os.environ,
        "OLLAMA_HOST": daemon.url,
        "OPENAI_BASE_URL": f"{daemon.url}/v1",
        "HOME": str(folder),
        # It would fetch prices from the internet at every start, and wait for that.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }

    @functools.cache
    def run(script: str) -> dict[str, dict[str, Any]]:
        if script.endswith(".mjs"):
            program = shutil.which("node")
            if program is None:
                pytest.skip("node is not installed")
        else:
            program = str(installed() / "venv" / "bin" / "python")
        done = subprocess.run(
            [program, str(folder / script)],
            env=environ,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        results: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
        return results

    return run


def is_vector(numbers: list[float]) -> bool:
    """Whether these are numbers of a length of one: `/api/embed` and its like normalise."""
    return math.isclose(math.hypot(*numbers), 1.0, rel_tol=1e-3)


def check(step: str, value: Any) -> None:
    """Assert what a step of any client must have got."""
    match step:
        case "list":
            assert "tiny:latest" in [name.removeprefix("ollama/") for name in value]
        case "chat":
            assert value["text"]
            assert value["reason"] in ("stop", "length")
            assert all(n > 0 for n in value["usage"].values() if n is not None)
        case "stream":
            assert len(value) > 2
            assert "".join(value)
        case "tool":
            assert value["name"] == "get_weather"
            assert value["arguments"] == {"location": "Paris"}
            assert "22 degrees" in value["answer"]
        case "runner":
            assert "22 degrees" in value
        case "structured":
            assert isinstance(value["name"], str)
            assert type(value["age"]) is int
        case "error":
            assert "model 'nope' not found" in value["text"].replace("\\'", "'")
        case "embed":
            first, second = value
            assert is_vector(first)
            assert is_vector(second)
            assert first != second
        case "abort":
            assert value["class"] == "AbortError"
            assert value["after"]
        case "thinking" | "responses":
            assert value
        case _:
            raise AssertionError(f"no test for the step {step}")


def cases() -> Iterator[Any]:
    for script, steps in STEPS.items():
        name = script.removeprefix("drive_").replace(".mjs", "-js").removesuffix(".py")
        for step in steps:
            yield pytest.param(script, step, id=f"{name}-{step}")


@pytest.mark.parametrize(("script", "step"), list(cases()))
def test_a_client_gets_what_it_expects(
    drive: Callable[[str], dict[str, dict[str, Any]]], script: str, step: str
) -> None:
    result = drive(script)[step]

    assert "error" not in result, result["error"]
    check(step, result["value"])
