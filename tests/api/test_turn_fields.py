"""What the fields of /api/chat and /api/generate become on their way to the models, and what is refused in which words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit.fake_olm import FakeOlm
from kit.memory_http import MemoryClient
from olm.actors.client import ChatRequest, GenerateRequest
from olm.chat.options import OPTION_TYPES, coerce_options, sampling
from olm.chat.types import ChatMessage, Constraint, ToolCall, ToolChoice

MESSAGES = [{"role": "user", "content": "Hello"}]
SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"pattern": "x+"}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
NO_OBJECT = "Value looks like object, but can't find closing '}' symbol"


async def chat(client: MemoryClient, olm: FakeOlm, **fields: object) -> ChatRequest:
    """Send a chat and return what the models were asked."""
    olm.models.requests.clear()
    reply = await client.post("/api/chat", {"model": "tiny", "messages": MESSAGES, **fields})
    assert reply.status == 200, reply.text
    (request,) = olm.models.requests
    assert isinstance(request, ChatRequest)
    return request


async def refusal(client: MemoryClient, olm: FakeOlm, **fields: object) -> tuple[int, str]:
    """Send a chat that is refused before any model hears of it."""
    body = {"model": "tiny", "messages": MESSAGES, **fields}
    reply = await client.post("/api/chat", body)
    assert olm.models.requests == []
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    return reply.status, reply.error


# --- what the answer must look like -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, None),
        ({"format": None}, None),
        ({"format": ""}, None),
        ({"grammar": "", "structured_outputs": None}, None),
        ({"format": "json"}, Constraint("json")),
        ({"format": SCHEMA}, Constraint("json_schema", json.dumps(SCHEMA))),
        ({"format": {}}, Constraint("json_schema", "{}")),
        ({"grammar": 'root ::= "a"'}, Constraint("gbnf", 'root ::= "a"')),
        ({"structured_outputs": {"json": SCHEMA}}, Constraint("json_schema", json.dumps(SCHEMA))),
        (
            {"structured_outputs": {"json": ' {"type":"null"} '}},
            Constraint("json_schema", '{"type":"null"}'),
        ),
        ({"structured_outputs": {"json_object": True}}, Constraint("json")),
        ({"structured_outputs": {"regex": "a+", "json": None}}, Constraint("regex", "a+")),
        ({"structured_outputs": {"choice": ["ä", "b"]}}, Constraint("choice", '["ä","b"]')),
        ({"structured_outputs": {"lark": 'start: "a"'}}, Constraint("lark", 'start: "a"')),
        ({"structured_outputs": {"gbnf": 'root ::= "a"'}}, Constraint("gbnf", 'root ::= "a"')),
        (
            {"structured_outputs": {"grammar": 'root ::= "a"'}},
            Constraint("gbnf", 'root ::= "a"'),
        ),
        (
            {"structured_outputs": {"grammar": '// not ::= here\nstart: "a"'}},
            Constraint("lark", '// not ::= here\nstart: "a"'),
        ),
    ],
)
async def test_constraints(
    client: MemoryClient, olm: FakeOlm, fields: dict[str, object], wanted: Constraint | None
) -> None:
    chatted = await chat(client, olm, **fields)
    olm.models.requests.clear()
    await client.post("/api/generate", {"model": "tiny", "prompt": "Hi", **fields})
    (completed,) = olm.models.requests

    assert chatted.constraint == wanted
    assert isinstance(completed, GenerateRequest)
    assert completed.constraint == wanted


EXACTLY_ONE = 'structured_outputs must have exactly one of "json", "regex", "choice", "lark", "gbnf", or "grammar"'
COMBINED = "format, structured_outputs and grammar cannot be combined"
OUTPUTS = "Go struct field ChatRequest.structured_outputs"
NO_SCHEMA = "structured_outputs.json must be a JSON schema, as an object or as text"


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        (
            {"format": "xml"},
            500,
            r'invalid format: "\"xml\""; expected "json" or a valid JSON Schema object',
        ),
        (
            {"format": [1]},
            500,
            'invalid format: "[1]"; expected "json" or a valid JSON Schema object',
        ),
        ({"format": "json", "grammar": "x"}, 400, COMBINED),
        ({"format": SCHEMA, "structured_outputs": {"regex": "x"}}, 400, COMBINED),
        ({"grammar": "x", "structured_outputs": {"regex": "x"}}, 400, COMBINED),
        ({"structured_outputs": {}}, 400, EXACTLY_ONE),
        ({"structured_outputs": {"regex": ""}}, 400, EXACTLY_ONE),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, 400, EXACTLY_ONE),
        ({"structured_outputs": {"json": "x"}}, 400, NO_SCHEMA),
        ({"structured_outputs": {"json": 3}}, 400, NO_SCHEMA),
        (
            {"structured_outputs": {"json": "{"}},
            400,
            "structured_outputs.json is not JSON: Input data was truncated",
        ),
        (
            {"structured_outputs": {"choice": ["a", ""]}},
            400,
            "structured_outputs.choice must not have an empty text",
        ),
        (
            {"structured_outputs": {"choice": "a"}},
            400,
            f"json: cannot unmarshal string into {OUTPUTS}.choice of type []string",
        ),
        (
            {"structured_outputs": "json"},
            400,
            f"json: cannot unmarshal string into {OUTPUTS} of type api.StructuredOutputs",
        ),
        (
            {"grammar": {}},
            400,
            "json: cannot unmarshal object into Go struct field ChatRequest.grammar of type string",
        ),
    ],
)
async def test_constraints_that_are_none(
    client: MemoryClient, olm: FakeOlm, fields: dict[str, object], status: int, message: str
) -> None:
    assert await refusal(client, olm, **fields) == (status, message)


# --- tools ------------------------------------------------------------------------------------------------------------


async def test_tools_travel_as_they_were_written(client: MemoryClient, olm: FakeOlm) -> None:
    tools = (
        '[{"type":"function","x-vendor":1,"function":{"strict":true,"name":"f","parameters":'
        '{"type":"object","additionalProperties":false,"properties":{"z":{"type":["string","null"],'
        '"default":"<q>","minLength":1},"a":{"anyOf":[{"$ref":"#/$defs/n"}]}},"$defs":{"n":{"minimum":1.50}}}}}]'
    )
    body = f'{{"model":"tiny","messages":[{{"role":"user","content":"x"}}],"tools":{tools}}}'

    await client.request("POST", "/api/chat", body.encode())

    (request,) = olm.models.requests
    assert isinstance(request, ChatRequest)
    assert request.tools_json == tools


@pytest.mark.parametrize("tools", [None, []])
async def test_no_tools_are_none(client: MemoryClient, olm: FakeOlm, tools: object) -> None:
    assert (await chat(client, olm, tools=tools)).tools_json == ""


FIELD = "Go struct field ChatRequest.tools"


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ("f", f"json: cannot unmarshal string into {FIELD} of type []api.Tool"),
        ([1], f"json: cannot unmarshal number into {FIELD} of type api.Tool"),
        (
            [{"function": {"name": 1}}],
            f"json: cannot unmarshal number into {FIELD}.function.name of type string",
        ),
        (
            [{"function": {"name": "f", "parameters": []}}],
            f"json: cannot unmarshal array into {FIELD}.function.parameters of type api.ToolFunctionParameters",
        ),
        (
            [{"function": {"name": "f", "parameters": {"required": "a"}}}],
            f"json: cannot unmarshal string into {FIELD}.function.parameters.required of type []string",
        ),
        (
            [{"function": {"name": "f", "parameters": {"properties": {"a": "string"}}}}],
            f"json: cannot unmarshal string into {FIELD}.function.parameters.properties of type api.ToolProperty",
        ),
        (
            [{"function": {"name": "f", "parameters": {"properties": {"a": {"enum": 1}}}}}],
            f"json: cannot unmarshal number into {FIELD}.function.parameters.properties.enum of type []interface {{}}",
        ),
        ([{"type": "function"}], "a tool must have a function with a name"),
        ([{"function": {"name": ""}}], "a tool must have a function with a name"),
        ([TOOL, None], "a tool must have a function with a name"),
    ],
)
async def test_tools_of_a_wrong_shape(
    client: MemoryClient, olm: FakeOlm, tools: object, message: str
) -> None:
    assert await refusal(client, olm, tools=tools) == (400, message)


async def test_tools_and_schemas_nested_without_end(client: MemoryClient, olm: FakeOlm) -> None:
    deep: dict[str, object] = {}
    for _ in range(130):
        deep = {"items": deep}
    tool = {"function": {"name": "f", "parameters": {"properties": {"a": deep}}}}

    for fields in ({"tools": [tool]}, {"format": deep}, {"chat_template_kwargs": deep}):
        assert await refusal(client, olm, **fields) == (400, "exceeded max depth")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, ToolChoice()),
        ("auto", ToolChoice()),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice("required", "f")),
    ],
)
async def test_tool_choice(
    client: MemoryClient, olm: FakeOlm, given: object, wanted: ToolChoice
) -> None:
    request = await chat(client, olm, tools=[TOOL], tool_choice=given)

    assert request.tool_choice == wanted


CHOICES = '"auto", "none", "required", or {"type": "function", "function": {"name": "..."}}'


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tool_choice": "required"}, 'tool_choice "required" needs tools'),
        ({"tool_choice": "any"}, f'invalid tool_choice: "any" (must be {CHOICES})'),
        ({"tool_choice": 1}, f"invalid tool_choice: 1 (must be {CHOICES})"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "g"}}, "tools": [TOOL]},
            'tool_choice: "g" is not among the tools',
        ),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            'tool_choice: "f" is not among the tools',
        ),
        (
            {"tool_choice": {"function": {"name": "f"}}, "tools": [TOOL]},
            f'invalid tool_choice: {{"function": {{"name": "f"}}}} (must be {CHOICES})',
        ),
    ],
)
async def test_tool_choices_that_are_none(
    client: MemoryClient, olm: FakeOlm, fields: dict[str, object], message: str
) -> None:
    assert await refusal(client, olm, **fields) == (400, message)


async def test_the_other_additions(client: MemoryClient, olm: FakeOlm) -> None:
    plain = await chat(client, olm)
    request = await chat(
        client,
        olm,
        parallel_tool_calls=False,
        chat_template_kwargs={"z": [1], "enable_thinking": False},
        options={"think_budget": 64.0},
    )

    assert (plain.parallel_tool_calls, plain.template_kwargs_json) == (True, "")
    assert request.parallel_tool_calls is False
    assert request.template_kwargs_json == '{"z":[1],"enable_thinking":false}'
    assert sampling(coerce_options(request.options)).think_budget == 64


def test_every_option_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")

    assert [name for name in OPTION_TYPES if f"`{name}`" not in text] == []


async def test_template_variables_that_are_none(client: MemoryClient, olm: FakeOlm) -> None:
    status, message = await refusal(client, olm, chat_template_kwargs=[])

    field = "Go struct field ChatRequest.chat_template_kwargs"
    wanted = f"json: cannot unmarshal array into {field} of type map[string]interface {{}}"
    assert (status, message) == (400, wanted)


# --- messages ---------------------------------------------------------------------------------------------------------


async def test_messages_are_brought_to_their_form(client: MemoryClient, olm: FakeOlm) -> None:
    arguments = '{"z":1,"a":{"b":[1.50]}}'
    body = (
        '{"model":"tiny","messages":[{"role":"USER","content":"c","images":["aGk="]},'
        '{"role":"assistant","thinking":"t","tool_calls":[{"id":"i","function":'
        f'{{"index":1,"name":"f","arguments":{arguments}}}}}]}},'
        '{"role":"tool","tool_name":"f","tool_call_id":"i","content":"r"}]}'
    )

    await client.request("POST", "/api/chat", body.encode())

    (request,) = olm.models.requests
    assert isinstance(request, ChatRequest)
    assert list(request.messages) == [
        ChatMessage("user", "c", images=(b"hi",)),
        ChatMessage("assistant", thinking="t", tool_calls=(ToolCall("f", arguments, "i", 1),)),
        ChatMessage("tool", "r", tool_name="f", tool_call_id="i"),
    ]


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ({}, ChatMessage("")),
        (None, ChatMessage("")),
        ({"role": "developer", "content": "x"}, ChatMessage("developer", "x")),
        ({"role": "Narrator", "content": "x"}, ChatMessage("narrator", "x")),
        ({"role": "user", "content": None}, ChatMessage("user")),
        ({"role": "tool", "content": "42"}, ChatMessage("tool", "42")),
        (
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]},
            ChatMessage("assistant", tool_calls=(ToolCall("f"),)),
        ),
        (
            {"role": "assistant", "tool_calls": [{}, None]},
            ChatMessage("assistant", tool_calls=(ToolCall(""), ToolCall(""))),
        ),
    ],
)
async def test_odd_messages_are_the_templates_business(
    client: MemoryClient, olm: FakeOlm, message: object, wanted: ChatMessage
) -> None:
    request = await chat(client, olm, messages=[*MESSAGES, message])

    assert request.messages[-1] == wanted


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (None, "{}"),
        ({}, "{}"),
        ("", "{}"),
        ('{"a": "b"}', '{"a": "b"}'),
        ({"a": "\u2028"}, '{"a": "\\u2028"}'),
    ],
)
async def test_arguments_are_objects_or_the_text_of_one(
    client: MemoryClient, olm: FakeOlm, arguments: object, wanted: str
) -> None:
    call = {"function": {"name": "f", "arguments": arguments}}

    request = await chat(client, olm, messages=[{"role": "assistant", "tool_calls": [call]}])

    assert request.messages[0].tool_calls == (ToolCall("f", wanted),)


@pytest.mark.parametrize("arguments", ["x", '{"a":', "[1]", [1], 3, True])
async def test_arguments_that_are_no_object(
    client: MemoryClient, olm: FakeOlm, arguments: object
) -> None:
    call = {"function": {"name": "f", "arguments": arguments}}

    found = await refusal(client, olm, messages=[{"role": "assistant", "tool_calls": [call]}])

    assert found == (400, NO_OBJECT)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"tiny","messages":[{"role":"user","content":"a\xffb"}]}',
        b'{"model":"tiny","messages":[{"role":"user","content":"x"}],"format":{"title":"a\xffb"}}',
        b'{"model":"tiny","messages":[{"role":"user","content":"x"}],"tools":[{"function":{"name":"a\xffb"}}]}',
        b'{"model":"tiny","messages":[{"tool_calls":[{"function":{"name":"x","arguments":{"a\xffb":1}}}]}]}',
        b'{"model":"tiny","messages":[{"role":"user","content":"x"}],"chat_template_kwargs":{"a\xffb":1}}',
        b'{"model":"tiny","messages":[{"role":"user","content":"x"}],"structured_outputs":{"json":"{\\"a\xffb\\":1}"}}',
        b'{"model":"tiny","messages":[{"role":"user","content":"x"}],"grammar":"a\xffb"}',
        b'{"model":"tiny","messages":[{"role":"user","content":"x"}],"tools":[{"function":{"name":"a\\udc00b"}}]}',
    ],
)
async def test_bytes_that_are_no_utf8_are_replaced(
    client: MemoryClient, olm: FakeOlm, body: bytes
) -> None:
    reply = await client.request("POST", "/api/chat", body)

    assert reply.status == 200, reply.text
    assert "a\ufffdb" in str(olm.models.requests[0])


async def test_names_in_another_case_are_found_and_those_in_schemas_left_alone(
    client: MemoryClient, olm: FakeOlm
) -> None:
    request = await chat(
        client,
        olm,
        Think="high",
        TOOLS=[{"function": {"name": "f", "parameters": {"properties": {"Model": {}}}}}],
    )

    assert request.think == "high"
    assert '"Model"' in request.tools_json


async def test_capitals_of_schemas_do_not_cost_the_slow_way(
    client: MemoryClient, olm: FakeOlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("olm.api.body.decode_slowly", lambda *_: pytest.fail("the slow way"))
    parameters = {"additionalProperties": False, "properties": {"a": {"anyOf": [{"maxItems": 1}]}}}

    request = await chat(client, olm, tools=[{"function": {"name": "f", "parameters": parameters}}])

    assert "maxItems" in request.tools_json
