"""Capabilities from templates and headers, and which template Ollama would use."""

from __future__ import annotations

import pytest

from olm.gguf import ModelFacts
from olm.store.capabilities import (
    TemplateFacts,
    capabilities,
    template_facts,
    uses_go_template,
)

BARE = ModelFacts(architecture="llama")
FULL = TemplateFacts(tools=True, thinking=True, tool_turns=True)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("{{ .Prompt }}", TemplateFacts()),
        ("{{- if .Tools }}x{{ end }}", TemplateFacts(tools=True)),
        ("{{- if and $.Tools .System }}x{{ end }}", TemplateFacts(tools=True)),
        ('{{ "about .Tools" }} plain .Tools', TemplateFacts()),
        ("<PRE> {{ .Prompt }} <SUF>{{ .Suffix }} <MID>", TemplateFacts(insert=True)),
        ("<think>\n{{ .Thinking }}\n</think>", TemplateFacts(thinking=True)),
        ("{{ if .Thinking }}{{ .Thinking }}{{ end }}", TemplateFacts()),
        (
            '{{ range .Messages }}{{ if eq .Role "tool" }}{{ .Content }}{{ end }}{{ .ToolCalls }}{{ end }}',
            TemplateFacts(tool_turns=True),
        ),
    ],
)
def test_go_templates_are_known_by_their_variables(text: str, facts: TemplateFacts) -> None:
    assert template_facts(text) == facts


@pytest.mark.parametrize(
    ("facts", "template", "uses_go"),
    [
        (BARE, None, False),
        (BARE, TemplateFacts(), True),
        (ModelFacts(has_chat_template=True), TemplateFacts(), True),
        (ModelFacts(has_chat_template=True, jinja_tools=True), TemplateFacts(), False),
        (ModelFacts(has_chat_template=True, jinja_tools=True), FULL, True),
        (
            ModelFacts(has_chat_template=True, jinja_tools=True, jinja_thinking=True),
            TemplateFacts(tools=True, tool_turns=True),
            True,
        ),
        (
            ModelFacts(has_chat_template=True, jinja_tools=True, jinja_tool_turns=True),
            TemplateFacts(tools=True),
            False,
        ),
    ],
)
def test_the_gguf_template_is_preferred_when_it_can_more(
    facts: ModelFacts, template: TemplateFacts | None, uses_go: bool
) -> None:
    assert uses_go_template(facts, template) is uses_go


def test_capabilities_are_listed_once_in_ollamas_order() -> None:
    jinja = ModelFacts(has_chat_template=True, jinja_tools=True, jinja_thinking=True, vision=True)
    clip = ModelFacts(kind="projector", audio=True)

    assert capabilities((), BARE, None, []) == ("completion",)
    assert capabilities((), ModelFacts(embedding=True), None, []) == ("embedding",)
    assert capabilities((), jinja, None, [clip]) == (
        "tools",
        "thinking",
        "completion",
        "vision",
        "audio",
    )
    assert capabilities(["tools"], BARE, FULL, []) == ("tools", "completion", "thinking")
    assert capabilities((), BARE, TemplateFacts(insert=True), []) == ("completion", "insert")
    assert "thinking" in capabilities((), ModelFacts(architecture="gpt-oss"), None, [])
