"""What the fields and items of `/v1/responses` become on their way to the models, and what is refused in which words."""

from __future__ import annotations

import base64
import json

import pytest

from kit.fake_olm import FakeOlm, answer, called
from kit.memory_http import MemoryClient
from olm.actors.client import ChatRequest
from olm.chat.types import (
    CallArguments,
    CallEnd,
    CallStart,
    ChatMessage,
    Constraint,
    Done,
    Piece,
    TokenLogprob,
    ToolCall,
    ToolChoice,
    TopLogprob,
)

PNG = b"\x89PNG\r\n"
DATA_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {}}}
TOOL = {
    "type": "function",
    "name": "f",
    "description": "Does.",
    "parameters": SCHEMA,
    "strict": True,
}
USER = {"role": "user", "content": "Hi"}


async def ask(client: MemoryClient, olm: FakeOlm, **fields: object) -> ChatRequest:
    """Send a request and return what the models were asked."""
    olm.models.requests.clear()
    reply = await client.post("/v1/responses", {"model": "tiny", "input": "Hi", **fields})
    assert reply.status == 200, reply.text
    (request,) = olm.models.requests
    assert isinstance(request, ChatRequest)
    return request


async def told(client: MemoryClient, **fields: object) -> dict[str, object]:
    """Send a request and return the response."""
    reply = await client.post("/v1/responses", {"model": "tiny", "input": "Hi", **fields})
    assert reply.status == 200, reply.text
    return reply.json


async def refusal(client: MemoryClient, olm: FakeOlm, **fields: object) -> tuple[str, str]:
    """Send a request that is refused before any model hears of it; the message and the field."""
    reply = await client.post("/v1/responses", {"model": "tiny", "input": "Hi", **fields})
    assert (reply.status, olm.models.requests) == (400, [])
    error = reply.json["error"]
    assert isinstance(error, dict)
    assert error["type"] == "invalid_request_error"
    return error["message"], error["param"]


# --- items ------------------------------------------------------------------------------------------------------------


async def test_a_text_with_instructions(client: MemoryClient, olm: FakeOlm) -> None:
    request = await ask(client, olm, instructions="Be kind.")

    assert request.messages == [ChatMessage("system", "Be kind."), ChatMessage("user", "Hi")]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (USER, ChatMessage("user", "Hi")),
        ({"type": "message", **USER}, ChatMessage("user", "Hi")),
        ({"role": "developer", "content": "Do."}, ChatMessage("system", "Do.")),
        ({"role": "user", "content": None}, ChatMessage("user")),
        (
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "a"},
                    {"type": "input_text", "text": "b"},
                ],
            },
            ChatMessage("user", "ab"),
        ),
        (
            {
                "role": "user",
                "content": [
                    {"type": "input_image", "image_url": DATA_URL, "detail": "auto"},
                    {"type": "input_text", "text": "What?"},
                ],
            },
            ChatMessage("user", "What?", images=(PNG,)),
        ),
        (
            {
                "type": "message",
                "role": "assistant",
                "id": "msg_1",
                "status": "completed",
                "content": [{"type": "output_text", "text": "Yes", "annotations": []}],
            },
            ChatMessage("assistant", "Yes"),
        ),
        (
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]},
            ChatMessage("assistant", "No"),
        ),
        (
            {"type": "function_call_output", "call_id": "c", "output": "22"},
            ChatMessage("tool", "22", tool_call_id="c"),
        ),
        (
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": [
                    {"type": "input_text", "text": "see"},
                    {"type": "input_image", "image_url": DATA_URL},
                ],
            },
            ChatMessage("tool", "see\n[img]", images=(PNG,), tool_call_id="c"),
        ),
        (
            {"type": "reasoning", "encrypted_content": "Hm", "summary": []},
            ChatMessage("assistant", thinking="Hm"),
        ),
        (
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]},
            ChatMessage("assistant", thinking="Hm"),
        ),
        (
            {
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": "short"}],
                "content": [{"type": "reasoning_text", "text": "long"}],
            },
            ChatMessage("assistant", thinking="long"),
        ),
    ],
)
async def test_items(
    client: MemoryClient, olm: FakeOlm, item: dict[str, object], message: ChatMessage
) -> None:
    assert (await ask(client, olm, input=[item])).messages == [message]


