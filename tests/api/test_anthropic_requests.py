"""`/v1/messages`: what its fields ask of a model, and which requests are refused in which words."""

from __future__ import annotations

import base64
import json
from typing import cast

import attrs
import pytest

from kit.fake_olm import FakeOlm
from kit.memory_http import MemoryClient
from olm.actors.client import ChatRequest
from olm.chat.types import ChatMessage, Constraint, ToolCall, ToolChoice

HELLO = [{"role": "user", "content": "Hello"}]
LEAST = {"model": "tiny", "max_tokens": 64, "messages": HELLO}
WEATHER = {
    "name": "get_weather",
    "description": "Tells the weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": ["string", "null"], "anyOf": [{"minLength": 1}]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
PNG = b"\x89PNG\r\n\x1a\n some pixels"
PNG_BASE64 = base64.b64encode(PNG).decode()


async def asked(client: MemoryClient, olm: FakeOlm, **fields: object) -> ChatRequest:
    """Send a request with these fields and return what the models were asked."""
    olm.models.requests.clear()
    reply = await client.post("/v1/messages", {**LEAST, **fields})
    assert reply.status == 200, reply.text
    (request,) = olm.models.requests
    assert isinstance(request, ChatRequest)
    return request


async def said(client: MemoryClient, olm: FakeOlm, *content: object) -> list[ChatMessage]:
    """Send one user's message of these blocks and return it as the models got it."""
    request = await asked(client, olm, messages=[{"role": "user", "content": list(content)}])
    return list(request.messages)


async def refused(client: MemoryClient, **fields: object) -> str:
    """Send a request that is refused and return the words."""
    reply = await client.post("/v1/messages", {**LEAST, **fields})
    error = cast("dict[str, str]", reply.json["error"])
    assert (reply.status, error["type"]) == (400, "invalid_request_error"), reply.text
    return error["message"]


def make_thinker(olm: FakeOlm) -> None:
    """Give the fake's model the capability to think."""
    for key, model in olm.store.models.items():
        olm.store.models[key] = attrs.evolve(model, capabilities=("completion", "thinking"))


# --- the fields -----------------------------------------------------------------------------------------------------


async def test_only_what_is_said_becomes_an_option(client: MemoryClient, olm: FakeOlm) -> None:
    """The Modelfile's temperature must hold where the request has none."""
    assert await asked(client, olm) == ChatRequest(
        model="tiny",
        messages=[ChatMessage(role="user", content="Hello")],
        think=False,
        options={"num_predict": 64},
        truncate=False,
        shift=False,
    )


async def test_sampling_fields_are_options(client: MemoryClient, olm: FakeOlm) -> None:
    request = await asked(
        client, olm, temperature=0.5, top_p=0.9, top_k=7, stop_sequences=["END", "\n\n"]
    )

    assert request.options == {
        "num_predict": 64,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "stop": ["END", "\n\n"],
    }


async def test_nulls_and_unknown_fields_do_nothing(client: MemoryClient, olm: FakeOlm) -> None:
    names = ("system", "tools", "tool_choice", "thinking", "stop_sequences", "temperature")
    nulls = dict.fromkeys((*names, "top_p", "top_k", "stream", "output_config", "output_format"))
    metadata = {"user_id": "u", "service_tier": "auto", "mcp_servers": [], "betas": ["x"]}

    plain = await asked(client, olm)

    assert await asked(client, olm, **nulls, metadata=metadata, container="c") == plain


@pytest.mark.parametrize(
    ("system", "text"),
    [
        ("Be brief.", "Be brief."),
        (
            [
                {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=1a2b3;"},
                {"type": "text", "text": "Be ", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "brief."},
            ],
            "Be brief.",
        ),
    ],
    ids=["text", "blocks"],
)
async def test_system(client: MemoryClient, olm: FakeOlm, system: object, text: str) -> None:
    request = await asked(client, olm, system=system)

    assert request.messages == [
        ChatMessage(role="system", content=text),
        ChatMessage(role="user", content="Hello"),
    ]


async def test_later_instructions_stay_where_they_are(client: MemoryClient, olm: FakeOlm) -> None:
    """Templates want system messages only at the beginning; Claude Code sends them behind the user's."""
    more = {"role": "system", "content": [{"type": "text", "text": "Be kind."}]}
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": "r"}
    messages = [
        {"role": "system", "content": "And polite."},
        *HELLO,
        more,
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
        more,
    ]
    reminder = "<system-reminder>\nBe kind.\n</system-reminder>"

    request = await asked(client, olm, system="Be brief.", messages=messages)

    assert [(message.role, message.content) for message in request.messages] == [
        ("system", "Be brief.\n\nAnd polite."),
        ("user", f"Hello\n\n{reminder}"),
        ("assistant", ""),
        ("tool", "r"),
        ("user", reminder),
    ]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages?beta=true"])
async def test_the_beta_way_is_the_same(client: MemoryClient, path: str) -> None:
    assert (await client.post(path, LEAST)).status == 200


@pytest.mark.parametrize(
    ("fields", "think", "budget"),
    [
        ({}, False, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, True, 2048),
        ({"thinking": {"type": "enabled"}}, True, None),
        ({"thinking": {"type": "disabled"}}, False, None),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "max"}}, False, None),
        ({"thinking": {"type": "enabled"}, "output_config": {"effort": "max"}}, True, None),
        ({"thinking": {"type": "adaptive"}}, None, None),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}}, "high", None),
        ({"output_config": {"effort": "max"}}, "max", None),
        ({"output_config": {"effort": "unheard of"}}, False, None),
    ],
)
async def test_thinking(
    client: MemoryClient, olm: FakeOlm, fields: dict[str, object], think: object, budget: int | None
) -> None:
    """`effort` as in Ollama's table (spec/ollama §2.7); the rest as Anthropic documents it."""
    make_thinker(olm)

    request = await asked(client, olm, **fields)

    assert request.think == think
    assert request.options.get("think_budget") == budget


