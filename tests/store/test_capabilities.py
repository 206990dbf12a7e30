"""Capabilities, and which template prompts are made with. Vectors: Ollama's server/images_test.go."""

from __future__ import annotations

from pathlib import Path

import pytest

from olm.gguf import ModelFacts, facts_of, read_header
from olm.store.capabilities import (
    Sources,
    TemplateFacts,
    capabilities,
    is_rendered,
    template_facts,
    uses_go_template,
)
from olm.store.manifests import ImageConfig
from store.gguf_files import model

BARE = ModelFacts(architecture="llama")
TOOLS_IN_JINJA = "{% if tools %}{{ tools }}{% endif %}{{ messages[0]['content'] }}"
CUSTOM = "CUSTOM {{ .Prompt }}"
ROUND_TRIP = """{{ if .Tools }}tools{{ end }}
{{ range .Messages }}
{{ if eq .Role "tool" }}tool_response{{ else }}{{ .Role }}{{ end }}
{{ if .ToolCalls }}<|tool_call|>{{ range .ToolCalls }}{{ .Function.Name }}{{ end }}{{ else }}{{ .Content }}{{ end }}
{{ end }}"""
WEAKER = """{%- if tools and not available_tools -%}{{- set available_tools = tools -}}{%- endif -%}
{%- if thinking -%}<think></think><response></response>{%- endif -%}
{%- for message in messages -%}{{ message['content'] }}{%- endfor -%}"""
THINKING = "{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}{{ end }}"


def sources(facts: ModelFacts = BARE, go: str | None = None, **more: object) -> Sources:
    config = more.pop("config", ImageConfig(model_family=facts.architecture))
    template = None if go is None else template_facts(go)
    return Sources(config=config, facts=facts, template=template, **more)  # type: ignore[arg-type]


@pytest.fixture
def facts(tmp_path: Path) -> object:
    def read(jinja: str) -> ModelFacts:
        path = tmp_path / "m.gguf"
        path.write_bytes(model(tokenizer__chat_template=jinja))
        return facts_of(read_header(path))

    return read


@pytest.mark.parametrize(
    ("text", "offers"),
    [
        ("{{ .Prompt }}", TemplateFacts()),
        ("{{ .prompt }}{{ if .tools }}{{ .tools }}{{ end }}", TemplateFacts(tools=True)),
        ("{{- if and $.Tools .System }}x{{ end }}", TemplateFacts(tools=True)),
        ('{{ "about .Tools" }} plain .Tools', TemplateFacts()),
        ("<PRE> {{ .Prompt }} <SUF>{{ .Suffix }} <MID>", TemplateFacts(insert=True)),
        (THINKING, TemplateFacts(thinking=True)),
        ("<think>\n{{ .Thinking }}\n</think>", TemplateFacts()),
        (ROUND_TRIP, TemplateFacts(tools=True, tool_turns=True)),
        ("{{ .Tools }}{{ .ToolCalls }}[TOOL_RESULTS]", TemplateFacts(tools=True, tool_turns=True)),
        ("{{ .ToolCalls }}[TOOL_RESULTS]", TemplateFacts()),
        ("<|start|>{{ .Prompt }}<|end|>", TemplateFacts(harmony=True)),
        ("{{ .Tools ", TemplateFacts()),
        ('{{ if eq .Role "tool" }}{{ .Tools }}{{ .ToolCalls }}', TemplateFacts()),
        ("{{ .Tools }}" + "{{ if .X }}" * 100_000, TemplateFacts()),
    ],
)
def test_go_templates_are_known_by_what_they_use(text: str, offers: TemplateFacts) -> None:
    assert template_facts(text) == offers


