"""What a model can do, worked out from its config, its GGUF's facts and its templates (spec/ollama §12). Pure.

Templates are looked at as text: which variables a Go template's actions name, which words a Jinja template holds.
Ollama does the same (`server/images.go`, commit fb30760).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from olm.gguf import ModelFacts

__all__ = ["TemplateFacts", "capabilities", "template_facts", "uses_go_template"]

_ACTION: Final = re.compile(r"\{\{-?(.*?)-?\}\}", re.DOTALL)
_STRING: Final = re.compile(r'"(?:\\.|[^"\\])*"|`[^`]*`')
_FIELD: Final = re.compile(r"\.([A-Z]\w*)")
# Thinking can be told from content only when a tag stands right before the variable.
_THINKING: Final = re.compile(r"<[^<>{}\s]+>\s*\{\{-?\s*[$\w]*\.Thinking\s*-?\}\}")


class TemplateFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a Go template offers: tools, infill, thinking; `tool_turns`: it renders tool calls and results too."""

    tools: bool = False
    insert: bool = False
    thinking: bool = False
    tool_turns: bool = False


def template_facts(text: str) -> TemplateFacts:
    """Look at a Go template's actions."""
    fields: set[str] = set()
    roles = False
    for action in _ACTION.findall(text):
        fields.update(_FIELD.findall(_STRING.sub("", action)))
        roles = roles or '"tool"' in action
    return TemplateFacts(
        tools="Tools" in fields,
        insert="Suffix" in fields,
        thinking=_THINKING.search(text) is not None,
        tool_turns="ToolCalls" in fields and roles,
    )


def uses_go_template(facts: ModelFacts, template: TemplateFacts | None) -> bool:
    """Whether Ollama would render with the Go template rather than with the GGUF's own.

    Yes when there is one, unless the GGUF's offers more and can at least carry tool turns as well, or offers
    the same and alone carries tool turns.
    """
    if template is None:
        return False
    if not facts.has_chat_template:
        return True
    jinja = (facts.jinja_tools, facts.jinja_thinking)
    go = (template.tools, template.thinking)
    covers = all(j or not g for j, g in zip(jinja, go, strict=True))
    if covers and jinja != go:
        return template.tool_turns and not facts.jinja_tool_turns
    return not (jinja == go and facts.jinja_tool_turns and not template.tool_turns)


def capabilities(
    declared: Iterable[str],
    facts: ModelFacts,
    template: TemplateFacts | None,
    projectors: Sequence[ModelFacts],
) -> tuple[str, ...]:
    """List a model's capabilities in Ollama's order, without repetition.

    Args:
        declared: the config's own list.
        facts: of the weights.
        template: of the Go template layer, None without one.
        projectors: facts of the projector layers.
    """
    go = uses_go_template(facts, template)
    found = list(declared)
    if not go:
        found += _named(tools=facts.jinja_tools, thinking=facts.jinja_thinking)
    found.append("embedding" if facts.embedding else "completion")
    found += _named(vision=facts.vision or bool(projectors))
    found += _named(audio=facts.audio or any(p.audio for p in projectors))
    if template is not None and go:
        found += _named(tools=template.tools, insert=template.insert, thinking=template.thinking)
    found += _named(thinking=facts.architecture in ("gptoss", "gpt-oss"))
    return tuple(dict.fromkeys(found))


def _named(**flags: bool) -> list[str]:
    return [name for name, is_set in flags.items() if is_set]