async def test_a_model_that_cannot_think_is_not_asked_to(
    client: MemoryClient, olm: FakeOlm
) -> None:
    request = await asked(client, olm, thinking={"type": "enabled", "budget_tokens": 2048})

    assert request.think is None
    assert request.options == {"num_predict": 64}


@pytest.mark.parametrize("field", ["output_config", "output_format"])
async def test_structured_outputs(client: MemoryClient, olm: FakeOlm, field: str) -> None:
    schema = {"type": "object", "properties": {"b": {"const": 1.0}, "a": {}}}
    wanted: dict[str, object] = {"type": "json_schema", "schema": schema}

    request = await asked(
        client, olm, **{field: {"format": wanted} if field == "output_config" else wanted}
    )

    text = '{"type":"object","properties":{"b":{"const":1.0},"a":{}}}'
    assert request.constraint == Constraint("json_schema", text)


# --- tools ----------------------------------------------------------------------------------------------------------


async def test_tools_keep_their_whole_schema(client: MemoryClient, olm: FakeOlm) -> None:
    request = await asked(client, olm, tools=[WEATHER])

    assert json.loads(request.tools_json) == [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "Tells the weather",
                "parameters": WEATHER["input_schema"],
            },
        }
    ]


async def test_a_tool_of_any_type_is_known_by_its_schema(
    client: MemoryClient, olm: FakeOlm
) -> None:
    tools = [
        {"type": "custom", "name": "bare"},
        {"type": "bash_20250124", "name": "bash", "input_schema": {"type": "object"}},
    ]

    request = await asked(client, olm, tools=tools)

    names = [tool["function"]["name"] for tool in json.loads(request.tools_json)]
    assert names == ["bare", "bash"]


@pytest.mark.parametrize(
    ("choice", "wanted", "parallel"),
    [
        ({"type": "auto"}, ToolChoice(), True),
        ({"type": "any"}, ToolChoice("required"), True),
        ({"type": "none"}, ToolChoice("none"), True),
        ({"type": "tool", "name": "get_weather"}, ToolChoice("required", "get_weather"), True),
        ({"type": "auto", "disable_parallel_tool_use": True}, ToolChoice(), False),
    ],
)
async def test_tool_choice(
    client: MemoryClient,
    olm: FakeOlm,
    choice: dict[str, object],
    wanted: ToolChoice,
    parallel: bool,
) -> None:
    request = await asked(client, olm, tools=[WEATHER], tool_choice=choice)

    assert (request.tool_choice, request.parallel_tool_calls) == (wanted, parallel)


