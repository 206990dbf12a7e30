"""Chats in company: many kinds at once, cut off anywhere, left by their clients, on a worker that is killed.

What a turn answers depends on nothing but itself: not on its neighbours, not on whether it is streamed.
Hostile contents are in test_chat_hostile, faults without chats' own features in test_faults.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import cast

import attrs
import httpx2
import msgspec
import pytest

from kit.daemon import Daemon, run_daemon, wait_until

pytestmark = [pytest.mark.daemon, pytest.mark.native, pytest.mark.slow]

StartDaemon = Callable[..., Daemon]
Json = dict[str, object]

CRASHED = "model runner has unexpectedly stopped"

TOOL: Json = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather for a city",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string"}},
            "required": ["location"],
        },
    },
}
PERSON: Json = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "maximum": 150}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
ENDLESS_LIST: Json = {"type": "array", "items": {"type": "integer"}, "minItems": 10**6}


def turn(*, options: Json | None = None, **fields: object) -> Json:
    message = {"role": "user", "content": "What is the weather in Paris?"}
    settings = {"temperature": 0, "num_predict": 200, **(options or {})}
    return {"model": "tiny", "messages": [message], "options": settings, **fields}


HOT: Json = {"temperature": 1.5, "seed": 7}
KINDS: dict[str, Json] = {
    "plain": turn(think=False),
    "thinking": turn(),
    "tools": turn(tools=[TOOL], think=False),
    "thinking and tools": turn(tools=[TOOL]),
    "required": turn(tools=[TOOL], tool_choice="required", think=False, options=HOT),
    "format": turn(format=PERSON, think=False),
    "thinking and format": turn(format=PERSON),
    "format and tools": turn(format=PERSON, tools=[TOOL], think=False),
    "hot format": turn(format=PERSON, think=False, options=HOT),
    "budget and format": turn(format=PERSON, options={"think_budget": 3}),
    "logprobs": turn(tools=[TOOL], logprobs=True, top_logprobs=2),
    "stop": turn(tools=[TOOL], options={"stop": ["Paris"]}),
    "everything": turn(
        tools=[TOOL],
        format=PERSON,
        logprobs=True,
        options={**HOT, "stop": ["zzz"], "think_budget": 20},
    ),
}


@attrs.frozen
class Answer:
    """What came of a turn, however it was cut into events; ids and times left out."""

    content: str
    thinking: str
    calls: tuple[tuple[str, str], ...]
    tokens: tuple[str, ...]
    reason: object
    n_tokens: object
    errors: tuple[object, ...]


def read(lines: list[Json]) -> Answer:
    messages = [cast("Json", line.get("message", {})) for line in lines]
    functions = [
        cast("Json", call["function"])
        for message in messages
        for call in cast("list[Json]", message.get("tool_calls", []))
    ]
    return Answer(
        content="".join(str(message.get("content", "")) for message in messages),
        thinking="".join(str(message.get("thinking", "")) for message in messages),
        calls=tuple((str(f["name"]), json.dumps(f["arguments"])) for f in functions),
        tokens=tuple(
            str(item["token"])
            for line in lines
            for item in cast("list[Json]", line.get("logprobs") or [])
        ),
        reason=lines[-1].get("done_reason"),
        n_tokens=lines[-1].get("eval_count"),
        errors=tuple(line["error"] for line in lines if "error" in line),
    )


def ask(daemon: Daemon, body: Json, *, stream: bool = True) -> Answer:
    answer = httpx2.post(
        daemon.url + "/api/chat", json={**body, "stream": stream}, timeout=60, verify=False
    )
    return read([msgspec.json.decode(line) for line in answer.text.splitlines()])


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon for many turns at once."""
    env = {"OLM_SPARE_WORKER": "0", "OLM_NUM_PARALLEL": "8"}
    with run_daemon(tmp_path_factory.mktemp("busy"), env) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def alone(busy: Daemon) -> dict[str, Answer]:
    """What each kind answers when nothing else runs."""
    return {kind: ask(busy, body) for kind, body in KINDS.items()}


def connect(daemon: Daemon, body: Json, *, n_buffered: int = 0) -> socket.socket:
    """Send a turn and leave its answer unread."""
    data = msgspec.json.encode(body)
    url = httpx2.URL(daemon.url)
    client = socket.socket()
    if n_buffered:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, n_buffered)
    client.connect((url.host, url.port or 0))
    head = f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    client.sendall(head.encode() + data)
    return client


# -- the same answer ----------------------------------------------------------------------------------------------


def test_the_kinds_are_what_they_are_called(alone: dict[str, Answer]) -> None:
    assert not any(answer.errors for answer in alone.values())
    assert alone["thinking"].thinking
    assert alone["tools"].calls == (("get_weather", '{"location": "Paris"}'),)
    assert set(json.loads(alone["thinking and format"].content)) == {"name", "age"}
    assert alone["thinking and format"].thinking
    assert len(alone["required"].calls) >= 1
    assert len(alone["logprobs"].tokens) + 1 == alone["logprobs"].n_tokens, "all but the end token"
    assert "Paris" not in alone["stop"].content


