"""`olm doctor`: with a server, without one, and what it sees around the store."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path

import pytest

from cli.canned import Canned, Run
from olm.cli.client import Client, Endpoint
from olm.cli.surroundings import Check, look_around
from olm.store.library import Library

NOBODY = Endpoint("127.0.0.1", 9)


def by_name(checks: list[Check]) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for check in checks:
        found.setdefault(check.name, []).append((check.state, check.text))
    return found


def around(tmp_path: Path, **env: str) -> dict[str, list[tuple[str, str]]]:
    return by_name(look_around(Client(NOBODY), {"OLM_HOME": str(tmp_path), **env}))


def test_every_setting_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    seen = around(tmp_path, OLM_NUM_PARALLEL="x", OLLAMA_KEEP_ALIVE="soon", OLM_MODEL="y")

    states = seen["settings"]
    assert [state for state, _ in states] == ["wrong", "wrong", "note"]
    assert "OLM_KEEP_ALIVE: cannot read 'soon'" in states[0][1]
    assert "OLM_NUM_PARALLEL: cannot read 'x'" in states[1][1]
    assert states[2][1] == "olm does not know OLM_MODEL"
    assert seen["folder"][0][0] == "note"  # nothing else is hidden by them


def test_a_home_where_nothing_is_yet_is_well(tmp_path: Path) -> None:
    seen = around(tmp_path)

    assert seen["folder"] == [
        ("note", f"{tmp_path / 'models'} is not there yet; a server makes it")
    ]
    assert seen["key"][0][0] == "ok"
    assert seen["server"][0][0] == "note"
    assert list(tmp_path.iterdir()) == []


def test_keys_that_are_none_or_open_to_all_are_told(tmp_path: Path) -> None:
    from olm.registry.auth import Identity

    key = tmp_path / "id_ed25519"
    Identity.load(tmp_path)
    assert around(tmp_path)["key"] == [("ok", str(key))]
    key.chmod(0o644)
    assert around(tmp_path)["key"][0][0] == "note"
    key.write_text("no key")
    assert around(tmp_path)["key"][0][0] == "wrong"


def test_a_folder_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Library.open(tmp_path / "models").close()
    assert around(tmp_path)["folder"][0][0] in ("ok", "note")

    blobs = tmp_path / "models/blobs"
    monkeypatch.setattr(os, "access", lambda path, _mode: path != blobs)

    ((state, words),) = around(tmp_path)["folder"]
    assert state == "wrong"
    assert f"{blobs} cannot be written" in words


def test_a_server_elsewhere_is_asked_about_itself_only(tmp_path: Path) -> None:
    client = Client(Endpoint("192.0.2.1", 1), patience_s=0.01)

    assert set(by_name(look_around(client, {"OLM_HOME": str(tmp_path)}))) == {"server", "settings"}


@pytest.mark.slow
def test_a_server_looks_through_its_own_store(server: Canned, olm: Run) -> None:
    found = {
        "kind": "damaged",
        "what": "sha256:" + "ab" * 32,
        "detail": "is cut; 'olm pull m' fetches it again",
        "models": ["m:latest"],
        "size": 1000,
        "repaired": False,
    }
    lines: list[object] = [
        {"status": "verifying 2 blobs", "total": 9, "completed": 4},
        {"status": "found", "finding": found},
        {"status": "checked 1 model, 2 blobs, 9 B in /srv/models"},
        {"status": "success"},
    ]
    server.on("GET", "/api/version", {"version": "1"})
    server.on("POST", "/api/store/check", lines)

    told = olm("doctor", "--quick")
    as_json = olm("doctor", "--json", "--repair")
    found["repaired"] = True
    mended = olm("doctor", "--repair")

    assert told.returncode == as_json.returncode == 1
    assert "! store     checked 1 model, 2 blobs, 9 B in /srv/models; 1 broken\n" in told.stdout
    assert "- store     the server's folder is /srv/models, not that of" in told.stdout
    assert "! damaged  sha256:abababababab  1 KB  needed by m:latest\n    is cut; " in told.stdout
    assert told.stdout.endswith("'olm doctor --repair' mends what can be mended.\n")
    assert json.loads(as_json.stdout)["findings"] == [{**found, "repaired": False}]
    assert server.bodies("/api/store/check")[:2] == [
        {"repair": False, "quick": True},
        {"repair": True, "quick": False},
    ]
    assert mended.returncode == 0
    assert "[repaired]" in mended.stdout


@pytest.mark.slow
def test_without_a_server_the_folder_is_looked_through(olm: Run, tmp_path: Path) -> None:
    root = tmp_path / "home/models"
    Library.open(root).close()
    orphan = root / "blobs" / f"sha256-{'1' * 64}"
    orphan.write_bytes(b"x")
    os.utime(orphan, (0, time.time() - 7200))
    weights = max((root / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    weights.write_bytes(weights.read_bytes()[:-1])
    nobody = {"OLM_HOST": "127.0.0.1:9"}

    found = olm("doctor", **nobody)
    assert found.returncode == 1
    assert "! damaged" in found.stdout
    assert "- orphan" in found.stdout
    assert orphan.exists()
    with (root / "olm.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        locked = olm("doctor", **nobody)
        refused = olm("doctor", "--repair", **nobody)
    mended = olm("doctor", "--repair", **nobody)

    assert "is using the model store" in locked.stdout
    assert "! damaged" in locked.stdout
    assert refused.returncode == 1
    assert mended.returncode == 0
    assert not orphan.exists()
    assert json.loads(olm("doctor", "--json", **nobody).stdout)["ok"] is True


@pytest.mark.slow
def test_beside_another_server_than_olm_the_folder_is_looked_through(
    server: Canned, olm: Run, tmp_path: Path
) -> None:
    Library.open(tmp_path / "home/models").close()
    server.on("GET", "/api/version", {"version": "0.33.0"})

    done = olm("doctor")

    assert done.returncode == 0
    assert "the server is another than olm's" in done.stdout
    assert "checked 1 model, " in done.stdout
