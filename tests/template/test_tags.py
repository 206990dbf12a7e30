"""Tags told from templates. Vectors: Ollama's thinking/template_test.go, tools/template_test.go, template_test.go."""

from __future__ import annotations

import pytest

from olm.chat.tagged import Tags
from olm.template import parse
from olm.template.chat import ChatTemplate
from olm.template.tags import call_tag, infer_tags, think_tags

RANGE = "{{ if .Thinking}}/think{{ end }}{{- range $i, $_ := .Messages }}%s{{ end }}"
LAST = "{{- $last := eq (len (slice $.Messages $i)) 1 -}}"
GEMMA = """{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 }}
{{- if eq .Role "user" }}<start_of_turn>user
{{- if and (eq $i 1) $.System }}
{{ $.System }}
{{ end }}
{{ .Content }}<end_of_turn>
{{ else if eq .Role "assistant" }}<start_of_turn>model
{{- if and $last .Thinking }}<unused94>{{ .Thinking }}<unused95>
{{ end }}
{{ .Content }}<end_of_turn>
{{ end }}
{{- if $last }}<start_of_turn>model{{ if $.Think }}<unused94>{{ end }}
{{ end }}
{{- end }}"""
QWEN = """
{{- if or .System .Tools .Thinking }}<|im_start|>system
{{- if .Tools }}
For each function call, return a json object within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>
{{- end }}<|im_end|>
{{ end }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
{{- if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ else if eq .Role "assistant" }}<|im_start|>assistant
{{ if and $last .Thinking }}
<think>{{ .Thinking }}</think>
{{ end }}
{{ if .Content }}{{ .Content }}
{{- else if .ToolCalls }}<tool_call>
{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
{{ end }}</tool_call>
{{- end }}{{ if not $last }}<|im_end|>
{{ end }}
{{- else if eq .Role "tool" }}<|im_start|>user
<tool_response>
{{ .Content }}
</tool_response><|im_end|>
{{ end }}
{{- if and (ne .Role "assistant") $last }}<|im_start|>assistant
{{ end }}
{{- end }}
"""


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        (
            RANGE
            % f"{LAST}{{{{ if and $last .Thinking }}}} <think>{{{{ .Thinking }}}}</think> {{{{ end }}}}",
            ("<think>", "</think>"),
        ),
        (
            RANGE
            % "{{ range $j, $_ := .NotMessages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ end }}",
            ("", ""),
        ),
        (
            RANGE
            % "{{ if .Thinking }}\n\tSome text before   {{ .Thinking }}    Some text after\n{{ end }}",
            ("Some text before", "Some text after"),
        ),
        (GEMMA, ("<unused94>", "<unused95>")),
        (QWEN, ("<think>", "</think>")),
        ("<think>{{ .Thinking }}</think>", ("", "")),
        ("{{ range $m := .Messages }}<think>{{ $m.Thinking }}</think>{{ end }}", ("", "")),
    ],
    ids=["basic", "nested", "trimmed", "gemma3", "qwen3", "no range", "variable"],
)
def test_thinking_is_marked_by_the_texts_around_it(text: str, tags: tuple[str, str]) -> None:
    assert think_tags(parse(text).root) == tags


CALL = '{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}'


@pytest.mark.parametrize(
    ("body", "tag"),
    [
        ("", ""),
        ("{{range .ToolCalls}}{{ . }}{{end}}", ""),
        ("```json\n", "```json"),
        ("[{{range .ToolCalls}}{{ . }}{{end}}]", "["),
        ("\n [ {{range .ToolCalls}}{{ . }}{{end}}]", "["),
        ("{{range .ToolCalls}}{{ . }}{{end}}]", ""),
        (" {{range .ToolCalls}}{{ . }}{{end}}", ""),
        ("{{range .ToolCalls}}\n{{ . }}\n{{end}}", ""),
        (f"{{{{range .ToolCalls}}}}{CALL}{{{{end}}}}", ""),
        (
            "<|tool▁calls▁begin|>{{range .ToolCalls}}<|tool▁call▁begin|>f{{end}}<|tool▁calls▁end|>",
            "<|tool▁calls▁begin|>",
        ),
        ("{{range .ToolCalls}}<tool_call>{{.}}</tool_call>{{end}}", "<tool_call>"),
        (f"{{{{range .ToolCalls}}}}<tool_call>{CALL}<tool_call>{{{{end}}}}", "<tool_call>"),
        ("First text{{if .Something}}inner{{end}}Second text", "First text"),
        ("Action: ```json", "Action: ```json"),
        ("functools[", "functools["),
        ("[TOOL_CALL] [", "[TOOL_CALL] ["),
        ("[TOOL_CALL][", "[TOOL_CALL]["),
    ],
)
def test_calls_are_marked_by_the_first_text_of_their_branch(body: str, tag: str) -> None:
    assert call_tag(parse(f"{{{{if .ToolCalls}}}}{body}{{{{end}}}}").root) == tag


def test_a_template_without_calls_has_no_tag() -> None:
    assert call_tag(parse("").root) == ""
    assert call_tag(parse("{{if .Something}}{{if .OtherThing}}text{{end}}{{end}}").root) == ""


def test_calls_are_found_inside_of_loops_and_branches() -> None:
    text = (
        "{{ range .Tools }}t{{ end }}{{ with .System }}s{{ end }}{{ range .Messages }}{{ with .X }}{{ else }}"
        "{{ if .A }}a{{ else if .ToolCalls }}<c>{{ end }}{{ end }}{{ end }}"
    )

    assert call_tag(parse(text).root) == "<c>"


def test_tags_are_put_together() -> None:
    llama = '{{ if .ToolCalls }}{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "parameters": {{ .Function.Arguments }}}{{ end }}{{ end }}'

    assert infer_tags(parse(QWEN).root) == Tags(
        think_start="<think>", think_end="</think>", calls="<tool_call>"
    )
    assert infer_tags(parse(llama).root) == Tags(calls="{", arguments="parameters")
    assert (
        infer_tags(
            parse(
                "{{ range .Messages }}{{ if .Thinking }}<t>{{ .Thinking }}{{ end }}{{ end }}"
            ).root
        )
        == Tags()
    )


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("{{ .Prompt }}", "prompt"),
        ("{{ .System }} {{ .Prompt }} {{ .Response }}", "prompt response system"),
        ("{{ with .Tools }}{{ . }}{{ end }} {{ .System }} {{ .Prompt }}", "prompt system tools"),
        ("{{ range .Messages }}{{ .Role }} {{ .Content }}{{ end }}", "content messages role"),
        (
            '{{ range .Messages }}{{ if eq .Role "tool" }}{{ .ToolName }}{{ end }}{{ end }}',
            "messages role toolname",
        ),
        (
            '{{ define "x" }}{{ .Suffix }}{{ end }}{{ template "x" . }}{{ $.Tools }}',
            "suffix $ tools",
        ),
        ('{{ "about .Tools" }} plain .Tools', ""),
    ],
)
def test_variables_are_collected(text: str, variables: str) -> None:
    assert ChatTemplate(text).variables == set(variables.split())


def test_a_separator_between_calls_is_no_reason_to_have_no_tag() -> None:
    text = '{{ if .ToolCalls }}{{ range $i, $c := .ToolCalls }}{{ if $i }}{{ "\\n" }}{{ end }}<call>{{ . }}{{ end }}{{ end }}'

    assert call_tag(parse(text).root) == "<call>"
