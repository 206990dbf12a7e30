"""Chats by a Go template: variables, merged neighbours, the legacy loop, infill. Vectors: Ollama's template_test.go."""

from __future__ import annotations

import json
import time

import pytest

from olm.chat.tools import Tool, read_tools
from olm.chat.types import ChatMessage, Think, ToolCall
from olm.errors import TemplateError
from olm.template.builtin import builtin
from olm.template.chat import ChatTemplate
from olm.template.pruning import before_response
from olm.template.template import parse

HELLO = [
    ChatMessage("user", "Hello friend!"),
    ChatMessage("assistant", "Hello human!"),
    ChatMessage("user", "What is your name?"),
]
SYSTEM = [ChatMessage("system", "You are a helpful assistant!"), *HELLO]
PREFILL = [*HELLO, ChatMessage("assistant", "My name is Ollama and I")]

MISTRAL = "[INST] {{ if .System }}{{ .System }}\n\n{{ end }}{{ .Prompt }}[/INST] "
MISTRAL_MESSAGES = """[INST] {{ if .System }}{{ .System }}

{{ end }}
{{- range .Messages }}
{{- if eq .Role "user" }}{{ .Content }}[/INST] {{ else if eq .Role "assistant" }}{{ .Content }}[INST] {{ end }}
{{- end }}"""
CHATML = """{{ if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}{{ if .Prompt }}<|im_start|>user
{{ .Prompt }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ .Response }}<|im_end|>
"""


@pytest.mark.parametrize("text", [MISTRAL, MISTRAL + "{{ .Response }}", MISTRAL_MESSAGES])
def test_templates_of_pairs_and_of_messages_render_alike(text: str) -> None:
    template = ChatTemplate(text)

    assert template.render(HELLO) == (
        "[INST] Hello friend![/INST] Hello human![INST] What is your name?[/INST] "
    )
    assert template.render(SYSTEM) == (
        "[INST] You are a helpful assistant!\n\nHello friend![/INST] Hello human!"
        "[INST] What is your name?[/INST] "
    )


@pytest.mark.parametrize(
    "text",
    [
        "[INST] {{ .Prompt }}[/INST] ",
        "[INST] {{ .Prompt }}[/INST] {{ .Response }}",
        '{{- range $i, $m := .Messages }}{{ if eq .Role "user" }}[INST] {{ .Content }}[/INST] {{ else if eq .Role "assistant" }}{{ .Content }}{{ end }}{{ end }}',
    ],
)
def test_an_answer_that_has_begun_is_left_open(text: str) -> None:
    assert ChatTemplate(text).render(PREFILL) == (
        "[INST] Hello friend![/INST] Hello human![INST] What is your name?[/INST] My name is Ollama and I"
    )


def test_the_open_pair_ends_at_the_place_of_the_answer() -> None:
    assert ChatTemplate(CHATML).render(SYSTEM) == (
        "<|im_start|>system\nYou are a helpful assistant!<|im_end|>\n"
        "<|im_start|>user\nHello friend!<|im_end|>\n"
        "<|im_start|>assistant\nHello human!<|im_end|>\n"
        "<|im_start|>user\nWhat is your name?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_system_message_closes_a_question_without_an_answer() -> None:
    template = ChatTemplate("[{{ .System }}|{{ .Prompt }}|{{ .Response }}]")
    messages = [
        ChatMessage("user", "a"),
        ChatMessage("system", "s"),
        ChatMessage("user", "b"),
        ChatMessage("assistant", "c"),
        ChatMessage("system", "t"),
    ]

    assert template.render(messages) == "[|a|][s|b|c][t||"


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("a{{ .Response }}b{{ .Prompt }}", "a{{.Response}}"),
        (
            "{{ if .Response }}{{ .Response }}x{{ else }}y{{ end }}z",
            "{{if .Response}}{{.Response}}{{else}}{{end}}",
        ),
        ('a{{ .Response | printf "%s" }}b', "a"),
        ('a{{ printf "%s" .Response }}b', 'a{{printf "%s" .Response}}'),
        ("a{{ .Prompt }}b", "a{{.Prompt}}b"),
    ],
)
def test_what_follows_the_answer_is_cut_off(text: str, cut: str) -> None:
    assert str(before_response(parse(text).root)) == cut


def test_a_gap_is_rendered_once_with_what_stands_around_it() -> None:
    template = ChatTemplate(
        "{{- if .Suffix }}<PRE> {{ .Prompt }} <SUF>{{ .Suffix }} <MID>\n{{- else }}{{ .Prompt }}\n{{- end }}"
    )

    assert template.infill("def add(", "return x") == "<PRE> def add( <SUF>return x <MID>"
    assert template.render([ChatMessage("user", "hello")]) == "hello"


SHOW = ChatTemplate("{{ .System }}/{{ range .Messages }}[{{ .Role }} {{ .Content }}]{{ end }}")


def test_neighbours_of_one_role_are_one_message_but_for_tools() -> None:
    messages = [
        ChatMessage("system", "one"),
        ChatMessage("system", "two"),
        ChatMessage("user", "a"),
        ChatMessage("user", "b"),
        ChatMessage("tool", "r1", tool_name="f"),
        ChatMessage("tool", "r2", tool_name="g"),
        ChatMessage("system", "three"),
    ]

    assert SHOW.render(messages) == (
        "one\n\ntwo\n\nthree/[system one\n\ntwo][user a\n\nb][tool r1][tool r2][system three]"
    )