def test_a_turn_answers_the_same_streamed_or_not(busy: Daemon, alone: dict[str, Answer]) -> None:
    again = {kind: ask(busy, body, stream=False) for kind, body in KINDS.items()}

    assert again == alone


def test_all_kinds_at_once_answer_as_they_do_alone(busy: Daemon, alone: dict[str, Answer]) -> None:
    odd: list[tuple[str, Answer]] = []

    def run(kind: str) -> None:
        answer = ask(busy, KINDS[kind])
        if answer != alone[kind]:
            odd.append((kind, answer))

    threads = [threading.Thread(target=run, args=(kind,)) for kind in (*KINDS, *KINDS)]
    random.Random(1).shuffle(threads)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert odd == []


# -- cut off ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["thinking and tools", "required"])
def test_an_answer_cut_anywhere_is_a_part_of_the_whole(
    busy: Daemon, alone: dict[str, Answer], kind: str
) -> None:
    whole, body = alone[kind], KINDS[kind]
    options = cast("Json", body["options"])

    for n in range(1, cast("int", whole.n_tokens) + 2):
        part = ask(busy, {**body, "options": {**options, "num_predict": n}})

        assert part.errors == ()
        assert whole.thinking.startswith(part.thinking)
        assert part.calls in ((), whole.calls[: len(part.calls)])
        if part.calls == whole.calls:
            assert part.content == whole.content[: len(part.content)]
        assert part.n_tokens == min(n, cast("int", whole.n_tokens))


@pytest.mark.parametrize("budget", [0, 2])
def test_the_smallest_budgets_leave_the_form_whole(busy: Daemon, budget: int) -> None:
    answer = ask(busy, turn(format=PERSON, options={"think_budget": budget}))

    assert set(json.loads(answer.content)) == {"name", "age"}
    assert len(answer.thinking.split()) <= budget


@pytest.mark.parametrize(
    ("stop", "fields"),
    [("arguments", {"think": False}), ("asks", {}), ("</think>", {}), ("tool_call", {})],
)
def test_a_stop_string_ends_thoughts_and_calls(busy: Daemon, stop: str, fields: Json) -> None:
    answer = ask(busy, turn(tools=[TOOL], options={"stop": [stop]}, **fields))

    assert answer.errors == ()
    assert answer.reason == "stop"
    assert answer.calls == ()
    assert stop not in answer.content + answer.thinking


def test_a_context_too_small_for_the_tools(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(OLM_SPARE_WORKER="0")

    for n_ctx in (4, 200):
        options: Json = {"num_ctx": n_ctx, "num_predict": 10}
        body = turn(tools=[TOOL] * 20, options=options)
        cut = ask(daemon, body)
        refused = ask(daemon, {**body, "truncate": False})

        assert cut.errors == ()
        assert cut.reason in ("stop", "length")
        assert "longer than the context" in str(refused.errors)


# -- left, slow, killed -------------------------------------------------------------------------------------------


def test_clients_that_leave_in_any_phase_leave_nothing(
    busy: Daemon, alone: dict[str, Answer]
) -> None:
    folder, chance = f"/proc/{busy.process.pid}/fd", random.Random(3)
    n_files = len(os.listdir(folder))

    for _ in range(10):
        crowd = [connect(busy, body) for body in chance.sample(list(KINDS.values()), 6)]
        threading.Event().wait(chance.random() * 0.1)  # another moment each time
        for client in crowd:
            client.close()

    assert ask(busy, KINDS["thinking and format"]) == alone["thinking and format"]
    wait_until(lambda: len(os.listdir(folder)) <= n_files + 1, what="connections to close")
    assert "Traceback" not in busy.log


def test_slow_readers_of_constrained_streams_hold_up_nobody(
    busy: Daemon, alone: dict[str, Answer]
) -> None:
    body = turn(format=ENDLESS_LIST, think=False, options={"num_predict": 20_000})
    readers = [connect(busy, body, n_buffered=4096) for _ in range(7)]
    for reader in readers:
        assert reader.recv(100).startswith(b"HTTP/1.1 200")

    answers = {kind: ask(busy, KINDS[kind]) for kind in ("tools", "format", "thinking")}

    for reader in readers:
        reader.close()
    assert answers == {kind: alone[kind] for kind in answers}


def test_a_worker_killed_in_the_middle_is_an_error_line_and_a_new_worker(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon(OLM_SPARE_WORKER="0")
    on: Json = {"ignore_eos": True, "stop": [], "num_predict": 20_000}

    for body in (
        turn(format=ENDLESS_LIST, think=False, options=on),
        turn(tools=[TOOL], options=on),
    ):
        kill_in_the_middle(daemon, body)


def kill_in_the_middle(daemon: Daemon, body: Json) -> None:
    with httpx2.stream("POST", daemon.url + "/api/chat", json=body, timeout=30) as response:
        lines = map(msgspec.json.decode, response.iter_lines())
        next(lines)
        [pid] = daemon.worker_pids()

        os.kill(pid, signal.SIGKILL)
        rest = list(lines)

    assert CRASHED in rest[-1]["error"]
    assert response.status_code == 200
    answer = ask(daemon, KINDS["format"])
    assert set(json.loads(answer.content)) == {"name", "age"}
    assert pid not in daemon.worker_pids()
