"""Queues and slow readers against a real daemon: turns in fair order, places told, and nobody waits for who does not read."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx2
import msgspec
import pytest

from kit.daemon import Daemon, wait_until

pytestmark = [pytest.mark.daemon, pytest.mark.native, pytest.mark.slow]

StartDaemon = Callable[..., Daemon]

N_TOKENS = 400
"""An answer that, with its log probabilities, does not fit the buffers on its way."""


def body(n_tokens: int, **more: object) -> dict[str, object]:
    options = {"num_predict": n_tokens, "num_ctx": 2048, "ignore_eos": True, "temperature": 0}
    return {
        "model": "tiny",
        "prompt": "Count.",
        "raw": True,
        "options": options,
        "logprobs": True,
        "top_logprobs": 20,
        **more,
    }


def generate(daemon: Daemon, n_tokens: int) -> httpx2.Response:
    asked = body(n_tokens, stream=False)
    return httpx2.post(daemon.url + "/api/generate", json=asked, timeout=60)


def stream(daemon: Daemon, n_tokens: int) -> socket.socket:
    """Ask for an answer over a connection that takes little of it unread."""
    data = msgspec.json.encode(body(n_tokens))
    url = httpx2.URL(daemon.url)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.settimeout(30)
    sock.connect((url.host, url.port))
    head = f"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    sock.sendall(head.encode() + data)
    return sock


def read_lines(sock: socket.socket) -> list[dict[str, object]]:
    """Read a stream to its end; chunk sizes are lines of their own."""
    with sock.makefile("rb") as lines:
        found = []
        for line in lines:
            if line.startswith(b"{"):
                found.append(json.loads(line))
                if found[-1].get("done") or "error" in found[-1]:
                    break
        return found


def queue(daemon: Daemon) -> dict[str, int]:
    """The numbers of the only model's line."""
    rows = httpx2.get(daemon.url + "/api/queue", timeout=30).json()["models"]
    return rows[0] if rows else {}


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def test_who_stops_reading_lends_the_slot_out_and_misses_nothing(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(OLM_NUM_PARALLEL="1", OLM_SLOW_READER="300ms", OLM_SPARE_WORKER="0")
    wanted = generate(daemon, N_TOKENS).json()["response"]
    pids = [daemon.process.pid, *daemon.worker_pids()]
    before = [resident_kib(pid) for pid in pids]

    with ExitStack() as stack:
        stopped = [stack.enter_context(stream(daemon, N_TOKENS)) for _ in range(3)]
        wait_until(lambda: queue(daemon).get("paused") == 3, what="all three to be paused")
        others = [generate(daemon, 20) for _ in range(5)]
        growth = [resident_kib(pid) - kib for pid, kib in zip(pids, before, strict=True)]
        answers = [read_lines(sock) for sock in stopped]

    assert [answer.status_code for answer in others] == [200] * 5
    assert max(growth) < 8 << 10
    for lines in answers:
        assert "".join(str(line["response"]) for line in lines) == wanted
        assert lines[-1]["eval_count"] == N_TOKENS
    wait_until(lambda: queue(daemon)["running"] == 0, what="the slots to be free")


def test_others_stream_at_full_speed_beside_who_does_not_read(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(OLM_NUM_PARALLEL="2", OLM_SLOW_READER="100ms", OLM_SPARE_WORKER="0")
    generate(daemon, 5)

    def seconds() -> float:
        started_s = time.monotonic()
        assert generate(daemon, 400).status_code == 200
        return time.monotonic() - started_s

    alone_s = min(seconds() for _ in range(3))
    with stream(daemon, N_TOKENS) as sock:
        assert sock.recv(64).startswith(b"HTTP/1.1 200")
        wait_until(lambda: queue(daemon)["paused"] == 1, what="its buffers to fill")
        beside_s = min(seconds() for _ in range(3))

    assert beside_s < 2 * alone_s + 0.2


def test_who_never_reads_again_loses_the_turn_and_is_told(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(OLM_SLOW_READER="200ms", OLM_READER_TIMEOUT="300ms", OLM_KEEP_ALIVE="0")
    with stream(daemon, N_TOKENS) as sock:
        wait_until(lambda: queue(daemon), what="the turn to run")
        wait_until(lambda: not queue(daemon), what="the model to go")
        lines = read_lines(sock)

    assert "nobody read it" in str(lines[-1]["error"])
    assert "Traceback" not in daemon.log


def test_a_crowd_that_leaves_the_queue_costs_nothing(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(OLM_NUM_PARALLEL="1", OLM_MAX_QUEUE="1000", OLM_SPARE_WORKER="0")
    generate(daemon, 5)
    pid = daemon.process.pid
    running = stream(daemon, 1_000_000)
    wait_until(lambda: queue(daemon).get("running") == 1, what="the first to run")

    def crowd() -> None:
        clients = [stream(daemon, 5) for _ in range(300)]
        wait_until(lambda: queue(daemon)["waiting"] == 300, what="all to wait")
        for client in clients:
            client.close()
        wait_until(lambda: queue(daemon)["waiting"] == 0, what="all to be gone")

    crowd()
    warm = resident_kib(pid)
    crowd()

    assert resident_kib(pid) < warm + 4096
    running.close()
    assert generate(daemon, 5).status_code == 200
    assert "Traceback" not in daemon.log


def test_a_stream_that_waited_and_a_refusal_tell_the_place(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(OLM_NUM_PARALLEL="1", OLM_MAX_QUEUE="1", OLM_SPARE_WORKER="0")
    generate(daemon, 5)
    first = stream(daemon, 1_000_000)
    wait_until(lambda: queue(daemon).get("running") == 1, what="the first to run")
    answers: list[httpx2.Response] = []
    waiting = threading.Thread(target=lambda: answers.append(generate(daemon, 5)))
    waiting.start()
    wait_until(lambda: queue(daemon)["waiting"] == 1, what="the second to wait")

    refused = generate(daemon, 5)
    first.close()
    waiting.join()
    [waited] = answers

    assert (refused.status_code, refused.headers["x-olm-queue-position"]) == (503, "2")
    assert int(refused.headers["retry-after"]) >= 1
    assert waited.headers["x-olm-queue-position"] == "1"
    assert int(waited.headers["x-olm-queue-ms"]) >= 0