async def test_calls_and_their_results_are_messages(client: MemoryClient, olm: FakeOlm) -> None:
    """Results come right behind the calls, with the tool's name, which templates want."""
    request = await asked(
        client,
        olm,
        messages=[
            *HELLO,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Look it up.", "signature": "olm"},
                    {"type": "redacted_thinking", "data": "xyz"},
                    {"type": "text", "text": "One "},
                    {"type": "text", "text": "moment."},
                    {
                        "type": "tool_use",
                        "id": "t1",
                        "name": "get_weather",
                        "input": {"z": 1.0, "city": "Zürich"},
                    },
                    {"type": "tool_use", "id": "t2", "name": "get_time", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "And?"},
                    {"type": "tool_result", "tool_use_id": "t1", "content": "22 degrees"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "t2",
                        "is_error": True,
                        "content": [
                            {"type": "text", "text": "no "},
                            {"type": "text", "text": "clock"},
                        ],
                    },
                ],
            },
        ],
    )

    assert request.messages[1:] == [
        ChatMessage(
            role="assistant",
            content="One moment.",
            thinking="Look it up.",
            tool_calls=(
                ToolCall("get_weather", '{"z":1.0,"city":"Zürich"}', "t1", 0),
                ToolCall("get_time", "{}", "t2", 1),
            ),
        ),
        ChatMessage(role="tool", content="22 degrees", tool_name="get_weather", tool_call_id="t1"),
        ChatMessage(
            role="tool", content="Error: no clock", tool_name="get_time", tool_call_id="t2"
        ),
        ChatMessage(role="user", content="And?"),
    ]


async def test_a_picture_may_be_a_result(client: MemoryClient, olm: FakeOlm) -> None:
    image = {"type": "image", "source": {"type": "base64", "data": PNG_BASE64}}

    (message,) = await said(
        client, olm, {"type": "tool_result", "tool_use_id": "t", "content": [image]}
    )

    assert message == ChatMessage(role="tool", images=(PNG,), tool_call_id="t")


# --- blocks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        {"type": "base64", "media_type": "image/png", "data": PNG_BASE64},
        {"type": "base64", "data": f"{PNG_BASE64[:8]}\r\n{PNG_BASE64[8:]}\n"},
        {"type": "url", "url": f"data:image/png;base64,{PNG_BASE64}"},
    ],
    ids=["base64", "lines", "data URL"],
)
async def test_images(client: MemoryClient, olm: FakeOlm, source: object) -> None:
    text = {"type": "text", "text": "What is it?"}

    messages = await said(client, olm, {"type": "image", "source": source}, text)

    assert messages == [ChatMessage(role="user", content="What is it?", images=(PNG,))]


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"type": "document", "source": {"type": "text", "data": "Once."}}, "Once.\n\n"),
        (
            {
                "type": "document",
                "title": "Tale",
                "source": {"type": "content", "content": [{"type": "text", "text": "Once."}]},
            },
            "Tale\nOnce.\n\n",
        ),
        (
            {
                "type": "search_result",
                "source": "http://x",
                "title": "Tale",
                "content": [{"type": "text", "text": "Once."}],
            },
            "Tale (http://x)\nOnce.\n\n",
        ),
        ({"type": "something_new", "text": "?"}, ""),
        ({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}, ""),
    ],
    ids=["document", "titled", "search result", "unknown", "server tool"],
)
async def test_other_blocks(client: MemoryClient, olm: FakeOlm, block: object, text: str) -> None:
    (message,) = await said(client, olm, block, {"type": "text", "text": "Hi"})

    assert message.content == text + "Hi"


async def test_broken_unicode_is_replaced(client: MemoryClient, olm: FakeOlm) -> None:
    """Clients cut texts in the middle of a pair; Go puts U+FFFD there."""
    body = json.dumps({**LEAST, "messages": [{"role": "user", "content": [{"type": "text"}]}]})
    body = body.replace('"type": "text"', '"type": "text", "text": "a\\ud83d"')

    reply = await client.post("/v1/messages", body.encode())

    assert reply.status == 200
    (request,) = olm.models.requests
    assert isinstance(request, ChatRequest)
    assert request.messages[0].content == "a\ufffd"


# --- refusals -------------------------------------------------------------------------------------------------------


async def test_the_order_of_the_first_checks(client: MemoryClient) -> None:
    assert await refused(client, model="", max_tokens=0, messages=[]) == "model is required"
    assert (
        await refused(client, max_tokens=0, messages=[])
        == "max_tokens is required and must be positive"
    )
    assert await refused(client, messages=[]) == "messages is required"
    assert await refused(client, messages=None) == "messages is required"


