"""What goes wrong: killed workers, vanished clients, full queues, signals, taken ports, locked stores, hostile weights."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import httpx2
import msgspec
import pytest

from kit.daemon import Daemon, second_tiny, wait_until

pytestmark = [pytest.mark.daemon, pytest.mark.native, pytest.mark.slow]

StartDaemon = Callable[..., Daemon]

CRASH = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error,"
    " check ollama server logs for details"
)


def endless(model: str = "tiny") -> dict[str, object]:
    """A chat that goes on for some 20 s unless somebody ends it."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": "Count."}],
        "options": {"ignore_eos": True, "num_predict": 20_000, "stop": []},
    }


def short(model: str = "tiny") -> dict[str, object]:
    messages = [{"role": "user", "content": "Hello!"}]
    return {"model": model, "messages": messages, "stream": False}


@contextmanager
def streaming(daemon: Daemon, body: dict[str, object]) -> Iterator[Iterator[dict[str, object]]]:
    with httpx2.stream("POST", daemon.url + "/api/chat", json=body, timeout=30) as response:
        assert response.status_code == 200
        yield map(msgspec.json.decode, response.iter_lines())


def chat(daemon: Daemon, body: dict[str, object]) -> httpx2.Response:
    return httpx2.post(daemon.url + "/api/chat", json=body, timeout=30)


def make_model(daemon: Daemon, name: str, gguf: bytes) -> list[dict[str, object]]:
    """Create a model from a GGUF by way of the API; the status lines."""
    digest = "sha256:" + hashlib.sha256(gguf).hexdigest()
    uploaded = httpx2.post(f"{daemon.url}/api/blobs/{digest}", content=gguf)
    assert uploaded.status_code == 201
    body = {"model": name, "files": {"model.gguf": digest}}
    created = httpx2.post(daemon.url + "/api/create", json=body, timeout=30)
    return [msgspec.json.decode(line) for line in created.text.splitlines()]


def tiny_bytes() -> bytes:
    return resources.files("olm.data.tiny").joinpath("tiny-q8_0.gguf").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_killed_worker_ends_its_own_streams_only(
    start_daemon: StartDaemon, tmp_path: Path, number: signal.Signals
) -> None:
    daemon = start_daemon(OLM_SPARE_WORKER="0")
    created = make_model(daemon, "second", second_tiny(tmp_path).read_bytes())
    assert created[-1] == {"status": "success"}
    chat(daemon, short("second"))
    [other_pid] = daemon.worker_pids()
    with streaming(daemon, endless("second")) as other, streaming(daemon, endless()) as victim:
        for _ in range(3):
            next(other)
            next(victim)
        [pid] = set(daemon.worker_pids()) - {other_pid}

        os.kill(pid, number)
        rest = list(victim)

        assert rest[-1] == {"error": CRASH}
        for _ in range(200):
            assert "error" not in next(other)
        assert chat(daemon, short()).json()["done"] is True
        assert pid not in daemon.worker_pids()
        assert other_pid in daemon.worker_pids()
    assert signal.Signals(number).name in daemon.log


def test_a_worker_killed_while_idle_is_replaced(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(OLM_SPARE_WORKER="0")
    chat(daemon, short())
    [pid] = daemon.worker_pids()

    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in daemon.worker_pids(), what="the worker to be gone")

    assert chat(daemon, short()).json()["done"] is True


