"""Every form of a line that a turn can send, byte for byte: thinking, calls, logprobs, flags; and the merged answers."""

from __future__ import annotations

import re

import msgspec
import pytest

from kit.fake_olm import FakeOlm, Step, called
from kit.memory_http import MemoryClient, Reply
from olm.actors.client import RenderedPrompt
from olm.api.dialects.ollama_events import ChatForm, GenerateForm
from olm.chat.types import (
    CallArguments,
    CallEnd,
    CallStart,
    Done,
    Piece,
    TokenLogprob,
    TopLogprob,
)
from olm.errors import TemplateError

TOOLS = [{"type": "function", "function": {"name": "get_weather"}}]
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "tools": TOOLS}
HEAD = '{"model":"tiny","created_at":"T","message":{"role":"assistant","content":"'
CALL = (
    '{"id":"call_00000000","function":{"index":0,"name":"get_weather",'
    '"arguments":{"location":"Paris","b":1.50,"a":{"\\u003c":[]}}}}'
)
WEATHER = called("get_weather", '{"location": "Paris",\n "b":1.50,\t"a":{"<":[ ]}}')
PROB = TokenLogprob(b"Hi", -0.25, (TopLogprob(b"Hi", -0.25), TopLogprob(b"\xe2", -2.5)))
PROB_JSON = (
    '[{"token":"Hi","logprob":-0.25,"bytes":[72,105],"top_logprobs":'
    '[{"token":"Hi","logprob":-0.25,"bytes":[72,105]},{"token":"\ufffd","logprob":-2.5,"bytes":[226]}]}]'
)


def masked(reply: Reply) -> list[str]:
    """The lines, with their stamps and the time they took taken out."""
    text = re.sub(r'"created_at":"[^"]*Z"', '"created_at":"T"', reply.text)
    return re.sub(r'"total_duration":\d+', '"total_duration":1', text).splitlines()


async def chat(client: MemoryClient, olm: FakeOlm, *events: Step, **more: object) -> list[str]:
    olm.models.script, olm.models.load_ns = list(events), 0
    reply = await client.post("/api/chat", {**CHAT, **more})
    assert reply.status == 200
    return masked(reply)


async def generate(client: MemoryClient, olm: FakeOlm, *events: Step, **more: object) -> list[str]:
    olm.models.script, olm.models.load_ns = list(events), 0
    reply = await client.post("/api/generate", {"model": "tiny", "prompt": "Hi", **more})
    assert reply.status == 200
    return masked(reply)


async def test_a_chat_with_everything_in_it(client: MemoryClient, olm: FakeOlm) -> None:
    events: list[Step] = [
        Piece(thinking="Need weather, <now>."),
        Piece(),
        Piece(content="Let me see."),
        *WEATHER,
        Piece(content="Hi", logprobs=(PROB,)),
        Piece(content="a", thinking="b"),
        Done("stop", n_prompt=3, n_cached=2, truncated=True, n_generated=5),
    ]

    lines = await chat(client, olm, *events)

    assert lines == [
        HEAD + '","thinking":"Need weather, \\u003cnow\\u003e."},"done":false}',
        HEAD + 'Let me see."},"done":false}',
        HEAD + f'","tool_calls":[{CALL}]}},"done":false}}',
        HEAD + f'Hi"}},"done":false,"logprobs":{PROB_JSON}}}',
        HEAD + 'a","thinking":"b"},"done":false}',
        HEAD + '"},"done":true,"done_reason":"stop","total_duration":1,"prompt_eval_count":3,'
        '"prompt_eval_cached_count":2,"truncated":true,"eval_count":5}',
    ]


async def test_a_completion_with_everything_in_it(client: MemoryClient, olm: FakeOlm) -> None:
    head = '{"model":"tiny","created_at":"T","response":"'
    events: list[Step] = [
        Piece(thinking="Hm."),
        *WEATHER,
        Piece(content="Hi"),
        Piece(logprobs=(PROB,)),
        Done("length", context=(1, 2), truncated=True, malformed=True),
    ]

    lines = await generate(client, olm, *events)

    assert lines == [
        head + '","thinking":"Hm.","done":false}',
        head + 'Hi","done":false}',
        head + f'","done":false,"logprobs":{PROB_JSON}}}',
        head + '","done":true,"done_reason":"length","context":[1,2],"total_duration":1,'
        f'"truncated":true,"tool_calls":[{CALL}],"malformed_tool_call":true}}',
    ]