def user(*content: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": list(content)}]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": [{"role": "user"}]}, "invalid message content type: <nil>"),
        ({"messages": [{"role": "user", "content": 7}]}, "invalid message content type: float64"),
        (user("text"), "invalid content block format"),
        (user({"type": "tool_use"}), "tool_use block missing required 'id' field"),
        (user({"type": "tool_use", "id": "t"}), "tool_use block missing required 'name' field"),
        (
            user({"type": "tool_use", "id": "t", "name": "f", "input": []}),
            "tool_use block's 'input' must be an object",
        ),
        (user({"type": "image"}), "invalid image source"),
        (
            user({"type": "image", "source": {"type": "url", "url": "http://x/y.png"}}),
            "invalid image source type: url. Only base64 images are supported.",
        ),
        (
            user({"type": "image", "source": {"type": "base64", "data": "?"}}),
            "invalid base64 image data: Only base64 data is allowed",
        ),
        (
            user(
                {"type": "document", "source": {"type": "base64", "media_type": "application/pdf"}}
            ),
            "documents of application/pdf are not supported: send their text",
        ),
        (
            user({"type": "document", "source": {"type": "url", "url": "http://x"}}),
            "documents of source type url are not supported: send their text",
        ),
        (
            user({"type": "text", "text": 7}),
            (
                "json: cannot unmarshal number into Go struct field MessagesRequest.messages.content.text "
                "of type string"
            ),
        ),
        (user(), "messages: all of them are empty"),
        ({"tools": [{"input_schema": {}}]}, "tools: a tool must have a name"),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            (
                'tools: "web_search_20250305" is a tool of Anthropic\'s and not supported; '
                "a tool of your own has an input_schema"
            ),
        ),
        ({"tool_choice": {"type": "any"}}, 'tool_choice "any" needs tools'),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "other"}},
            'tool_choice: "other" is not among the tools',
        ),
        (
            {"tool_choice": {"type": "some"}},
            'invalid tool_choice type: "some" (must be "auto", "any", "tool", or "none")',
        ),
        (
            {"output_format": {"type": "text"}},
            'output format must be {"type": "json_schema", "schema": {...}}',
        ),
        (
            {"max_tokens": "many"},
            "json: cannot unmarshal string into Go struct field MessagesRequest.max_tokens of type int",
        ),
    ],
)
async def test_refusals(client: MemoryClient, fields: dict[str, object], message: str) -> None:
    assert await refused(client, **fields) == message


async def test_a_model_that_is_not_there(client: MemoryClient) -> None:
    for extra in ({}, {"stream": True}, {"thinking": {"type": "enabled"}}):
        reply = await client.request(
            "POST", "/v1/messages", {**LEAST, **extra, "model": "nope"}, {"X-Request-Id": "r1"}
        )

        assert reply.status == 404
        assert reply.headers["request-id"] == "r1"
        assert reply.text == (
            '{"type":"error","error":{"type":"not_found_error","message":"model \'nope\' not found"},'
            '"request_id":"r1"}'
        )


# --- counting -------------------------------------------------------------------------------------------------------


async def test_counting_wants_no_max_tokens(client: MemoryClient, olm: FakeOlm) -> None:
    body = {"model": "tiny", "messages": HELLO, "system": "Be brief", "tools": [WEATHER]}

    reply = await client.post("/v1/messages/count_tokens?beta=true", body)

    assert (reply.status, reply.text) == (200, '{"input_tokens":3}')
    ((what, request),) = cast("list[tuple[str, ChatRequest]]", olm.models.requests)
    assert what == "count"
    assert "get_weather" in request.tools_json
    assert request.options == {}


@pytest.mark.parametrize(
    ("body", "status", "kind", "message"),
    [
        ({}, 400, "invalid_request_error", "model is required"),
        ({"model": "tiny"}, 400, "invalid_request_error", "messages is required"),
        ({"model": "nope", "messages": HELLO}, 404, "not_found_error", "model 'nope' not found"),
    ],
)
async def test_counting_is_refused_in_the_same_words(
    client: MemoryClient, body: object, status: int, kind: str, message: str
) -> None:
    reply = await client.post("/v1/messages/count_tokens", body)

    assert (reply.status, reply.json["error"]) == (status, {"type": kind, "message": message})
    assert reply.json["request_id"] == reply.headers["request-id"]
