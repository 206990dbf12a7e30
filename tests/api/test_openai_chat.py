"""The chunks and documents of OpenAI's chat, byte for byte; several choices at once; errors before and in a stream."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
import trio
import trio.testing

from kit.fake_olm import FakeOlm, Step, Until, answer, called
from kit.memory_http import MemoryClient, MemoryServer, Reply
from olm.actors.client import ChatRequest, GenerateRequest, RenderedPrompt
from olm.api.dialects.openai_events import Answering, ChatForm
from olm.chat.types import (
    CallArguments,
    CallEnd,
    CallStart,
    Done,
    Piece,
    TokenLogprob,
    TopLogprob,
)
from olm.errors import Busy, ContextTooLong, InvalidRequest, ModelNotFound, RunnerCrashed

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
HEAD = (
    'data: {"id":"chatcmpl-X","object":"chat.completion.chunk","created":1,"model":"tiny",'
    '"system_fingerprint":"fp_ollama","choices":['
)
DONE = "data: [DONE]"
PROB = TokenLogprob(b"Hi", -0.25, (TopLogprob(b"Hi", -0.25), TopLogprob(b"\xe2", -2.5)))
PROB_JSON = (
    '{"content":[{"token":"Hi","logprob":-0.25,"bytes":[72,105],"top_logprobs":'
    '[{"token":"Hi","logprob":-0.25,"bytes":[72,105]},{"token":"\ufffd","logprob":-2.5,"bytes":[226]}]}]}'
)


def masked(reply: Reply) -> str:
    """The body, with its id and time taken out."""
    text = re.sub(r'"id":"chatcmpl-[0-9a-f]{24}"', '"id":"chatcmpl-X"', reply.text)
    return re.sub(r'"created":\d{10}', '"created":1', text)


def delta(inner: str, *, index: int = 0, finish: str = "null", more: str = "") -> str:
    return f'{HEAD}{{"index":{index},"delta":{{{inner}}},"finish_reason":{finish}{more}}}]}}'


async def stream(client: MemoryClient, olm: FakeOlm, *events: Step, **fields: object) -> list[str]:
    """The frames of a streamed chat."""
    olm.models.script = list(events)
    reply = await client.post("/v1/chat/completions", {**CHAT, "stream": True, **fields})
    assert reply.status == 200, reply.text
    assert reply.headers["content-type"] == "text/event-stream"
    text = masked(reply)
    assert text.endswith("\n\n")
    return text[:-2].split("\n\n")


async def whole(client: MemoryClient, olm: FakeOlm, *events: Step, **fields: object) -> str:
    olm.models.script = list(events)
    reply = await client.post("/v1/chat/completions", {**CHAT, **fields})
    assert reply.status == 200, reply.text
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    return masked(reply)


def document(message: str, finish: str, usage: str, more: str = "") -> str:
    return (
        '{"id":"chatcmpl-X","object":"chat.completion","created":1,"model":"tiny",'
        '"system_fingerprint":"fp_ollama","choices":[{"index":0,"message":{"role":"assistant",'
        f'{message}}},"finish_reason":"{finish}"{more}}}],"usage":{usage}}}'
    )


def usage(n_prompt: int, n_generated: int, n_cached: int = 0) -> str:
    return (
        f'{{"prompt_tokens":{n_prompt},"completion_tokens":{n_generated},"total_tokens":{n_prompt + n_generated},'
        f'"prompt_tokens_details":{{"cached_tokens":{n_cached}}}}}'
    )


# --- forms ------------------------------------------------------------------------------------------------------------


async def test_a_stream(client: MemoryClient, olm: FakeOlm) -> None:
    frames = await stream(client, olm, *answer("Hi", ' <"there">'))

    assert frames == [
        delta('"role":"assistant","content":"Hi"'),
        delta('"content":" \\u003c\\"there\\"\\u003e"'),
        delta("", finish='"stop"'),
        DONE,
    ]


async def test_usage_comes_last_when_it_is_wanted(client: MemoryClient, olm: FakeOlm) -> None:
    events = [Piece("Hi"), Done("length", n_prompt=9, n_cached=4, n_generated=2)]

    frames = await stream(client, olm, *events, stream_options={"include_usage": True})
    without = await stream(client, olm, *events, stream_options={"include_usage": None})

    assert frames == [
        delta('"role":"assistant","content":"Hi"'),
        delta("", finish='"length"'),
        f'{HEAD}],"usage":{usage(9, 2, 4)}}}',
        DONE,
    ]
    assert without == [*frames[:2], DONE]


async def test_an_answer_without_a_word_still_says_its_role(
    client: MemoryClient, olm: FakeOlm
) -> None:
    frames = await stream(client, olm, Done("stop"))

    assert frames == [
        delta('"role":"assistant","content":""'),
        delta("", finish='"stop"'),
        DONE,
    ]


async def test_thinking_is_called_reasoning(client: MemoryClient, olm: FakeOlm) -> None:
    events = [
        Piece(thinking="Hm, <now>."),
        Piece(content="a", thinking="b", logprobs=(PROB,)),
        Piece(thinking="c", logprobs=(PROB,)),
        Done("stop"),
    ]

    frames = await stream(client, olm, *events)
    merged = await whole(client, olm, *events)

    logprobs = f',"logprobs":{PROB_JSON}'
    assert frames == [
        delta('"role":"assistant","content":"","reasoning":"Hm, \\u003cnow\\u003e."'),
        delta('"reasoning":"b"', more=logprobs),
        delta('"content":"a"'),
        delta('"content":"","reasoning":"c"', more=logprobs),
        delta("", finish='"stop"'),
        DONE,
    ]
    assert (
        '"message":{"role":"assistant","content":"a","reasoning":"Hm, \\u003cnow\\u003e.bc"}'
        in merged
    )


async def test_a_call_is_streamed_as_it_is_written(client: MemoryClient, olm: FakeOlm) -> None:
    events = [
        Piece(content="Let me see."),
        *called("get_weather", '{"location": "Paris"}'),
        *called("f", "{}", index=1),
        Done("stop"),
    ]

    frames = await stream(client, olm, *events)

    def begin(index: int, name: str) -> str:
        return delta(
            f'"content":"","tool_calls":[{{"index":{index},"id":"call_{index:08}","type":"function",'
            f'"function":{{"name":"{name}","arguments":""}}}}]'
        )

    def part(index: int, text: str) -> str:
        return delta(
            f'"tool_calls":[{{"index":{index},"function":{{"arguments":{json.dumps(text)}}}}}]'
        )

    assert frames == [
        delta('"role":"assistant","content":"Let me see."'),
        begin(0, "get_weather"),
        part(0, '{"location'),
        part(0, '": "Paris"}'),
        begin(1, "f"),
        part(1, "{"),
        part(1, "}"),
        delta("", finish='"tool_calls"'),
        DONE,
    ]


async def test_everything_in_one_document(client: MemoryClient, olm: FakeOlm) -> None:
    body = await whole(
        client,
        olm,
        Piece(thinking="Need weather."),
        Piece(content="Hi", logprobs=(PROB,)),
        *called("get_weather", '{"location": "Paris"}'),
        Done("stop", n_prompt=9, n_cached=8, n_generated=3),
    )

    call = (
        '{"id":"call_00000000","index":0,"type":"function","function":{"name":"get_weather",'
        '"arguments":"{\\"location\\": \\"Paris\\"}"}}'
    )
    message = f'"content":"Hi","reasoning":"Need weather.","tool_calls":[{call}]'
    logprobs = f',"logprobs":{PROB_JSON}'
    assert body == document(message, "tool_calls", usage(9, 3, 8), logprobs)


@pytest.mark.parametrize(("reason", "finish"), [("stop", "tool_calls"), ("length", "length")])
async def test_calls_are_the_reason_only_of_an_end_of_its_own(
    client: MemoryClient, olm: FakeOlm, reason: str, finish: str
) -> None:
    events = [*called("f"), *answer(reason=reason)]

    frames = await stream(client, olm, *events)
    body = json.loads(await whole(client, olm, *events))

    assert frames[-2] == delta("", finish=f'"{finish}"')
    assert body["choices"][0]["finish_reason"] == finish


async def test_a_malformed_call_comes_back_as_content(client: MemoryClient, olm: FakeOlm) -> None:
    events = [
        CallStart(0, "call_x", "f"),
        CallArguments(0, '{"loc'),
        CallEnd(0, None),
        Piece(content='<tool_call>{"loc', malformed=True),
        Done("stop", malformed=True),
    ]

    frames = await stream(client, olm, *events)
    body = json.loads(await whole(client, olm, *events))

    assert frames[2:] == [
        delta('"content":"\\u003ctool_call\\u003e{\\"loc"'),
        delta("", finish='"stop"'),
        DONE,
    ]
    assert body["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": '<tool_call>{"loc'},
        "finish_reason": "stop",
    }


async def test_logprobs_have_openais_shape(client: MemoryClient, olm: FakeOlm) -> None:
    plain = TokenLogprob(b"\xe2", -1.0)

    frames = await stream(
        client, olm, Piece("Hi", logprobs=(PROB,)), Piece(logprobs=(plain,)), Done("stop")
    )

    assert frames[:2] == [
        delta('"role":"assistant","content":"Hi"', more=f',"logprobs":{PROB_JSON}'),
        delta(
            '"content":""',
            more=',"logprobs":{"content":[{"token":"\ufffd","logprob":-1.0,"bytes":[226],"top_logprobs":[]}]}',
        ),
    ]


def test_the_id_and_the_model_are_escaped_once_for_all_chunks() -> None:
    form = ChatForm(Answering("i", 'a"<b', 7))

    (frame,) = form.line(Piece("x"), load_ns=0, total_ns=lambda: 0).decode().split("\n\n")[:-1]

    assert json.loads(frame.removeprefix("data: "))["model"] == 'a"<b'
    assert "<" not in frame


async def test_a_prompt_can_be_rendered_without_being_sent(
    client: MemoryClient, olm: FakeOlm
) -> None:
    olm.models.rendered = RenderedPrompt("<|user|>Hi", 1)

    body = await whole(client, olm, _debug_render_only=True, stream=True)

    assert body == (
        '{"id":"chatcmpl-X","object":"chat.completion","created":1,"model":"tiny","system_fingerprint":"fp_ollama",'
        '"choices":[{"index":0,"message":{"role":"","content":""},"finish_reason":null}],'
        f'"usage":{usage(0, 0)},'
        '"_debug_info":{"rendered_template":"\\u003c|user|\\u003eHi","image_count":1}}'
    )
    assert [isinstance(request, tuple) for request in olm.models.requests] == [True]


# --- several choices --------------------------------------------------------------------------------------------------


Respond = Callable[[ChatRequest | GenerateRequest], list[Step]]


def _by_seed(scripts: dict[int, list[Step]]) -> Respond:
    def respond(request: ChatRequest | GenerateRequest) -> list[Step]:
        seed = request.options["seed"]
        assert isinstance(seed, int)
        return scripts[seed]

    return respond


async def test_choices_run_at_once_and_are_interleaved(client: MemoryClient, olm: FakeOlm) -> None:
    """The first choice ends only after the second has: neither waits for the other's turn."""
    second_ended = trio.Event()

    olm.models.respond = _by_seed(
        {
            0: [
                Piece("a"),
                Until(second_ended),
                Piece("b"),
                Done("stop", n_prompt=5, n_generated=2),
            ],
            1: [Piece("x"), Done("length", n_prompt=5, n_cached=5, n_generated=1)],
        }
    )
    await client.send(
        "POST",
        "/v1/chat/completions",
        {**CHAT, "stream": True, "n": 2, "seed": 0, "stream_options": {"include_usage": True}},
    )
    with trio.fail_after(5):
        await trio.testing.wait_all_tasks_blocked()
        second_ended.set()
        reply = await client.read()

    frames = masked(reply)[:-2].split("\n\n")
    of_first = [frame for frame in frames if '"index":0,' in frame]
    of_second = [frame for frame in frames if '"index":1,' in frame]
    assert of_first == [
        delta('"role":"assistant","content":"a"'),
        delta('"content":"b"'),
        delta("", finish='"stop"'),
    ]
    assert of_second == [
        delta('"role":"assistant","content":"x"', index=1),
        delta("", index=1, finish='"length"'),
    ]
    assert frames.index(of_second[-1]) < frames.index(of_first[1])
    # The prompt's tokens count once, as the first choice met it.
    assert frames[-2:] == [f'{HEAD}],"usage":{usage(5, 3)}}}', DONE]