async def test_whole_answers_merge_everything(client: MemoryClient, olm: FakeOlm) -> None:
    events: list[Step] = [
        Piece(thinking="Need "),
        Piece(thinking="weather."),
        Piece(content="Hi", logprobs=(PROB,)),
        *WEATHER,
        *called("get_weather", index=1),
        Piece(content="!"),
        Done("stop", truncated=True, malformed=True),
    ]
    second = CALL.replace("00000000", "00000001").replace('"index":0', '"index":1')
    second = re.sub(r'"arguments":.*', '"arguments":{}}}', second)

    (chatted,) = await chat(client, olm, *events, stream=False)
    (completed,) = await generate(client, olm, *events, stream=False)

    ending = '"done":true,"done_reason":"stop",'
    assert chatted == (
        HEAD + f'Hi!","thinking":"Need weather.","tool_calls":[{CALL},{second}]}},{ending}'
        f'"logprobs":{PROB_JSON},"total_duration":1,"truncated":true,"malformed_tool_call":true}}'
    )
    assert completed == (
        '{"model":"tiny","created_at":"T","response":"Hi!","thinking":"Need weather.",'
        f'{ending}"total_duration":1,"truncated":true,"tool_calls":[{CALL},{second}],'
        f'"logprobs":{PROB_JSON},"malformed_tool_call":true}}'
    )


async def test_without_tools_a_whole_chat_leaves_calls_out_and_a_streamed_one_does_not(
    client: MemoryClient, olm: FakeOlm
) -> None:
    (whole,) = await chat(client, olm, *WEATHER, Done("stop"), stream=False, tools=None)
    streamed = await chat(client, olm, *WEATHER, Done("stop"), tools=None)

    assert "tool_calls" not in whole
    assert "tool_calls" in streamed[0]


async def test_a_malformed_call_comes_back_as_content(client: MemoryClient, olm: FakeOlm) -> None:
    lines = await chat(
        client,
        olm,
        CallStart(0, "call_x", "get_weather"),
        CallArguments(0, '{"loc'),
        CallEnd(0, None),
        Piece(content='<tool_call>{"loc', malformed=True),
        Done("length", malformed=True),
    )

    assert lines == [
        HEAD + '\\u003ctool_call\\u003e{\\"loc"},"done":false}',
        HEAD
        + '"},"done":true,"done_reason":"length","total_duration":1,"malformed_tool_call":true}',
    ]


async def test_logprobs_flow_while_a_parser_holds_its_text_back(
    client: MemoryClient, olm: FakeOlm
) -> None:
    lines = await chat(client, olm, Piece(logprobs=(PROB,)), *WEATHER, Done("stop"))

    assert lines[0] == HEAD + f'"}},"done":false,"logprobs":{PROB_JSON}}}'
    assert "tool_calls" in lines[1]


@pytest.mark.parametrize("form", [ChatForm("m"), GenerateForm("m")])
def test_the_parts_of_a_call_are_no_lines_of_their_own(form: ChatForm | GenerateForm) -> None:
    for event in (CallStart(0, "i", "f"), CallArguments(0, "{}"), CallEnd(0, None), Piece()):
        assert form.line(event, load_ns=0, total_ns=lambda: 0) == b""


def test_the_cheap_spelling_is_the_same_as_the_whole_one() -> None:
    """Content and thinking alone take a short way; with logprobs beside them they take the long one."""
    for form in (ChatForm("m", epoch_ns=lambda: 1), GenerateForm("m", epoch_ns=lambda: 1)):
        for piece in (Piece(content='a"<\u2028\n'), Piece(thinking='a"<\u2028\n')):
            with_probs = msgspec.structs.replace(piece, logprobs=(PROB,))

            short = form.line(piece, load_ns=0, total_ns=lambda: 0)
            long = form.line(with_probs, load_ns=0, total_ns=lambda: 0)

            assert short == re.sub(rb',"logprobs":.*(?=\}\n)', b"", long)


async def test_a_prompt_can_be_rendered_without_being_sent(
    client: MemoryClient, olm: FakeOlm
) -> None:
    olm.models.rendered = RenderedPrompt("<|user|>Hi [img-0]", 1)

    chatted = await client.post("/api/chat", {**CHAT, "_debug_render_only": True})
    olm.models.rendered = RenderedPrompt("Hi")
    completed = await client.post(
        "/api/generate", {"model": "tiny", "prompt": "Hi", "_debug_render_only": True}
    )

    message = '"message":{"role":"","content":""},"done":false'
    info = '{"rendered_template":"\\u003c|user|\\u003eHi [img-0]","image_count":1}'
    assert masked(chatted) == [
        f'{{"model":"tiny","created_at":"T",{message},"_debug_info":{info}}}'
    ]
    assert masked(completed) == [
        '{"model":"tiny","created_at":"T","response":"","done":false,"_debug_info":{"rendered_template":"Hi"}}'
    ]
    assert chatted.headers["content-type"] == "application/json; charset=utf-8"
    assert [isinstance(request, tuple) for request in olm.models.requests] == [True, True]


async def test_a_template_that_fails_is_told(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.enter_error = TemplateError('template of "tiny": line 3: no such function')

    replies = [
        await client.post("/api/chat", {**CHAT, "_debug_render_only": debug, "stream": stream})
        for debug, stream in ((True, True), (False, True), (False, False))
    ]

    assert [(reply.status, reply.error) for reply in replies] == [
        (500, 'template of "tiny": line 3: no such function')
    ] * 3