async def test_what_the_assistant_did_is_one_message(client: MemoryClient, olm: FakeOlm) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a":1}'}
    items = [
        USER,
        {"type": "reasoning", "encrypted_content": "Hm"},
        {"role": "assistant", "content": "I call."},
        call,
        {**call, "call_id": "d", "arguments": ""},
        {**call, "call_id": "e", "status": "incomplete", "arguments": '{"a'},
        {"role": "assistant", "content": " Both."},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "function_call_output", "call_id": "d", "output": "2"},
    ]

    calls = (ToolCall("f", '{"a":1}', "c"), ToolCall("f", "{}", "d"))
    assert (await ask(client, olm, input=items)).messages == [
        ChatMessage("user", "Hi"),
        ChatMessage("assistant", "I call. Both.", thinking="Hm", tool_calls=calls),
        ChatMessage("tool", "2", tool_name="f", tool_call_id="d"),
    ]


async def test_reasoning_belongs_to_what_follows_it(client: MemoryClient, olm: FakeOlm) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    items = [
        {"type": "reasoning", "encrypted_content": "one"},
        call,
        {"type": "reasoning", "encrypted_content": "two"},
        {**call, "call_id": "d"},
    ]

    assert (await ask(client, olm, input=items)).messages == [
        ChatMessage("assistant", thinking="one", tool_calls=(ToolCall("f", "{}", "c"),)),
        ChatMessage("assistant", thinking="two", tool_calls=(ToolCall("f", "{}", "d"),)),
    ]


PART = "content parts must be objects with a type"


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (None, "input is required"),
        ("", "input is required"),
        ([], "input is required"),
        (7, "input must be a string or array"),
        ({"role": "user"}, "input must be a string or array"),
        ([{"content": "x"}], "input[0]: input item missing required 'type' field"),
        ([USER, {"type": "message"}], "input[1]: message missing required 'role' field"),
        ([{"type": "magic"}], 'input[0]: unknown input item type: "magic"'),
        ([{"role": "user", "content": 3}], "content must be a string or array"),
        ([{"role": "user", "content": ["x"]}], PART),
        ([{"role": "user", "content": [{"type": "x"}]}], "unknown content type: x"),
        (
            [{"role": "user", "content": [{"type": "input_file", "file_data": "x"}]}],
            "file inputs are not currently supported",
        ),
        (
            [{"role": "user", "content": [{"type": "input_image", "file_id": "x"}]}],
            "input_image needs an image_url: olm keeps no files",
        ),
        (
            [{"role": "user", "content": [{"type": "input_image", "image_url": "http://x/y.png"}]}],
            "image URLs are not currently supported, please use base64 encoded data instead",
        ),
        (
            [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "[1]"}],
            "failed to parse function call arguments: not a JSON object",
        ),
    ],
)
async def test_items_that_are_refused(
    client: MemoryClient, olm: FakeOlm, items: object, message: str
) -> None:
    assert await refusal(client, olm, input=items) == (message, "input")


async def test_items_of_wrong_types_are_named(client: MemoryClient, olm: FakeOlm) -> None:
    message, _ = await refusal(client, olm, input=[USER, {"type": "function_call", "name": 3}])

    assert message.startswith("input[1]: ")


@pytest.mark.parametrize(
    "text", [b'"\xff"', b'[{"role":"user","content":"\xff"}]', b'[{"role":"\xff","content":""}]']
)
async def test_what_is_no_utf8_is_refused(client: MemoryClient, text: bytes) -> None:
    reply = await client.post("/v1/responses", b'{"model":"tiny","input":' + text + b"}")

    assert reply.status == 400


# --- tools ------------------------------------------------------------------------------------------------------------


async def test_tools_take_the_form_of_chats(client: MemoryClient, olm: FakeOlm) -> None:
    bare = {"type": "function", "name": "g", "parameters": None}
    request = await ask(client, olm, tools=[TOOL, bare, {"type": "web_search_preview"}])

    assert json.loads(request.tools_json) == [
        {
            "type": "function",
            "function": {"name": "f", "description": "Does.", "parameters": SCHEMA},
        },
        {
            "type": "function",
            "function": {"name": "g", "parameters": {"type": "object", "properties": {}}},
        },
    ]
    assert list(json.loads(request.tools_json)[0]["function"]["parameters"]["properties"]) == [
        "b",
        "a",
    ]


async def test_groups_of_tools(client: MemoryClient, olm: FakeOlm) -> None:
    group = {"type": "namespace", "name": "crm", "description": "x", "tools": [TOOL]}
    olm.models.script = [*called("crm.f", "{}"), *answer()]
    whole = await told(client, tools=[group])
    call = whole["output"][0]  # type: ignore[index]
    request = await ask(client, olm, tools=[group], input=[USER, call])

    assert json.loads(request.tools_json)[0]["function"]["name"] == "crm.f"
    assert whole["tools"] == [group]
    assert (call["namespace"], call["name"]) == ("crm", "f")
    assert request.messages[1].tool_calls[0].name == "crm.f"