def test_calls_are_not_lost_in_a_merged_message() -> None:
    template = ChatTemplate(
        "{{ range .Messages }}[{{ .Content }}{{ range .ToolCalls }}{{ .Function.Name }}{{ end }}]{{ end }}"
    )
    messages = [
        ChatMessage("assistant", "x"),
        ChatMessage("assistant", tool_calls=(ToolCall("f"),)),
    ]

    assert template.render(messages) == "[x][f]"


def test_odd_messages_are_rendered_as_they_are() -> None:
    odd = [
        ChatMessage("wizard", "abra"),
        ChatMessage("user"),
        ChatMessage("tool", "no call before"),
    ]

    assert SHOW.render(odd) == "/[wizard abra][user ][tool no call before]"
    assert SHOW.render([]) == "/"
    assert ChatTemplate("{{ .Prompt }}!").render(odd) == "!"


def test_pictures_have_marks_numbered_over_the_request() -> None:
    messages = [
        ChatMessage("user", "look [img] here", images=(b"a", b"b")),
        ChatMessage("assistant", "yes"),
        ChatMessage("user", "more", images=(b"c",)),
    ]

    assert (
        SHOW.render(messages) == "/[user [img-1]look [img-0] here][assistant yes][user [img-2]more]"
    )


@pytest.mark.parametrize(
    ("think", "shown"),
    [
        (None, "false/[]/false"),
        (False, "false/[]/true"),
        (True, "true/[medium]/true"),
        ("high", "true/[high]/true"),
    ],
)
def test_thinking_is_shown_as_asked(think: Think | None, shown: str) -> None:
    template = ChatTemplate(
        "{{ .Think }}/[{{ .ThinkLevel }}]/{{ .IsThinkSet }}{{ range .Messages }}{{ end }}"
    )

    assert template.render([], think=think) == shown


def tools() -> tuple[Tool, ...]:
    parameters = {
        "type": "object",
        "properties": {
            "b": {"type": "string", "description": "<b>", "enum": ["x"]},
            "a": {"type": ["integer", "null"], "minimum": 1},
        },
        "required": ["b"],
    }
    function = {"name": "f", "parameters": parameters, "description": "D"}
    return read_tools(
        json.dumps([{"type": "function", "function": function}, {"function": {"name": "g"}}])
    )


F = (
    '{"type":"function","function":{"name":"f","description":"D","parameters":{"type":"object","required":["b"],'
    '"properties":{"a":{"type":["integer","null"],"minimum":1},'
    '"b":{"type":"string","description":"\\u003cb\\u003e","enum":["x"]}}}}}'
)
G = '{"type":"function","function":{"name":"g","description":"","parameters":{"type":"","properties":null}}}'


def test_tools_print_as_go_marshals_them_and_keep_foreign_keywords() -> None:
    template = ChatTemplate("{{ .Tools }}{{ range .Messages }}{{ end }}")
    each = ChatTemplate(
        "{{ range .Tools }}{{ . }};{{ json .Function.Name }};{{ end }}{{ range .Messages }}{{ end }}"
    )

    assert template.render([], tools()) == f"[{F},{G}]"
    assert each.render([], tools()) == f'{F};"f";{G};"g";'
    assert template.render([]) == "null"


def test_the_parts_of_tools_are_fields() -> None:
    template = ChatTemplate(
        "{{ range .Tools }}{{ with .Function }}{{ .Name }}({{ range $name, $p := .Parameters.Properties }}"
        "{{ $name }}: {{ $p.Type }} {{ toTypeScriptType $p }} {{ $p.Enum }} {{ $p.Description }},{{ end }})"
        "{{ .Parameters.Required }} {{ end }}{{ end }}{{ range .Messages }}{{ end }}"
    )

    assert template.render([], tools()) == (
        "f(a: [integer null] number | null [] ,b: string string [x] <b>,)[b] g()[] "
    )


def test_arguments_print_as_json_and_their_values_as_go_does() -> None:
    template = ChatTemplate(
        "{{ range .Messages }}{{ range .ToolCalls }}{{ .ID }} {{ .Function.Index }} {{ .Function.Name }} "
        "{{ .Function.Arguments }}{{ range $k, $v := .Function.Arguments }} {{ $k }}={{ $v }}{{ end }}{{ end }}{{ end }}"
    )
    call = ToolCall(
        "f", '{"b": 1000000, "a": [1.0, 2.5, "<"], "c": 12345678901234567890}', "id1", 3
    )

    assert template.render([ChatMessage("assistant", tool_calls=(call,))]) == (
        'id1 3 f {"a":[1,2.5,"\\u003c"],"b":1000000,"c":12345678901234567890}'
        " a=[1 2.5 <] b=1e+06 c=12345678901234567890"
    )


def test_a_template_that_is_none_is_refused() -> None:
    with pytest.raises(TemplateError, match="unclosed action"):
        ChatTemplate("{{ .Prompt ")
    with pytest.raises(TemplateError, match="undefined template specified"):
        ChatTemplate('{{ define "x" }}{{ end }}{{ template "x" }}')


def test_two_hundred_messages_take_under_five_milliseconds() -> None:
    messages = [ChatMessage(("user", "assistant")[i % 2], "hello there " * 30) for i in range(200)]
    templates = [ChatTemplate(builtin(name).text) for name in ("llama3-instruct", "command-r")]
    best = {}

    for template in templates:
        times = []
        for _ in range(5):
            start = time.process_time()
            template.render(messages)
            times.append(time.process_time() - start)
        best[template.text[:20]] = min(times)

    assert max(best.values()) < 0.005
