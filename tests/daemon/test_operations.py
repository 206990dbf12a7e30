"""What an operator sees of a real daemon: the numbers equal what was done."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import httpx2
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from kit.daemon import Daemon, wait_until

pytestmark = [pytest.mark.daemon, pytest.mark.native]

QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "What is your name?"}]}
TINY = {"model": "tiny:latest"}


class Scrape:
    """One look at `/metrics`."""

    def __init__(self, daemon: Daemon) -> None:
        reply = httpx2.get(daemon.url + "/metrics", timeout=20)
        assert reply.status_code == 200, reply.text
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(reply.text)
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        return self._values.get((f"olm_{name}", frozenset(labels.items())))


def post(daemon: Daemon, path: str, body: object) -> httpx2.Response:
    return httpx2.post(daemon.url + path, json=body, timeout=60)


@pytest.mark.slow
def test_counters_equal_what_was_done(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon()

    streamed = post(daemon, "/api/chat", QUESTION)
    lasts = [msgspec.json.decode(streamed.text.splitlines()[-1])]
    lasts += [post(daemon, "/api/chat", {**QUESTION, "stream": False}).json() for _ in range(2)]
    openai = post(daemon, "/v1/chat/completions", QUESTION).json()["usage"]
    embedded = post(daemon, "/api/embed", {"model": "tiny", "input": ["a", "b"]}).json()
    assert post(daemon, "/api/chat", {**QUESTION, "model": "nobody"}).status_code == 404

    page = Scrape(daemon)
    done = {
        "generation_tokens_total": sum(x["eval_count"] for x in lasts)
        + openai["completion_tokens"],
        "prompt_tokens_total": sum(x["prompt_eval_count"] for x in lasts)
        + openai["prompt_tokens"]
        + embedded["prompt_eval_count"],
        "prompt_tokens_cached_total": sum(x.get("prompt_eval_cached_count", 0) for x in lasts)
        + openai["prompt_tokens_details"]["cached_tokens"],
        "embeddings_total": 2,
        "time_to_first_token_seconds_count": 4,
        "request_queue_time_seconds_count": 5,
        "model_load_seconds_count": 1,
        "model_load_failures_total": 0,
        "worker_crashes_total": 0,
        "requests_running": 0,
        "model_slots": 4,
    }
    assert {name: page(name, **TINY) for name in done} == done
    assert page("turns_total", **TINY, end="stop") == 4
    assert page("generation_seconds_total", **TINY) > 0
    assert page("engine_generated_tokens_total", **TINY) >= done["generation_tokens_total"]
    assert page("engine_sequences_running", **TINY) == 0
    assert page("http_requests_total", route="/api/chat", method="POST", status="200") == 3
    assert page("http_requests_total", route="/api/chat", method="POST", status="404") == 1
    props = httpx2.get(daemon.url + "/api/props").json()
    assert [(m["name"], m["total_slots"]) for m in props["models"]] == [("tiny:latest", 4)]
    lines = [x for x in daemon.log.splitlines() if "POST /api/chat status=200" in x]
    assert f" tokens={lasts[0]['eval_count']} " in lines[0]
    assert "GET /metrics" not in daemon.log


@pytest.mark.slow
def test_crashes_and_evictions_are_counted(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(OLM_SPARE_WORKER="0")
    post(daemon, "/api/chat", QUESTION)
    [pid] = daemon.worker_pids()

    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: Scrape(daemon)("worker_crashes_total", **TINY) == 1, what="the crash")
    post(daemon, "/api/chat", {**QUESTION, "keep_alive": 0})
    wait_until(lambda: not daemon.worker_pids(), what="the model to go")

    page = Scrape(daemon)
    assert page("model_load_seconds_count", **TINY) == 2
    assert page("model_evictions_total", **TINY, reason="idle") == 1
    assert page("model_slots", **TINY) is None
    assert httpx2.get(daemon.url + "/ready").json() == {"status": "ok", "silent": []}