@pytest.mark.parametrize(
    ("value", "choice"),
    [
        (None, ToolChoice()),
        ("auto", ToolChoice()),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ({"type": "function", "name": "f"}, ToolChoice("required", "f")),
    ],
)
async def test_tool_choice(
    client: MemoryClient, olm: FakeOlm, value: object, choice: ToolChoice
) -> None:
    request = await ask(client, olm, tools=[TOOL], tool_choice=value, parallel_tool_calls=False)
    whole = await told(client, tools=[TOOL], tool_choice=value, parallel_tool_calls=False)

    assert request.tool_choice == choice
    assert not request.parallel_tool_calls
    assert whole["tool_choice"] == (value or "auto")
    assert whole["parallel_tool_calls"] is False


async def test_allowed_tools_leave_out_the_others(client: MemoryClient, olm: FakeOlm) -> None:
    allowed = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "g"}],
    }
    request = await ask(client, olm, tools=[TOOL, {**TOOL, "name": "g"}], tool_choice=allowed)

    (tool,) = json.loads(request.tools_json)
    assert tool["function"]["name"] == "g"
    assert request.tool_choice == ToolChoice("required")


@pytest.mark.parametrize(
    ("fields", "message", "param"),
    [
        (
            {"tools": [{"type": "code_interpreter"}]},
            'tools of type "code_interpreter" are not supported (olm takes "function")',
            "tools",
        ),
        ({"tools": [{"type": "function"}]}, "a tool must have a function with a name", "tools"),
        ({"tools": {}}, "tools must be an array", "tools"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "x"}},
            'tool_choice: "x" is not among the tools',
            "tool_choice",
        ),
        (
            {
                "tools": [TOOL],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{"type": "function", "name": "x"}],
                },
            },
            'tool_choice: "x" is not among the tools',
            "tool_choice",
        ),
        (
            {
                "tools": [TOOL],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{"type": "mcp"}],
                },
            },
            'invalid tool_choice: {"type": "mcp"} does not name a function',
            "tool_choice",
        ),
        ({"tool_choice": "required"}, 'tool_choice "required" needs tools', "tool_choice"),
    ],
)
async def test_tools_that_are_refused(
    client: MemoryClient, olm: FakeOlm, fields: dict[str, object], message: str, param: str
) -> None:
    assert await refusal(client, olm, **fields) == (message, param)


async def test_calls_that_broke_off(client: MemoryClient, olm: FakeOlm) -> None:
    """A stream has told their beginning; whole answers leave them out. Their text is in a message."""
    olm.models.script = [
        CallStart(0, "call_1", "f"),
        CallArguments(0, '{"a'),
        CallEnd(0, None),
        Piece(content='f({"a'),
        Done("stop"),
    ]
    whole = (await told(client, tools=[TOOL]))["output"]
    body = {"model": "tiny", "input": "Hi", "tools": [TOOL], "stream": True}
    stream = (await client.post("/v1/responses", body)).text
    last = json.loads(stream.strip().rpartition("data: ")[2])["response"]

    assert [item["type"] for item in whole] == ["message"]  # type: ignore[attr-defined]
    assert [(i["type"], i["status"]) for i in last["output"]] == [
        ("function_call", "incomplete"),
        ("message", "completed"),
    ]
    assert "function_call_arguments.done" not in stream
    olm.models.script = answer()
    request = await ask(client, olm, previous_response_id=last["id"])
    assert request.messages[1] == ChatMessage("assistant", 'f({"a')


# --- fields -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format_", "wanted"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, Constraint("json")),
        (
            {"type": "json_schema", "name": "n", "strict": True, "schema": SCHEMA},
            Constraint("json_schema", json.dumps(SCHEMA)),
        ),
    ],
)
async def test_text_format(
    client: MemoryClient, olm: FakeOlm, format_: object, wanted: Constraint | None
) -> None:
    request = await ask(client, olm, text={"format": format_})
    whole = await told(client, text={"format": format_})

    assert request.constraint == wanted
    assert whole["text"] == {"format": format_ or {"type": "text"}}


