"""Tools, thinking, JSON and memory with the built-in model, from HTTP to the engine and back, the three ways to a prompt."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import cast

import httpx2
import msgspec
import pytest

from kit.daemon import Daemon

pytestmark = [pytest.mark.daemon, pytest.mark.native]

Json = dict[str, object]

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather for a city",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "The city"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["location"],
        },
    },
}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module", params=["go", "jinja"])
def model(daemon: Daemon, request: pytest.FixtureRequest) -> str:
    """The built-in model by its Go template, and by the Jinja template that its weights carry."""
    if request.param == "go":
        return "tiny"
    data = resources.files("olm.data.tiny").joinpath("tiny-q8_0.gguf").read_bytes()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    httpx2.post(f"{daemon.url}/api/blobs/{digest}", content=data, timeout=60)
    body = {"model": "jinja", "files": {"tiny.gguf": digest}, "stream": False}
    assert httpx2.post(daemon.url + "/api/create", json=body, timeout=60).status_code == 200
    return "jinja"


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def post(daemon: Daemon, path: str, body: Mapping[str, object]) -> httpx2.Response:
    return httpx2.post(
        daemon.url + path, json={"model": "tiny", "stream": False, **body}, timeout=60
    )


def chat(daemon: Daemon, *messages: Json, **fields: object) -> Json:
    options = {"temperature": 0, **cast("Json", fields.pop("options", {}))}
    answer = post(daemon, "/api/chat", {"messages": messages, "options": options, **fields})
    assert answer.status_code == 200, answer.text
    return cast("Json", answer.json())


def ask(daemon: Daemon, model: str, *messages: Json, **fields: object) -> Json:
    return chat(daemon, *messages, model=model, **fields)


def said(answer: Json) -> Json:
    return cast("Json", answer["message"])


def calls(answer: Json) -> list[tuple[str, object]]:
    found = cast("list[dict[str, Json]]", said(answer).get("tool_calls", []))
    return [(str(call["function"]["name"]), call["function"]["arguments"]) for call in found]


# -- the model's own template -------------------------------------------------------------------------------------


def test_thinking_is_told_apart_from_the_answer(daemon: Daemon, model: str) -> None:
    question = user("What is the capital of France?")

    absent = said(ask(daemon, model, question))
    on = said(ask(daemon, model, question, think=True))
    off = said(ask(daemon, model, question, think=False))

    assert absent == on
    thought = str(on["thinking"])  # the Jinja way leaves blanks at its end, as llama-server does
    assert thought.strip() == "The user asks for the capital of France. It is Paris."
    assert on["content"] == "The capital of France is Paris."
    assert off == {"role": "assistant", "content": "The capital of France is Paris."}


def test_thinking_streams_before_the_answer(daemon: Daemon, model: str) -> None:
    body = {
        "model": model,
        "messages": [user("Who are you?")],
        "stream": True,
        "options": {"temperature": 0},
    }
    events = [
        msgspec.json.decode(line) for line in post(daemon, "/api/chat", body).text.splitlines()
    ]

    kinds = ["thinking" if "thinking" in e["message"] else "content" for e in events]
    assert [kind for kind, _ in itertools.groupby(kinds)] == ["thinking", "content"]
    text = "".join(event["message"].get("thinking", "") for event in events)
    assert text.strip() == "The user asks who I am. I am tiny."


def test_a_tool_is_called_and_its_result_used(daemon: Daemon, model: str) -> None:
    question = user("What is the weather in Paris?")

    asked = ask(daemon, model, question, tools=[WEATHER, ADD], think=False)
    answered = ask(
        daemon,
        model,
        question,
        said(asked),
        {"role": "tool", "tool_name": "get_weather", "content": "22 degrees and sunny"},
        tools=[WEATHER, ADD],
        think=False,
    )

    ((name, arguments),) = calls(asked)
    assert name == "get_weather"
    assert cast("Json", arguments)["location"] == "Paris"
    (call,) = cast("list[Json]", said(asked)["tool_calls"])
    assert re.fullmatch("call_[a-z0-9]{8}", str(call["id"]))
    assert said(asked)["content"] == ""
    assert "22 degrees and sunny" in str(said(answered)["content"])


def test_a_streamed_tool_call_is_a_line_of_its_own(daemon: Daemon, model: str) -> None:
    body = {
        "model": model,
        "messages": [user("What is the weather in Paris?")],
        "tools": [WEATHER],
        "think": False,
        "stream": True,
        "options": {"temperature": 0},
    }
    events = [
        msgspec.json.decode(line) for line in post(daemon, "/api/chat", body).text.splitlines()
    ]

    with_calls = [event["message"] for event in events if "tool_calls" in event["message"]]
    assert len(with_calls) == 1
    assert with_calls[0]["content"] == ""
    assert events[-1]["done"]
    assert not any("<tool_call>" in event["message"]["content"] for event in events)


def test_earlier_messages_are_remembered(daemon: Daemon, model: str) -> None:
    told = (user("My name is Alice."), {"role": "assistant", "content": "Nice to meet you, Alice!"})

    answer = ask(daemon, model, *told, user("What is my name?"), think=False)

    assert said(answer)["content"] == "Your name is Alice."


def test_an_assistants_last_message_is_continued(daemon: Daemon, model: str) -> None:
    begun = {"role": "assistant", "content": "The capital of Japan"}

    answer = ask(daemon, model, user("What is the capital of Japan?"), begun, think=False)

    assert said(answer)["content"] == " is Tokyo."


# -- held to a form -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("think", [True, False])
def test_a_schema_holds_the_answer_and_leaves_thinking_free(
    daemon: Daemon, model: str, think: bool
) -> None:
    for seed in range(4):
        answer = ask(
            daemon,
            model,
            user("Bob is 31 years old and lives in Rome. Respond using JSON."),
            format=PERSON,
            think=think,
            options={"temperature": 1.2, "seed": seed, "num_predict": 300},
        )

        person = json.loads(str(said(answer)["content"]))
        assert set(person) == {"name", "age"}
        assert 0 <= person["age"] <= 150
        assert ("thinking" in said(answer)) == think


def test_any_json_is_an_object(daemon: Daemon) -> None:
    answer = chat(
        daemon, user("Tell me a joke"), format="json", think=False, options={"num_predict": 200}
    )

    assert isinstance(json.loads(str(said(answer)["content"])), dict)


@pytest.mark.parametrize(
    ("wanted", "pattern"),
    [
        ({"regex": "[0-9]{3}-[a-f]{2}"}, "[0-9]{3}-[a-f]{2}"),
        ({"choice": ["red", "green", "blue"]}, "red|green|blue"),
        ({"gbnf": 'root ::= "<" [a-z]{2,4} ">"'}, "<[a-z]{2,4}>"),
        ({"lark": 'start: "yes" | "no" /!{1,2}/'}, "yes|no!{1,2}"),
    ],
)
def test_other_forms(daemon: Daemon, wanted: Json, pattern: str) -> None:
    answer = chat(daemon, user("Hello"), structured_outputs=wanted, think=False)

    assert re.fullmatch(pattern, str(said(answer)["content"]))


@pytest.mark.parametrize(
    "body",
    [
        {"format": {"type": "nonsense"}},
        {"structured_outputs": {"regex": "(["}},
        {"structured_outputs": {"gbnf": "root ::= missing"}},
        {"structured_outputs": {"lark": "start: ("}},
        {"structured_outputs": {"choice": []}},
    ],
)
def test_a_form_that_cannot_be_is_refused_with_a_reason(daemon: Daemon, body: Json) -> None:
    answer = post(daemon, "/api/chat", {"messages": [user("Hello")], **body})

    assert answer.status_code == 400
    assert len(answer.json()["error"]) > 10


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", {"get_weather", "add"}),
        ({"type": "function", "function": {"name": "add"}}, {"add"}),
        ("none", set()),
    ],
)
def test_the_choice_of_tools_is_kept(
    daemon: Daemon, model: str, choice: object, names: set[str]
) -> None:
    answer = ask(
        daemon,
        model,
        user("What is the weather in Paris?"),
        tools=[WEATHER, ADD],
        tool_choice=choice,
        parallel_tool_calls=False,
        think=False,
        options={"num_predict": 200},
    )

    found = calls(answer)
    assert len(found) == (1 if names else 0)
    assert {name for name, _ in found} <= names
    assert "<tool_call>" not in str(said(answer)["content"])


def test_a_model_that_cannot_think_is_not_loaded_to_do_so(daemon: Daemon) -> None:
    way = {"template": "{{ .Prompt }}", "renderer": "qwen3-coder", "parser": "qwen3-coder"}
    create(daemon, "coder", **way)

    for body in ({}, {"messages": [user("x")]}):
        answer = post(daemon, "/api/chat", {"model": "coder", "think": True, **body})

        assert answer.status_code == 400
        assert answer.json() == {"error": '"coder" does not support thinking'}


# -- bounds -------------------------------------------------------------------------------------------------------


def test_a_budget_ends_the_thinking(daemon: Daemon, model: str) -> None:
    answer = ask(daemon, model, user("What is the capital of France?"), options={"think_budget": 3})

    thought = str(said(answer).get("thinking", ""))
    assert len(thought.split()) <= 4
    assert said(answer)["content"]
    assert "</think>" not in json.dumps(answer)


def test_what_does_not_fit_goes_turn_by_turn_and_is_told(daemon: Daemon, model: str) -> None:
    turns = [
        m for n in range(60) for m in (user(f"Say {n}"), {"role": "assistant", "content": str(n)})
    ]
    options = {"num_ctx": 256, "num_predict": 8}

    answer = ask(daemon, model, *turns, user("Who are you?"), think=False, options=options)
    whole = ask(daemon, model, user("Who are you?"), think=False, options=options)

    assert answer["truncated"] is True
    assert cast("int", answer["prompt_eval_count"]) < 256
    assert "truncated" not in whole


# -- the other ways -----------------------------------------------------------------------------------------------


def create(daemon: Daemon, name: str, **fields: object) -> None:
    answer = post(daemon, "/api/create", {"model": name, "from": "tiny", **fields})
    assert answer.json() == {"status": "success"}, answer.text


GO = """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}{{ range .ToolCalls }}<tool_call>
{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
</tool_call>{{ end }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}"""


def test_a_go_template_of_the_request(daemon: Daemon) -> None:
    template = (
        "<|im_start|>user\n{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )

    body = {"prompt": "Who are you?", "template": template, "options": {"temperature": 0}}
    answer = post(daemon, "/api/generate", body).json()

    assert answer["response"] == "I am tiny, the small model that ships with olm."


def test_a_go_template_that_fails_says_where(daemon: Daemon) -> None:
    body = {"prompt": "x", "template": "one\n{{ index .Messages 7 }}"}

    answer = post(daemon, "/api/generate", body)

    assert answer.status_code == 500
    assert ":2:" in answer.json()["error"]


def test_a_named_renderer_and_parser(daemon: Daemon) -> None:
    create(daemon, "named", renderer="qwen3-vl-instruct", parser="qwen3-vl-instruct")

    answer = chat(
        daemon,
        user("What is the weather in Paris?"),
        model="named",
        tools=[WEATHER],
        options={"num_predict": 100},
    )

    assert answer["done_reason"] in ("stop", "length")
    assert "<tool_call>" not in str(said(answer)["content"])


def test_an_unknown_renderer_is_an_error_of_the_turn(daemon: Daemon) -> None:
    create(daemon, "unknown", renderer="no-such", parser="qwen3")

    answer = post(daemon, "/api/chat", {"model": "unknown", "messages": [user("x")]})

    assert answer.status_code == 500
    assert "no-such" in answer.json()["error"]


def test_the_prompt_alone_can_be_asked_for(daemon: Daemon) -> None:
    body = {"messages": [user("Hello")], "_debug_render_only": True, "think": False}

    answer = post(daemon, "/api/chat", body).json()

    assert answer["_debug_info"]["rendered_template"] == (
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
