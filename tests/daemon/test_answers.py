"""The daemon as clients see it: a real process, the built-in model, HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx2
import msgspec
import pytest

from kit.daemon import Daemon, wait_until

pytestmark = [pytest.mark.daemon, pytest.mark.native]

QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "What is your name?"}]}


def post(daemon: Daemon, path: str, body: object) -> httpx2.Response:
    return httpx2.post(daemon.url + path, json=body, timeout=60)


def lines(response: httpx2.Response) -> list[dict[str, object]]:
    return [msgspec.json.decode(line) for line in response.text.splitlines()]


def test_chat_streams_an_answer(daemon: Daemon) -> None:
    events = lines(post(daemon, "/api/chat", {**QUESTION, "think": False}))

    text = "".join(event["message"]["content"] for event in events)  # type: ignore[index]  # the API's shape
    assert "tiny" in text
    assert [event["done"] for event in events] == [False] * (len(events) - 1) + [True]
    assert events[-1]["done_reason"] == "stop"
    assert (
        events[-1]["eval_count"] == 13
    )  # twelve of the answer and the end token, as llama-server counts


def test_the_same_seed_gives_the_same_answer_and_streaming_changes_nothing(daemon: Daemon) -> None:
    body = {**QUESTION, "options": {"temperature": 1.5, "seed": 7, "num_predict": 20}}

    streamed = "".join(e["message"]["content"] for e in lines(post(daemon, "/api/chat", body)))  # type: ignore[index]
    whole = post(daemon, "/api/chat", {**body, "stream": False}).json()

    assert whole["message"]["content"] == streamed
    assert whole["eval_count"] <= 20


def test_generate_returns_context_that_continues_the_conversation(daemon: Daemon) -> None:
    first = post(
        daemon,
        "/api/generate",
        {"model": "tiny", "prompt": "My name is Ada.", "stream": False},
    ).json()
    second = post(
        daemon,
        "/api/generate",
        {"model": "tiny", "prompt": "Hello!", "context": first["context"], "stream": False},
    ).json()

    assert second["done_reason"] == "stop"
    assert second["context"][: len(first["context"])] == first["context"]
    assert second["prompt_eval_count"] > len(first["context"])


def test_raw_generation_continues_the_text(daemon: Daemon) -> None:
    body = {
        "model": "tiny",
        "prompt": "The",
        "raw": True,
        "stream": False,
        "options": {"num_predict": 5},
    }

    answer = post(daemon, "/api/generate", body).json()

    assert answer["eval_count"] == 5
    assert answer["done_reason"] == "length"
    assert "context" not in answer


def test_stop_strings_end_an_answer_and_stay_out_of_it(daemon: Daemon) -> None:
    body = {**QUESTION, "stream": False, "options": {"stop": ["small"]}}

    answer = post(daemon, "/api/chat", body).json()

    assert answer["done_reason"] == "stop"
    assert "small" not in answer["message"]["content"]


def test_embeddings_have_length_one(daemon: Daemon) -> None:
    answer = post(daemon, "/api/embed", {"model": "tiny", "input": ["one", "two three"]}).json()

    assert len(answer["embeddings"]) == 2
    for row in answer["embeddings"]:
        assert sum(value * value for value in row) == pytest.approx(1, abs=1e-3)
    assert answer["prompt_eval_count"] > 2


def test_eight_clients_at_once_get_the_same_greedy_answer(daemon: Daemon) -> None:
    body = {**QUESTION, "stream": False}
    alone = post(daemon, "/api/chat", body).json()["message"]["content"]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(daemon, "/api/chat", body).json(), range(8)))

    assert {answer["message"]["content"] for answer in answers} == {alone}


def test_a_long_history_is_cut_and_still_answered(daemon: Daemon) -> None:
    history = [{"role": "user", "content": "word " * 200}, {"role": "assistant", "content": "Yes."}]
    messages = [*history * 20, {"role": "user", "content": "What is your name?"}]

    body = {
        "model": "tiny",
        "messages": messages,
        "stream": False,
        "options": {"num_predict": 20},
    }
    answer = post(daemon, "/api/chat", body)

    assert answer.status_code == 200
    assert answer.json()["prompt_eval_count"] < 2048


def test_a_long_history_that_may_not_be_cut_is_refused(daemon: Daemon) -> None:
    messages = [{"role": "user", "content": "word " * 5000}]

    answer = post(daemon, "/api/chat", {"model": "tiny", "messages": messages, "truncate": False})

    assert answer.status_code == 400
    assert "longer than the context length" in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/api/chat", {**QUESTION, "model": "nobody"}, 404, "model 'nobody' not found"),
        (
            "/api/chat",
            {**QUESTION, "options": {"num_ctx": "x"}},
            500,
            'option "num_ctx" must be of type integer',
        ),
        ("/api/chat", {**QUESTION, "format": "yaml"}, 500, "invalid format"),
        (
            "/api/generate",
            {"model": "tiny", "prompt": "a", "raw": True, "system": "s"},
            400,
            "raw mode does not support template, system, or context",
        ),
    ],
)
def test_what_cannot_be_done_is_said(
    daemon: Daemon, path: str, body: object, status: int, text: str
) -> None:
    answer = post(daemon, path, body)

    assert answer.status_code == status
    assert text in answer.json()["error"]


def test_keep_alive_zero_unloads_after_the_answer(daemon: Daemon) -> None:
    post(daemon, "/api/chat", {**QUESTION, "keep_alive": "10m"})
    [row] = httpx2.get(daemon.url + "/api/ps").json()["models"]
    assert row["name"] == "tiny:latest"

    post(daemon, "/api/chat", {**QUESTION, "keep_alive": 0})

    wait_until(lambda: httpx2.get(daemon.url + "/api/ps").json() == {"models": []}, what="unload")


def test_an_empty_prompt_loads_and_unloads(daemon: Daemon) -> None:
    loaded = post(daemon, "/api/generate", {"model": "tiny", "keep_alive": -1}).json()
    assert loaded["done_reason"] == "load"
    assert len(httpx2.get(daemon.url + "/api/ps").json()["models"]) == 1

    unloaded = post(daemon, "/api/generate", {"model": "tiny", "keep_alive": 0}).json()

    assert unloaded["done_reason"] == "unload"
    wait_until(lambda: httpx2.get(daemon.url + "/api/ps").json() == {"models": []}, what="unload")