async def test_choices_of_a_document_keep_their_order(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.respond = _by_seed({n: answer(str(n)) for n in range(4)})

    body = json.loads(await whole(client, olm, n=4, seed=0))

    assert [(c["index"], c["message"]["content"]) for c in body["choices"]] == [
        (0, "0"), (1, "1"), (2, "2"), (3, "3"),
    ]  # fmt: skip
    assert body["usage"]["prompt_tokens"] == 11
    assert body["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize("streamed", [True, False])
async def test_one_choice_that_fails_ends_the_others(
    client: MemoryClient, olm: FakeOlm, streamed: bool
) -> None:
    """Nothing has been sent yet, so the error has a status of its own."""
    never = trio.Event()
    olm.models.respond = _by_seed(
        {0: [Until(never)], 1: [RunnerCrashed("the worker died")], 2: [Until(never)]}
    )

    with trio.fail_after(5):
        reply = await client.post(
            "/v1/chat/completions", {**CHAT, "n": 3, "seed": 0, "stream": streamed}
        )
        await olm.models.all_ended.wait()

    assert (reply.status, reply.json["error"]) == (
        500,
        {"message": "the worker died", "type": "api_error", "param": None, "code": None},
    )
    assert olm.models.n_running == 0


async def test_a_client_that_leaves_ends_all_choices(
    server: MemoryServer, client: MemoryClient, olm: FakeOlm
) -> None:
    never = trio.Event()
    olm.models.script = [Piece("a"), Until(never)]
    await client.send("POST", "/v1/chat/completions", {**CHAT, "n": 3, "stream": True})
    await client.next_event()
    await client.next_event()
    assert olm.models.n_running == 3

    await client.aclose()

    with trio.fail_after(5):
        await olm.models.all_ended.wait()


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("error", "status", "kind", "param", "code"),
    [
        (ModelNotFound("model 'x' not found"), 404, "not_found_error", "model", "model_not_found"),
        (ContextTooLong("too long"), 400, "invalid_request_error", None, "context_length_exceeded"),
        (Busy("server busy", retry_after_s=3), 503, "api_error", None, None),
        (RunnerCrashed("the worker died"), 500, "api_error", None, None),
        (InvalidRequest("x", param="n", code="bad"), 400, "invalid_request_error", "n", "bad"),
        (InvalidRequest("x", code="INVALID_ARGUMENT"), 400, "invalid_request_error", None, None),
    ],
)
async def test_errors_before_the_first_event(
    client: MemoryClient,
    olm: FakeOlm,
    streamed: bool,
    error: Exception,
    status: int,
    kind: str,
    param: str | None,
    code: str | None,
) -> None:
    olm.models.enter_error = error

    reply = await client.post("/v1/chat/completions", {**CHAT, "stream": streamed})

    assert (reply.status, reply.json["error"]) == (
        status,
        {"message": str(error), "type": kind, "param": param, "code": code},
    )
    assert reply.headers.get("retry-after") == ("3" if status == 503 else None)


@pytest.mark.parametrize("n", [1, 2])
async def test_an_error_in_a_stream_is_its_last_frame(
    client: MemoryClient, olm: FakeOlm, n: int
) -> None:
    """Of several choices either may be the first to say something."""
    frames = await stream(client, olm, Piece("Hi"), RunnerCrashed("the worker died"), n=n)

    assert frames[0] in [delta('"role":"assistant","content":"Hi"', index=i) for i in range(n)]
    assert frames[-1] == (
        'data: {"error":{"message":"the worker died","type":"api_error","param":null,"code":null}}'
    )
    assert DONE not in frames


async def test_a_turn_that_was_called_off_is_an_error(client: MemoryClient, olm: FakeOlm) -> None:
    frames = await stream(client, olm, Piece("Hi"), Done("cancelled"))
    olm.models.script = [Piece("Hi"), Done("cancelled")]
    reply = await client.post("/v1/chat/completions", CHAT)

    assert '"message":"request canceled"' in frames[-1]
    assert reply.status == 499


# --- models -----------------------------------------------------------------------------------------------------------


async def test_models_are_listed(client: MemoryClient, olm: FakeOlm) -> None:
    olm.store.add("library/Other:1b")
    olm.store.add("hf.co/me/big:Q4")

    reply = await client.get("/v1/models")
    olm.store.models.clear()
    empty = await client.get("/v1/models")

    rows = (
        f'{{"id":"{name}","object":"model","created":1787335200,"owned_by":"{owner}"}}'
        for name, owner in (
            ("tiny:latest", "library"),
            ("Other:1b", "library"),
            ("hf.co/me/big:Q4", "me"),
        )
    )
    assert reply.text == f'{{"object":"list","data":[{",".join(rows)}]}}'
    assert empty.text == '{"object":"list","data":[]}'


@pytest.mark.parametrize(
    ("path", "name", "owner"),
    [
        ("tiny", "tiny", "library"),
        ("tiny:latest", "tiny:latest", "library"),
        ("TINY%3Alatest", "TINY:latest", "library"),
        ("library/tiny", "library/tiny", "library"),
        ("library%2Ftiny", "library/tiny", "library"),
        ("hf.co/me/big:Q4", "hf.co/me/big:Q4", "me"),
        ("hf.co%2Fme%2Fbig%3AQ4", "hf.co/me/big:Q4", "me"),
    ],
)
async def test_one_model(
    client: MemoryClient, olm: FakeOlm, path: str, name: str, owner: str
) -> None:
    olm.store.add("hf.co/me/big:Q4")

    reply = await client.get(f"/v1/models/{path}")

    assert reply.text == (
        f'{{"id":"{name}","object":"model","created":1787335200,"owned_by":"{owner}"}}'
    )


async def test_a_model_that_is_not_there(client: MemoryClient) -> None:
    reply = await client.get("/v1/models/no/such")

    assert (reply.status, reply.text) == (
        404,
        (
            '{"error":{"message":"model \'no/such\' not found","type":"not_found_error","param":"model",'
            '"code":"model_not_found"}}'
        ),
    )
