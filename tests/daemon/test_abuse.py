"""Rude and careless clients against a real daemon: afterwards it lives, answers, leaks nothing and left no file behind."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import httpx2
import msgspec
import pytest

from kit.daemon import Daemon, run_daemon, wait_until

pytestmark = [pytest.mark.daemon, pytest.mark.native, pytest.mark.slow]

StartDaemon = Callable[..., Daemon]

EXTREMES: tuple[object, ...] = (
    -(2**63),
    -(2**31),
    -5,
    -1,
    0,
    1,
    2**31 - 1,
    2**31,
    2**64,
    1e308,
    0.5,
    "1",
    True,
    [],
    {},
)
OPTIONS = ("num_predict", "num_keep", "seed", "top_k", "top_p", "min_p", "typical_p", "temperature",
           "repeat_last_n", "repeat_penalty", "presence_penalty", "frequency_penalty", "mirostat", "stop")  # fmt: skip
MANY = 200


def generate(daemon: Daemon, **more: object) -> httpx2.Response:
    body = {"model": "tiny", "prompt": "Hello!", "stream": False, **more}
    return httpx2.post(daemon.url + "/api/generate", json=body, timeout=60)


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def n_files(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def unfinished(daemon: Daemon) -> list[str]:
    return [path.name for path in daemon.home.rglob(".olm-tmp-*")]


def connect(daemon: Daemon, head: str, body: bytes = b"") -> socket.socket:
    url = httpx2.URL(daemon.url)
    client = socket.create_connection((url.host, url.port or 0), timeout=30)
    lines = f"{head} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    client.sendall(f"{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return client


def ask(daemon: Daemon, **more: object) -> socket.socket:
    """Send a streamed completion and leave the answer to the caller."""
    body = {"model": "tiny", "prompt": "Count.", "options": {"num_predict": 30}, **more}
    return connect(daemon, "POST /api/generate", msgspec.json.encode(body))


def test_no_option_at_its_extremes_costs_more_than_its_request(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(OLM_SPARE_WORKER="0")
    generate(daemon)
    workers = daemon.worker_pids()
    odd: list[object] = []

    for name in OPTIONS:
        for value in EXTREMES:
            answer = generate(daemon, options={"num_predict": 2, name: value})
            fine = answer.status_code == 200 or answer.json().get("error")
            if not fine or answer.status_code not in (200, 400, 500):
                odd.append((name, value, answer.text))

    assert odd == []
    assert daemon.worker_pids() == workers, "no request killed or reloaded the model"
    assert generate(daemon).json()["response"].startswith("Hello!")


def test_a_path_cannot_write_its_own_log_line(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(OLM_SPARE_WORKER="0")

    httpx2.get(daemon.url + "/a%0A2026-01-01T00:00:00%20INFO%20olm.access:%20forged%1B[31m")

    wait_until(lambda: "forged" in daemon.log, what="the access log")
    [line] = [line for line in daemon.log.splitlines() if "forged" in line]
    assert r"/a\n2026" in line
    assert "\x1b" not in line


def test_many_streams_at_once_all_end_and_nothing_stays(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(OLM_SPARE_WORKER="0")
    generate(daemon)
    pid, files = daemon.process.pid, n_files(daemon)

    def round_trip() -> int:
        clients = [ask(daemon) for _ in range(MANY)]
        n_done = 0
        for client in clients:
            with client, client.makefile("rb") as lines:
                n_done += any(b'"done":true' in line for line in lines)
        return n_done

    assert round_trip() == MANY
    wait_until(lambda: n_files(daemon) <= files + 1, what="connections to close")
    warm = resident_kib(pid)
    assert round_trip() == MANY
    assert resident_kib(pid) < warm + 4096


def test_clients_that_leave_at_any_moment_leave_nothing(start_daemon: StartDaemon) -> None:
    """In the load, in the queue, in the prompt, in the answer, in an upload."""
    daemon = start_daemon(OLM_SPARE_WORKER="0", OLM_NUM_PARALLEL="2")
    files, chance = n_files(daemon), random.Random(1)
    blob = "POST /api/blobs/sha256:" + "1" * 64
    url = httpx2.URL(daemon.url)

    for _ in range(10):
        generate(daemon, prompt="", keep_alive=0)
        crowd = [ask(daemon, options={"ignore_eos": True, "num_predict": 20_000}) for _ in range(5)]
        crowd.append(ask(daemon, prompt="long " * 1500))
        upload = socket.create_connection((url.host, url.port or 0))
        upload.sendall(
            f"{blob} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\nhalf".encode()
        )
        chance.shuffle(crowd)
        threading.Event().wait(chance.random() * 0.15)  # another moment each time
        for client in (*crowd, upload):
            client.close()

    assert generate(daemon).json()["response"].startswith("Hello!")
    wait_until(lambda: n_files(daemon) <= files + 3, what="connections to close")
    wait_until(lambda: not unfinished(daemon), what="the uploads to be removed")
    assert len(daemon.worker_pids()) == 1
    assert "Traceback" not in daemon.log


def test_one_name_made_copied_run_and_deleted_by_many(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(OLM_SPARE_WORKER="0")
    blobs = sorted(os.listdir(daemon.home / "models/blobs"))
    odd: list[str] = []

    def attack(seed: int) -> None:
        chance = random.Random(seed)
        with httpx2.Client(base_url=daemon.url, timeout=60) as client:
            for step in range(15):
                name = chance.choice(("a", "A", "b"))
                body: dict[str, object] = {"model": name, "stream": False}
                made = {**body, "from": "tiny", "system": f"{seed} {step}"}
                run = {**body, "prompt": "Hi", "options": {"num_predict": 3}}
                copy = {"source": "tiny", "destination": name}
                method, path, sent = chance.choice(
                    (
                        ("POST", "/api/create", made),
                        ("POST", "/api/copy", copy),
                        ("DELETE", "/api/delete", body),
                        ("POST", "/api/generate", run),
                        ("POST", "/api/show", body),
                    )
                )
                answer = client.request(method, path, json=sent)
                if answer.status_code not in (200, 404):
                    odd.append(answer.text)

    threads = [threading.Thread(target=attack, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("a", "b"):
        httpx2.request("DELETE", daemon.url + "/api/delete", json={"model": name})

    assert odd == []
    assert sorted(os.listdir(daemon.home / "models/blobs")) == blobs
    assert "Traceback" not in daemon.log


def test_a_killed_daemon_takes_its_workers_along_and_the_next_one_tidies_up(tmp_path: Path) -> None:
    with run_daemon(tmp_path) as daemon:
        generate(daemon)
        workers = daemon.worker_pids()
        head = "POST /api/blobs/sha256:" + "1" * 64
        url = httpx2.URL(daemon.url)
        with socket.create_connection((url.host, url.port or 0)) as upload:
            upload.sendall(
                f"{head} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {2 << 20}\r\n\r\n".encode()
                + bytes(1 << 20)
            )
            wait_until(lambda: unfinished(daemon), what="the upload to begin")
            daemon.process.kill()
            daemon.wait()

        assert workers
        wait_until(lambda: not any(map(is_running, workers)), what="the workers to die")

    with run_daemon(tmp_path) as again:
        assert unfinished(again) == []
        assert generate(again).status_code == 200


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
