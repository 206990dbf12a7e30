"""Keys, https and unix sockets of a real daemon, and its own commands as their clients."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from kit.certificates import make_certificate
from kit.daemon import Daemon, wait_until

pytestmark = [pytest.mark.daemon, pytest.mark.slow]

StartDaemon = Callable[..., Daemon]


def olm(daemon: Daemon, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command of ours against a daemon."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith(("OLM_", "OLLAMA_"))}
    return subprocess.run(
        [sys.executable, "-m", "olm", *args],
        env={**mine, "OLM_HOME": str(daemon.home), "OLM_HOST": daemon.url, **env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_keys_made_and_removed_while_the_daemon_runs(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(OLM_REQUIRE_KEYS="1", OLM_SPARE_WORKER="0")
    before = olm(daemon, "list")
    made = olm(daemon, "keys", "add", "alice", "--scope", "infer")
    key = made.stdout.strip()
    wait_until(lambda: olm(daemon, "list", OLM_API_KEY=key).returncode == 0, what="the key to hold")
    listed = olm(daemon, "keys", "list")
    refused = olm(daemon, "cp", "tiny", "other", OLM_API_KEY=key)
    removed = olm(daemon, "keys", "remove", "alice")
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "API keys read: 0" in daemon.log, what="the keys to be read again")
    after = olm(daemon, "list", OLM_API_KEY=key)

    assert "needs an API key" in before.stderr
    assert "not shown again" in made.stderr
    assert "alice" in listed.stdout
    assert "infer" in listed.stdout
    assert key not in listed.stdout + daemon.log
    assert "lacks the scope manage" in refused.stderr
    assert "No key is left" in removed.stderr
    assert after.stderr == "Error: invalid API key\n"
    assert daemon.process.poll() is None, "SIGHUP does not end it"


def test_bad_files_stop_the_start_with_one_line(start_daemon: StartDaemon, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_text("no keys")

    keys = start_daemon(OLM_API_KEYS=str(bad), must_start=False)
    cert = start_daemon(OLM_TLS_CERT=str(bad), OLM_TLS_KEY=str(bad), must_start=False)

    for daemon, words in (
        (keys, "is not a file of API keys"),
        (cert, "cannot use the certificate"),
    ):
        assert daemon.wait() == 1
        assert words in daemon.log.splitlines()[-1]
        assert "Traceback" not in daemon.log


def test_https_with_a_new_certificate_on_sighup(start_daemon: StartDaemon, tmp_path: Path) -> None:
    first, second = make_certificate(tmp_path, "first"), make_certificate(tmp_path, "second")
    cert, key = tmp_path / "live.crt", tmp_path / "live.key"
    shutil.copy(first.cert, cert)
    shutil.copy(first.key, key)
    daemon = start_daemon(OLM_TLS_CERT=str(cert), OLM_TLS_KEY=str(key), OLM_SPARE_WORKER="0")

    assert daemon.url.startswith("https://127.0.0.1:")
    assert version(daemon, first.cert) == 200
    assert olm(daemon, "list", OLM_TLS_CA=str(first.cert)).returncode == 0
    distrust = olm(daemon, "list")
    assert "is not trusted" in distrust.stderr
    assert "OLM_TLS_CA" in distrust.stderr

    shutil.copy(second.cert, cert)
    shutil.copy(second.key, key)
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "certificate read" in daemon.log, what="the certificate to be read again")

    assert version(daemon, second.cert) == 200


def version(daemon: Daemon, trusted: Path) -> int:
    context = ssl.create_default_context(cafile=str(trusted))
    return httpx2.get(daemon.url + "/api/version", verify=context).status_code


def test_a_unix_socket_with_its_mode_replaces_a_stale_one_and_goes(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    path = tmp_path / "olm.sock"
    first = start_daemon(OLM_HOST=f"unix:{path}", OLM_SOCKET_MODE="0660", OLM_SPARE_WORKER="0")
    mode = stat.S_IMODE(path.stat().st_mode)
    first.process.kill()
    first.wait()
    left_behind = path.exists()
    second = start_daemon(OLM_HOST=f"unix:{path}", OLM_SPARE_WORKER="0")
    listed = olm(second, "list", OLM_HOST=f"unix:{path}")

    assert second.stop() == 0
    assert (mode, left_behind) == (0o660, True)
    assert listed.returncode == 0
    assert not path.exists()