@pytest.mark.parametrize(
    ("jinja", "go", "go_template", "uses_go", "offers"),
    [
        ("{{ bos_token }}{{ messages[0]['content'] }}", CUSTOM, None, True, ()),
        (TOOLS_IN_JINJA, CUSTOM, None, False, ("tools",)),
        (TOOLS_IN_JINJA + "{% set content = (content.split('</think>')|last) %}", THINKING, None, False, ("tools", "thinking")),
        (TOOLS_IN_JINJA + "{% set content = content.split('</think>') %}reasoning_content", THINKING, None, True, ("thinking",)),
        (WEAKER, ROUND_TRIP, None, True, ("tools",)),
        (TOOLS_IN_JINJA + "tool_calls message.role == 'tool'", "{{ .Tools }}", None, False, ("tools",)),
        (TOOLS_IN_JINJA + "tool_calls 'tool'", "{{ .Tools }}", None, True, ("tools",)),
        (TOOLS_IN_JINJA + "tool_calls message.role == 'tool'", ROUND_TRIP, None, True, ("tools",)),
        (TOOLS_IN_JINJA, "{{ .Suffix }}", None, True, ("insert",)),
        (TOOLS_IN_JINJA, CUSTOM, True, True, ()),
        (TOOLS_IN_JINJA, CUSTOM, False, False, ("tools",)),
        (TOOLS_IN_JINJA, None, True, False, ("tools",)),
        (None, CUSTOM, None, True, ()),
        (None, CUSTOM, False, False, ()),
        (None, None, None, False, ()),
    ],
    ids=str,
)  # fmt: skip
def test_the_gguf_template_is_preferred_when_it_can_more(
    facts: object,
    jinja: str | None,
    go: str | None,
    go_template: bool | None,
    uses_go: bool,
    offers: tuple[str, ...],
) -> None:
    found = sources(facts(jinja), go, go_template=go_template)  # type: ignore[operator]

    assert uses_go_template(found) is uses_go
    assert is_rendered(found) is uses_go
    assert set(capabilities(found)) == {"completion", *offers}


CLIP = ModelFacts(kind="projector", audio=True)


@pytest.mark.parametrize(
    ("found", "listed"),
    [
        (sources(), ("completion",)),
        (sources(ModelFacts(embedding=True)), ("embedding",)),
        (sources(ModelFacts(vision=True)), ("completion", "vision")),
        (sources(projectors=[CLIP]), ("completion", "vision", "audio")),
        (sources(go="{{ .Tools }}{{ .Suffix }}"), ("completion", "tools", "insert")),
        (sources(config=ImageConfig(capabilities=("image", "vision"))), ("image", "vision", "completion")),
        (sources(ModelFacts(has_chat_template=True, jinja_tools=True, jinja_thinking=True), projectors=[CLIP]), ("tools", "thinking", "completion", "vision", "audio")),
        (sources(config=ImageConfig(parser="functiongemma"), projectors=[CLIP]), ("completion", "vision", "audio", "tools")),
        (sources(config=ImageConfig(parser="qwen3-thinking")), ("completion", "tools", "thinking")),
        (sources(config=ImageConfig(parser="no such")), ("completion",)),
        (sources(config=ImageConfig(capabilities=("tools",), parser="qwen3-coder"), go=CUSTOM), ("tools", "completion")),
        (sources(ModelFacts(architecture="gpt-oss")), ("completion", "thinking")),
        (sources(config=ImageConfig(model_family="gptoss")), ("completion", "thinking")),
        (sources(ModelFacts(architecture="nemotron_h_omni", vision=True, audio=True)), ("completion", "vision")),
        (sources(config=ImageConfig(model_family="nemotron_h_omni"), projectors=[CLIP]), ("completion", "vision")),
        (sources(config=ImageConfig(model_format="safetensors", renderer="gemma4-small", capabilities=("vision", "audio"))), ("completion",)),
        (sources(config=ImageConfig(model_format="safetensors", renderer="glimmer", capabilities=("vision", "audio"))), ("vision", "completion")),
        (sources(config=ImageConfig(renderer="gemma4-small", capabilities=("audio",)), projectors=[CLIP]), ("audio", "completion", "vision")),
    ],
)  # fmt: skip
def test_capabilities_are_listed_once_in_ollamas_order(
    found: Sources, listed: tuple[str, ...]
) -> None:
    assert capabilities(found) == listed


def test_jinja_counts_for_nothing_where_olm_makes_the_prompt() -> None:
    jinja = ModelFacts(has_chat_template=True, jinja_tools=True, jinja_thinking=True)
    harmony = ImageConfig(model_family="gptoss")

    assert capabilities(sources(jinja, config=ImageConfig(renderer="r"))) == ("completion",)
    assert is_rendered(sources(config=harmony, go="<|start|><|end|>", go_template=False))
    assert not is_rendered(sources(config=harmony, go="<|start|>", go_template=False))
    assert not is_rendered(sources(go="<|start|><|end|>", go_template=False))
