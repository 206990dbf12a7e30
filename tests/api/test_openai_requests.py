"""What the fields of OpenAI's chat become on their way to the models, and what is refused in which words."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest

from kit.fake_olm import FakeOlm
from kit.memory_http import MemoryClient
from olm.actors.client import ChatRequest
from olm.chat.options import merge_options, sampling
from olm.chat.types import ChatMessage, Constraint, ToolCall, ToolChoice

USER = {"role": "user", "content": "Hello"}
PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 8
IMAGE = "data:image/png;base64," + base64.b64encode(PNG).decode()
WAV = b"RIFF0000WAVE"
SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"pattern": "x+"}}}
F = {"type": "function", "function": {"name": "f", "strict": True, "parameters": SCHEMA}}
G = {"type": "function", "function": {"name": "g"}}


async def asked(client: MemoryClient, olm: FakeOlm, **fields: object) -> list[ChatRequest]:
    """Send a chat and return what the models were asked."""
    olm.models.requests.clear()
    body = {"model": "tiny", "messages": [USER], **fields}
    reply = await client.post("/v1/chat/completions", body)
    assert reply.status == 200, reply.text
    return [request for request in olm.models.requests if isinstance(request, ChatRequest)]


async def ask(client: MemoryClient, olm: FakeOlm, **fields: object) -> ChatRequest:
    (request,) = await asked(client, olm, **fields)
    return request


async def refusal(client: MemoryClient, olm: FakeOlm, **fields: object) -> tuple[int, object]:
    """Send a chat that is refused before any model hears of it; status and error without its type."""
    body = {"model": "tiny", "messages": [USER], **fields}
    reply = await client.post("/v1/chat/completions", body)
    assert olm.models.requests == []
    error = reply.json["error"]
    assert isinstance(error, dict)
    return reply.status, (error["message"], error["param"])


# --- messages ---------------------------------------------------------------------------------------------------------


async def test_messages_of_every_role(client: MemoryClient, olm: FakeOlm) -> None:
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "f", "arguments": '{"b": 1, "a":2}'},
    }

    request = await ask(
        client,
        olm,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {
                "role": "System",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
            {"role": "user", "content": "Hi", "name": "Tom", "unknown": 1},
            {"role": "assistant", "content": None, "reasoning": "Hm.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
            {"role": "tool", "tool_call_id": "c9", "name": "own", "content": "2"},
            {"role": "function", "name": "f", "content": "3"},
            {"role": "assistant", "content": "So.", "reasoning_content": "Hm?", "tool_calls": None},
        ],
    )

    assert request.messages == [
        ChatMessage("system", "Be brief."),
        ChatMessage("system", "a\nb"),
        ChatMessage("user", "Hi"),
        ChatMessage(
            "assistant", thinking="Hm.", tool_calls=(ToolCall("f", '{"b": 1, "a":2}', "c1"),)
        ),
        ChatMessage("tool", "1", tool_name="f", tool_call_id="c1"),
        ChatMessage("tool", "2", tool_name="own", tool_call_id="c9"),
        ChatMessage("tool", "3", tool_name="f"),
        ChatMessage("assistant", "So.", thinking="Hm?"),
    ]


async def test_the_name_of_a_result_is_that_of_the_latest_call_with_its_id(
    client: MemoryClient, olm: FakeOlm
) -> None:
    def call(name: str) -> dict[str, object]:
        made = {"id": "c", "type": "function", "function": {"name": name, "arguments": ""}}
        return {"role": "assistant", "content": "", "tool_calls": [made]}

    result = {"role": "tool", "tool_call_id": "c", "content": ""}
    request = await ask(client, olm, messages=[USER, call("f"), result, call("g"), result])

    assert [m.tool_name for m in request.messages if m.role == "tool"] == ["f", "g"]
    assert request.messages[1].tool_calls[0].arguments_json == "{}"


def _image(url: object) -> dict[str, object]:
    return {"type": "image_url", "image_url": url}


A, B = {"type": "text", "text": "A"}, {"type": "text", "text": "B"}
PICTURE = _image({"url": IMAGE, "detail": "low"})


@pytest.mark.parametrize(
    ("parts", "content", "n_media"),
    [
        ([], "", 0),
        ([PICTURE], "", 1),
        ([PICTURE, A], "A", 1),
        ([_image(IMAGE), PICTURE, A, B], "A\nB", 2),
        ([A, PICTURE], "A\n[img]", 1),
        ([PICTURE, A, PICTURE, B], "[img]\nA\n[img]\nB", 2),
    ],
)
async def test_parts_stay_one_message_and_pictures_keep_their_places(
    client: MemoryClient, olm: FakeOlm, parts: list[object], content: str, n_media: int
) -> None:
    (message,) = (await ask(client, olm, messages=[{"role": "user", "content": parts}])).messages

    assert message == ChatMessage("user", content, images=(PNG,) * n_media)


async def test_sound_and_refusals_are_parts_too(client: MemoryClient, olm: FakeOlm) -> None:
    sound = {"data": base64.b64encode(WAV).decode(), "format": "wav"}
    parts = [
        {"type": "input_audio", "input_audio": sound},
        {"type": "refusal", "refusal": "No."},
        _image("data:;base64," + base64.b64encode(PNG).decode()),
    ]

    (message,) = (await ask(client, olm, messages=[{"role": "user", "content": parts}])).messages

    assert message == ChatMessage("user", "[img]\nNo.\n[img]", images=(WAV, PNG))


async def test_line_breaks_in_a_picture_are_passed_over(client: MemoryClient, olm: FakeOlm) -> None:
    broken = base64.encodebytes(PNG * 9).decode().replace("\n", "\r\n")
    parts = [_image(f"data:image/png;base64,{broken}")]

    (message,) = (await ask(client, olm, messages=[{"role": "user", "content": parts}])).messages

    assert message.images == (PNG * 9,)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "user"}, "invalid message content type: <nil>"),
        ({"role": "user", "content": 5}, "invalid message content type: float64"),
        ({"role": "user", "content": True}, "invalid message content type: bool"),
        ({"role": "user", "content": {}}, "invalid message content type: map[string]interface {}"),
        ({"role": "user", "content": ["x"]}, "invalid message format"),
        ({"role": "user", "content": [{"type": "text"}]}, "invalid message format"),
        ({"role": "user", "content": [{"type": "file", "file": {}}]}, "invalid message format"),
        ({"role": "user", "content": [_image({"url": 1})]}, "invalid message format"),
        (
            {"role": "user", "content": [_image({"url": "https://example.com/a.png"})]},
            "image URLs are not currently supported, please use base64 encoded data instead",
        ),
        (
            {"role": "user", "content": [_image("data:image/gif;base64,AAAA")]},
            "invalid image input",
        ),
        ({"role": "user", "content": [_image("data:image/png;base64,A%")]}, "invalid image input"),
        (
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "%"}}]},
            "invalid audio input",
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]},
            "invalid tool call arguments",
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]},
            "invalid tool call arguments",
        ),
    ],
)
async def test_messages_that_are_refused(
    client: MemoryClient, olm: FakeOlm, message: object, words: str
) -> None:
    assert await refusal(client, olm, messages=[message]) == (400, (words, "messages"))


# --- sampling ---------------------------------------------------------------------------------------------------------


async def test_nothing_asked_leaves_everything_to_the_modelfile(
    client: MemoryClient, olm: FakeOlm
) -> None:
    nulls = dict.fromkeys(
        ("temperature", "top_p", "stop", "n", "seed", "max_tokens", "logit_bias", "tools", "logprobs",
         "tool_choice", "response_format", "reasoning_effort", "stream", "stream_options", "user")
    )  # fmt: skip

    assert await ask(client, olm) == await ask(client, olm, **nulls)
    assert await ask(client, olm) == ChatRequest(
        model="tiny", messages=[ChatMessage("user", "Hello")]
    )


async def test_fields_become_options(client: MemoryClient, olm: FakeOlm) -> None:
    request = await ask(
        client,
        olm,
        options={"top_k": 1, "mirostat": 2, "num_ctx": 512},
        max_tokens=7,
        max_completion_tokens=9,
        temperature=0,
        top_p=0.5,
        seed=3,
        stop="END",
        frequency_penalty=0.25,
        presence_penalty=-0.25,
        logit_bias={"5": -100, "7": 1.5},
        top_k=3,
        min_p=0.1,
        typical_p=0.75,
        repetition_penalty=1.25,
        repeat_last_n=8,
        ignore_eos=True,
        think_budget=10,
        keep_alive="5m",
        truncate=False,
        shift=False,
        user="tom",
        store=True,
        metadata={"a": "b"},
    )

    merged = merge_options({"stop": ["old"], "min_p": 0.9, "num_keep": 2}, request.options)
    assert msgspec.structs.asdict(sampling(merged)) == msgspec.structs.asdict(sampling({})) | {
        "n_keep": 2, "mirostat": 2, "n_predict": 9, "temperature": 0.0, "top_p": 0.5, "seed": 3,
        "stop": ("END",), "frequency_penalty": 0.25, "presence_penalty": -0.25, "top_k": 3,
        "logit_bias": {5: -100.0, 7: 1.5}, "min_p": 0.1, "typical_p": 0.75, "repeat_penalty": 1.25,
        "repeat_last_n": 8, "ignore_eos": True, "think_budget": 10,
    }  # fmt: skip
    assert merged["num_ctx"] == 512
    assert (request.keep_alive_s, request.truncate, request.shift) == (300, False, False)


@pytest.mark.parametrize(
    ("fields", "option", "value"),
    [
        ({"max_tokens": 5}, "num_predict", 5),
        ({"stop": ["a", 1, "", "b"]}, "stop", ("a", "b")),
        ({"stop": []}, "stop", ()),
        ({"repeat_penalty": 1.5, "repetition_penalty": 1.25}, "repeat_penalty", 1.5),
        ({"seed": -1}, "seed", -1),
        ({"seed": (1 << 40) + 5}, "seed", 5),
        ({"seed": -2}, "seed", (1 << 31) - 2),
    ],
)
async def test_single_options(
    client: MemoryClient, olm: FakeOlm, fields: dict[str, object], option: str, value: object
) -> None:
    assert (await ask(client, olm, **fields)).options[option] == value


@pytest.mark.parametrize(
    ("fields", "words", "param"),
    [
        ({"logit_bias": {"x": 1}}, 'logit_bias: "x" is not a token id', "logit_bias"),
        ({"logit_bias": {"²": 1}}, 'logit_bias: "²" is not a token id', "logit_bias"),
        (
            {"logit_bias": {"5": 101}},
            "logit_bias: 101 of token 5 is not between -100 and 100",
            "logit_bias",
        ),
        (
            {"options": {"top_k": "x"}},
            'option "top_k" must be of type integer',
            "options",
        ),
        ({"n": 0}, "n must be between 1 and 16", "n"),
        ({"n": 17}, "n must be between 1 and 16", "n"),
        ({"top_logprobs": 21}, "top_logprobs must be between 0 and 20", "top_logprobs"),
        (
            {"reasoning_effort": "lots"},
            (
                'invalid reasoning value: "lots" (must be "minimal", "low", "medium", "high", "xhigh", "ultra",'
                ' "max", or "none")'
            ),
            "reasoning_effort",
        ),
        (
            {"n": 1.5},
            "json: cannot unmarshal number 1.5 into Go struct field ChatCompletionRequest.n of type int",
            None,
        ),
        (
            {"temperature": "hot"},
            "json: cannot unmarshal string into Go struct field ChatCompletionRequest.temperature of type float64",
            None,
        ),
        (
            {"messages": "Hi"},
            (
                "json: cannot unmarshal string into Go struct field ChatCompletionRequest.messages of type"
                " []api.Message"
            ),
            None,
        ),
        ({"messages": []}, "[] is too short - 'messages'", "messages"),
        ({"messages": None}, "[] is too short - 'messages'", "messages"),
        ({"model": ""}, "model is required", "model"),
        ({"model": None}, "model is required", "model"),
    ],
)
async def test_values_that_are_refused(
    client: MemoryClient, olm: FakeOlm, fields: dict[str, object], words: str, param: str | None
) -> None:
    assert await refusal(client, olm, **fields) == (400, (words, param))


async def test_no_body_is_eof(client: MemoryClient) -> None:
    reply = await client.post("/v1/chat/completions", b"")

    assert (reply.status, reply.text) == (
        400,
        '{"error":{"message":"EOF","type":"invalid_request_error","param":null,"code":null}}',
    )


@pytest.mark.parametrize("fields", [{"seed": 5}, {"seed": (1 << 31) - 2}, {"seed": -1}, {}])
async def test_each_choice_has_a_seed_of_its_own(
    client: MemoryClient, olm: FakeOlm, fields: dict[str, int]
) -> None:
    requests = await asked(client, olm, n=3, **fields)

    given = fields.get("seed", -1)
    expected = {given} if given < 0 else {(given + n) % (1 << 31) for n in range(3)}
    assert {request.options.get("seed", -1) for request in requests} == expected
    assert len(requests) == 3


@pytest.mark.parametrize(
    ("fields", "n_logprobs"),
    [
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 20}, 20),
        ({"logprobs": False, "top_logprobs": 2}, -1),
        ({"top_logprobs": 2}, -1),
    ],
)
async def test_logprobs(
    client: MemoryClient, olm: FakeOlm, fields: dict[str, object], n_logprobs: int
) -> None:
    assert (await ask(client, olm, **fields)).n_logprobs == n_logprobs


# --- thinking, tools, form of the answer ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "think"),
    [
        ({"reasoning_effort": ""}, None),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, "low"),
        ({"reasoning_effort": "low"}, "low"),
        ({"reasoning_effort": "medium"}, "medium"),
        ({"reasoning_effort": "high"}, "high"),
        ({"reasoning_effort": "xhigh"}, "max"),
        ({"reasoning": {"effort": "high"}, "reasoning_effort": "low"}, "high"),
        ({"reasoning": {"summary": "auto"}, "reasoning_effort": "low"}, "low"),
        ({"think": False}, False),
        ({"think": "max"}, "max"),
        ({"think": True, "reasoning_effort": "none"}, False),
    ],
)
async def test_effort_becomes_thinking(
    client: MemoryClient, olm: FakeOlm, fields: dict[str, object], think: object
) -> None:
    assert (await ask(client, olm, **fields)).think == think


async def test_tools_travel_as_they_came(client: MemoryClient, olm: FakeOlm) -> None:
    request = await ask(
        client,
        olm,
        tools=[F, G],
        parallel_tool_calls=False,
        chat_template_kwargs={"enable_thinking": False},
    )

    assert json.loads(request.tools_json) == [F, G]
    assert not request.parallel_tool_calls
    assert request.template_kwargs_json == '{"enable_thinking":false}'


def _allowed(mode: str, *names: str) -> dict[str, object]:
    named = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named}}


@pytest.mark.parametrize(
    ("choice", "wanted", "tools"),
    [
        ("auto", ToolChoice(), [F, G]),
        ("none", ToolChoice("none"), [F, G]),
        ("required", ToolChoice("required"), [F, G]),
        (
            {"type": "function", "function": {"name": "g"}},
            ToolChoice("required", "g"),
            [F, G],
        ),
        (_allowed("auto", "g"), ToolChoice(), [G]),
        (_allowed("required", "g", "f"), ToolChoice("required"), [F, G]),
        (_allowed("auto"), ToolChoice(), None),
    ],
)
async def test_tool_choice(
    client: MemoryClient, olm: FakeOlm, choice: object, wanted: ToolChoice, tools: object
) -> None:
    request = await ask(client, olm, tools=[F, G], tool_choice=choice)

    assert request.tool_choice == wanted
    assert (json.loads(request.tools_json) if request.tools_json else None) == tools


@pytest.mark.parametrize(
    ("fields", "words", "param"),
    [
        ({"tool_choice": "required"}, 'tool_choice "required" needs tools', "tool_choice"),
        ({"tools": [{"type": "function"}]}, "a tool must have a function with a name", "tools"),
        (
            {"tools": [F], "tool_choice": {"type": "function", "function": {"name": "h"}}},
            'tool_choice: "h" is not among the tools',
            "tool_choice",
        ),
        (
            {"tools": [F], "tool_choice": _allowed("auto", "h")},
            'tool_choice: "h" is not among the tools',
            "tool_choice",
        ),
        (
            {"tools": [F], "tool_choice": "any"},
            (
                'invalid tool_choice: "any" (must be "auto", "none", "required", or {"type": "function",'
                ' "function": {"name": "..."}})'
            ),
            "tool_choice",
        ),
    ],
)
async def test_tools_that_are_refused(
    client: MemoryClient, olm: FakeOlm, fields: dict[str, object], words: str, param: str
) -> None:
    assert await refusal(client, olm, **fields) == (400, (words, param))


JSON_SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "n", "strict": True, "schema": SCHEMA},
}
HELD = Constraint("json_schema", json.dumps(SCHEMA))


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {}}, None),
        ({"guided_json": None, "guided_regex": None, "grammar": None}, None),
        ({"response_format": {"type": "json_object"}}, Constraint("json")),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, HELD),
        ({"response_format": JSON_SCHEMA}, HELD),
        ({"structured_outputs": {"regex": "a+"}}, Constraint("regex", "a+")),
        ({"guided_json": SCHEMA}, HELD),
        ({"guided_regex": "a+", "guided_json": None}, Constraint("regex", "a+")),
        ({"guided_choice": ["a", "b"]}, Constraint("choice", '["a","b"]')),
        ({"guided_grammar": 'root ::= "a"'}, Constraint("gbnf", 'root ::= "a"')),
        ({"grammar": 'root ::= "a"', "response_format": {"type": "text"}}, Constraint("gbnf", 'root ::= "a"')),
    ],
)  # fmt: skip
async def test_forms_of_answers(
    client: MemoryClient, olm: FakeOlm, fields: dict[str, object], wanted: Constraint | None
) -> None:
    assert (await ask(client, olm, **fields)).constraint == wanted


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"response_format": {"type": "xml"}},
            'invalid response_format: "xml" (must be "text", "json_object" or "json_schema")',
        ),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format: a JSON schema is missing or is not an object",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": "x"}}},
            "response_format: a JSON schema is missing or is not an object",
        ),
        (
            {"response_format": JSON_SCHEMA, "grammar": 'root ::= "a"'},
            "response_format, structured_outputs and grammar cannot be combined",
        ),
        (
            {"guided_regex": "a", "structured_outputs": {"regex": "a"}},
            "structured_outputs and guided_* cannot be combined",
        ),
    ],
)
async def test_forms_that_are_refused(
    client: MemoryClient, olm: FakeOlm, fields: dict[str, object], words: str
) -> None:
    status, error = await refusal(client, olm, **fields)

    assert isinstance(error, tuple)
    assert (status, error[0]) == (400, words)