async def test_sampling_is_left_to_the_model(client: MemoryClient, olm: FakeOlm) -> None:
    plain = await ask(client, olm)
    full = await ask(
        client, olm, temperature=0.5, top_p=0.9, max_output_tokens=7, seed=3, top_k=5, stop="x"
    )

    assert plain.options == {}
    assert full.options == {
        "temperature": 0.5,
        "top_p": 0.9,
        "num_predict": 7,
        "seed": 3,
        "top_k": 5,
        "stop": ("x",),
    }


@pytest.mark.parametrize(
    ("effort", "think"),
    [(None, None), ("none", False), ("minimal", "low"), ("high", "high"), ("xhigh", "max")],
)
async def test_reasoning(
    client: MemoryClient, olm: FakeOlm, effort: str | None, think: object
) -> None:
    request = await ask(client, olm, reasoning={"effort": effort, "summary": "auto"})
    whole = await told(client, reasoning={"effort": effort, "summary": "auto"})

    assert request.think == think
    assert whole["reasoning"] == {"effort": effort, "summary": "auto"}


@pytest.mark.parametrize(
    ("given", "cuts", "said"),
    [(None, True, "auto"), ("auto", True, "auto"), ("disabled", False, "disabled")],
)
async def test_truncation(
    client: MemoryClient, olm: FakeOlm, given: str | None, cuts: bool, said: str
) -> None:
    request = await ask(client, olm, truncation=given)
    whole = await told(client, truncation=given)

    assert (request.truncate, request.shift) == (cuts, cuts)
    assert whole["truncation"] == said


async def test_logprobs(client: MemoryClient, olm: FakeOlm) -> None:
    entry = TokenLogprob(b"Hi", -0.5, (TopLogprob(b"Ho", -1.0),))
    olm.models.script = [Piece(content="Hi", logprobs=(entry,)), Done("stop")]
    included = await ask(client, olm, include=["message.output_text.logprobs"])
    topped = await ask(client, olm, top_logprobs=2)
    plain = await ask(client, olm, include=["reasoning.encrypted_content"])
    whole = await told(client, top_logprobs=2)
    body = {"model": "tiny", "input": "Hi", "top_logprobs": 2, "stream": True}
    stream = (await client.post("/v1/responses", body)).text

    told_entry = {
        "token": "Hi",
        "logprob": -0.5,
        "bytes": [72, 105],
        "top_logprobs": [{"token": "Ho", "logprob": -1, "bytes": [72, 111]}],
    }
    assert [r.n_logprobs for r in (included, topped, plain)] == [0, 2, -1]
    assert whole["output"][0]["content"][0]["logprobs"] == [told_entry]  # type: ignore[index]
    (delta,) = [line for line in stream.split("\n") if '"delta"' in line]
    assert json.loads(delta.removeprefix("data: "))["logprobs"] == [told_entry]


@pytest.mark.parametrize(
    ("fields", "message", "param"),
    [
        (
            {"conversation": "conv_1"},
            "conversations are not supported: continue a response with previous_response_id",
            "conversation",
        ),
        ({"prompt": {"id": "p"}}, "prompt templates are not supported", "prompt"),
        (
            {"max_output_tokens": 0},
            "max_output_tokens must be at least 1, not 0",
            "max_output_tokens",
        ),
        (
            {"truncation": "some"},
            'invalid truncation: "some" (must be "auto" or "disabled")',
            "truncation",
        ),
        (
            {"text": {"format": {"type": "xml"}}},
            'invalid text.format: "xml" (must be "text", "json_object" or "json_schema")',
            "text.format",
        ),
        (
            {"text": {"format": {"type": "json_schema", "name": "n"}}},
            "text.format: a JSON schema is missing or is not an object",
            "text.format.schema",
        ),
        (
            {"text": {"format": {"type": "json_object"}}, "grammar": 'root ::= "a"'},
            "text.format and other forms cannot be combined",
            "text.format",
        ),
        ({"top_logprobs": 21}, "top_logprobs must be between 0 and 20", "top_logprobs"),
        ({"model": " "}, "model is required", "model"),
    ],
)
async def test_fields_that_are_refused(
    client: MemoryClient, olm: FakeOlm, fields: dict[str, object], message: str, param: str
) -> None:
    assert await refusal(client, olm, **fields) == (message, param)


@pytest.mark.parametrize(
    "metadata", [{"a": 1}, {"a" * 65: "x"}, {"a": "x" * 513}, {f"{i}": "" for i in range(17)}]
)
async def test_metadata_is_bounded(
    client: MemoryClient, olm: FakeOlm, metadata: dict[str, object]
) -> None:
    message, param = await refusal(client, olm, metadata=metadata)

    assert message.startswith("metadata must be up to 16 texts")
    assert param == "metadata"
