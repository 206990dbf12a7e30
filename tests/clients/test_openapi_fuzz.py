"""`schemathesis` reads `/api/openapi.json` and sends what it allows, and what it does not: nothing is the server's fault.

Run by `make test-clients`, as test_packages.py says. The daemon is thrown away: the routes that change models are tried too.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from kit.daemon import Daemon

SCRIPTS = Path(__file__).parent / "scripts"

pytestmark = [
    pytest.mark.network,
    pytest.mark.daemon,
    pytest.mark.native,
    pytest.mark.slow,
    pytest.mark.skipif("OLM_CLIENTS" not in os.environ, reason="run by `make test-clients`"),
]


@pytest.mark.timeout(300)
def test_no_request_is_answered_with_a_fault(
    start_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    # Most requests name no bound for their answer: a small context is one.
    daemon = start_daemon(OLM_CONTEXT_LENGTH="128")
    command = [str(Path(os.environ["OLM_CLIENTS"]) / "venv" / "bin" / "schemathesis"), "run"]
    command += [f"{daemon.url}/api/openapi.json", "--checks", "no_fault_of_ours"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", "10", "--seed", "1"]
    command += ["--no-shrink", "--continue-on-failure", "--request-timeout", "30"]
    # A pull goes to whatever host it is given: tests/store/test_pull.py has a registry for it.
    command += ["--exclude-path", "/api/pull"]
    environ = {**os.environ, "SCHEMATHESIS_HOOKS": "fuzz_checks", "PYTHONPATH": str(SCRIPTS)}

    done = subprocess.run(
        command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    # Thousands: a description that cannot be read would be no proof.
    (n_cases,) = re.findall(r"(\d+) generated", done.stdout)
    assert int(n_cases) > 1000
    tags = httpx2.get(f"{daemon.url}/api/tags")
    assert tags.status_code == 200
    faults = [line for line in daemon.log.splitlines() if " ERROR " in line or "Traceback" in line]
    assert faults == []
