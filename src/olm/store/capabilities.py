"""What a model can do, and by which of the ways its prompts go: from its config, its GGUF's facts and its templates. Pure.

The rules are Ollama's (`server/images.go`, `server/routes.go`, commit fb30760; spec/ollama §0, §12): a Go template counts by
the variables it uses, a Jinja template by the words in it, a parser by what it says of itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import attrs
import msgspec

from olm.errors import TemplateError
from olm.gguf import ModelFacts
from olm.store.manifests import ImageConfig

__all__ = [
    "Sources",
    "TemplateFacts",
    "capabilities",
    "is_rendered",
    "template_facts",
    "uses_go_template",
]

_TOOL_ROLE: Final = ('eq .Role "tool"', "tool_response", "TOOL_RESULTS")
_HARMONY: Final = ("<|start|>", "<|end|>")
_GPT_OSS: Final = ("gptoss", "gpt-oss")
_NEMOTRON: Final = ("nemotron-3-nano", "nemotron-3.5-nano")
_OMNI: Final = "nemotron_h_omni"
_log = logging.getLogger(__name__)


class TemplateFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a Go template offers.

    Attributes:
        tools, insert, thinking: it writes tools into prompts, fills gaps, and marks thinking.
        tool_turns: it writes tool calls and their results, too.
        harmony: it writes OpenAI's harmony format, if the model is of that family.
    """

    tools: bool = False
    insert: bool = False
    thinking: bool = False
    tool_turns: bool = False
    harmony: bool = False


def template_facts(text: str) -> TemplateFacts:
    """Parse a Go template and look at what it uses; one that does not parse offers nothing."""
    from olm.template.chat import ChatTemplate  # some 50 ms, and only for templates not seen before

    try:
        template = ChatTemplate(text)
    except TemplateError as exc:
        _log.warning("a model's template cannot be used: %s", exc)
        return TemplateFacts()
    used = template.variables
    return TemplateFacts(
        tools="tools" in used,
        insert="suffix" in used,
        thinking=bool(template.tags.think_start),
        tool_turns={"tools", "toolcalls"} <= used and any(mark in text for mark in _TOOL_ROLE),
        harmony=all(mark in text for mark in _HARMONY),
    )


@attrs.frozen(kw_only=True)
class Sources:
    """Everything that a model's capabilities come from.

    Attributes:
        facts: of the weights.
        template: of the Go template layer, None without one.
        projectors: facts of the projector layers.
        go_template: OLM_GO_TEMPLATE: whether Go templates are used where there are any; None leaves it to what they offer.
    """

    config: ImageConfig
    facts: ModelFacts
    template: TemplateFacts | None = None
    projectors: Sequence[ModelFacts] = ()
    go_template: bool | None = None


def uses_go_template(model: Sources) -> bool:
    """Whether prompts are made with the Go template rather than with the GGUF's own."""
    if model.template is None:
        return False
    if model.go_template is not None:
        return model.go_template
    return not (model.facts.has_chat_template and _prefers_jinja(model, model.template))


def is_rendered(model: Sources) -> bool:
    """Whether olm makes the prompt itself, by a named renderer or parser or a Go template, and not the GGUF's Jinja."""
    config, template = model.config, model.template
    is_harmony = template is not None and template.harmony and config.model_family in _GPT_OSS
    return bool(config.renderer or config.parser) or is_harmony or uses_go_template(model)


def _prefers_jinja(model: Sources, template: TemplateFacts) -> bool:
    """Jinja wins if it offers more and loses no tool turns, or if it offers the same and only it has tool turns."""
    jinja, go = set(_found(model, "jinja")), set(_found(model, "go"))
    has_turns = model.facts.jinja_tool_turns
    if len(jinja) > len(go):
        return has_turns or not template.tool_turns
    return jinja == go and "tools" in go and has_turns and not template.tool_turns


def capabilities(model: Sources) -> tuple[str, ...]:
    """List a model's capabilities in Ollama's order, without repetition."""
    go = uses_go_template(model)
    jinja = not is_rendered(model)
    return tuple(_found(model, "go" if go else "jinja" if jinja else "none"))


def _found(model: Sources, source: Literal["go", "jinja", "none"]) -> Iterable[str]:
    """List capabilities as if prompts were made by this template."""
    config, facts, template = model.config, model.facts, model.template
    found = list(config.capabilities or ())
    if source == "jinja":
        found += _named(tools=facts.jinja_tools, thinking=facts.jinja_thinking)
    found.append("embedding" if facts.embedding else "completion")
    found += _named(vision=facts.vision, audio=facts.audio)
    if model.projectors:
        found += ["vision", *_named(audio=any(part.audio for part in model.projectors))]
    if source == "go" and template is not None:
        found += _named(tools=template.tools, insert=template.insert, thinking=template.thinking)
    found += _of_parser(config.parser)
    found += _named(thinking=config.model_family in _GPT_OSS or facts.architecture in _GPT_OSS)
    hidden = _hidden(config, facts)
    return dict.fromkeys(item for item in found if item not in hidden)


def _of_parser(name: str) -> list[str]:
    if not name:
        return []
    from olm.chat.parsers import PARSERS  # some 50 ms, and only for models that name one

    family = PARSERS.get(name)
    return [] if family is None else _named(tools=family.tools, thinking=family.thinking)


def _hidden(config: ImageConfig, facts: ModelFacts) -> frozenset[str]:
    """Name what the engine cannot do with models that could."""
    families = {facts.architecture, config.model_family, *(config.model_families or ())}
    if config.model_format == "safetensors":
        is_nemotron = config.parser in _NEMOTRON or config.renderer in _NEMOTRON
        if is_nemotron or _OMNI in families or config.renderer.startswith("gemma4"):
            return frozenset({"vision", "audio"})
        if config.renderer == "glimmer":
            return frozenset({"audio"})
    return frozenset({"audio"} if _OMNI in families else ())


def _named(**flags: bool) -> list[str]:
    return [name for name, is_set in flags.items() if is_set]