def test_a_client_that_vanishes_frees_its_slot(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(OLM_NUM_PARALLEL="1")
    chat(daemon, short())
    with streaming(daemon, endless()) as events:
        next(events)

    started = time.monotonic()
    answer = chat(daemon, short())

    assert answer.json()["done"] is True
    assert time.monotonic() - started < 3


def test_a_client_that_stops_reading_slows_nobody_else(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    body = msgspec.json.encode(endless())
    host, port = daemon.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        head = f"POST /api/chat HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall(head.encode() + body)
        assert sock.recv(100).startswith(b"HTTP/1.1 200")

        started = time.monotonic()
        answers = [chat(daemon, short()).json() for _ in range(5)]

        assert all(answer["done"] for answer in answers)
        assert time.monotonic() - started < 5


def test_a_full_queue_answers_503(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(OLM_NUM_PARALLEL="1", OLM_MAX_QUEUE="1")
    with streaming(daemon, endless()) as running:
        next(running)
        answers: list[httpx2.Response] = []

        def ask() -> None:
            answers.append(httpx2.post(daemon.url + "/api/chat", json=short(), timeout=60))

        # One of them takes the only place in the queue, whichever comes first; the others are refused.
        clients = [threading.Thread(target=ask) for _ in range(3)]
        for client in clients:
            client.start()
        wait_until(lambda: len(answers) == 2, what="two refusals")

        for answer in answers:
            assert answer.status_code == 503
            assert answer.json() == {
                "error": "server busy, please try again.  maximum pending requests exceeded"
            }
            assert int(answer.headers["retry-after"]) >= 1
    for client in clients:
        client.join()
    assert [answer.status_code for answer in answers] == [503, 503, 200]


def test_sigterm_drains_running_streams_and_refuses_new_ones(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(OLM_DRAIN_TIMEOUT="20s")
    body = endless()
    body["options"] = {**body["options"], "num_predict": 600}  # type: ignore[dict-item]  # it is a dict
    with streaming(daemon, body) as events:
        next(events)

        daemon.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "draining" in daemon.log, what="the drain")
        refused = chat(daemon, short())
        rest = list(events)

    assert refused.status_code == 503
    assert "retry-after" in refused.headers
    assert rest[-1].get("done") is True, rest[-1]
    assert rest[-1]["eval_count"] == 600
    assert daemon.wait() == 0


def test_streams_that_outlast_the_drain_end_with_an_error(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(OLM_DRAIN_TIMEOUT="500ms")
    with streaming(daemon, endless()) as events:
        next(events)
        daemon.process.send_signal(signal.SIGTERM)
        rest = list(events)

    assert "error" in rest[-1]
    assert daemon.wait() == 0
    assert daemon.worker_pids() == []


def test_a_second_signal_ends_at_once(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(OLM_SPARE_WORKER="0")
    with streaming(daemon, endless()) as events:
        next(events)
        [pid] = daemon.worker_pids()
        daemon.process.send_signal(signal.SIGINT)
        wait_until(lambda: "draining" in daemon.log, what="the drain")

        daemon.process.send_signal(signal.SIGINT)
        assert daemon.wait() == 128 + signal.SIGINT

    wait_until(lambda: not Path(f"/proc/{pid}").exists(), what="the worker to die with its parent")


def test_two_daemons_on_one_port(start_daemon: StartDaemon) -> None:
    first = start_daemon()

    second = start_daemon(OLM_HOST=first.url, must_start=False)

    assert second.wait() == 1
    assert "already in use" in second.log
    assert len(second.log.splitlines()) == 1
    assert httpx2.get(first.url + "/api/version").status_code == 200


def test_two_daemons_on_one_store(start_daemon: StartDaemon) -> None:
    first = start_daemon()

    second = start_daemon(home=first.home, must_start=False)

    assert second.wait() == 1
    assert len(second.log.splitlines()) == 1
    assert "Traceback" not in second.log
    assert chat(first, short()).status_code == 200


def test_a_store_that_cannot_be_written(start_daemon: StartDaemon, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")

    daemon = start_daemon(OLM_MODELS=str(blocked), must_start=False)

    assert daemon.wait() == 1
    assert len(daemon.log.splitlines()) == 1
    assert str(blocked) in daemon.log


def test_weights_the_engine_refuses(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    # The header is sound, so it can be created; the engine knows no such architecture.
    hostile = tiny_bytes().replace(b"llama", b"llamx")
    created = make_model(daemon, "hostile", hostile)

    answer = chat(daemon, short("hostile")) if "status" in created[-1] else None

    if answer is None:
        assert "llamx" in str(created[-1])
    else:
        assert answer.status_code == 500
        assert "unknown model architecture" in answer.json()["error"]
    assert chat(daemon, short()).status_code == 200


def test_truncated_weights(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()

    created = make_model(daemon, "cut", tiny_bytes()[:-100_000])

    assert "error" in created[-1]
    assert chat(daemon, short("cut")).status_code == 404
    assert chat(daemon, short()).status_code == 200


def test_a_template_that_fails_is_the_requests_error(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    good = tiny_bytes()
    at = good.index(b"chat_template") + len(b"chat_template") + 12
    bad = good[:at] + b"{{ raise_exception('no') }}" + good[at + 27 :]
    make_model(daemon, "raising", bad)

    answer = chat(daemon, short("raising"))

    assert answer.status_code in (400, 500)
    assert answer.json()["error"]
    assert chat(daemon, short()).status_code == 200
