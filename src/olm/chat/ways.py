"""The three ways from messages to a prompt and back, put together: named ones, Go templates, and the GGUF's Jinja.

Which way is taken was decided before (`PromptStyle`). Named renderers and Go templates are rendered here; Jinja needs the
model and comes in as a function. The parser of the answer goes with the way, unless another one is named. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Final

from olm.chat.parsers import PARSERS, ParseInput, Parser, ParserFamily
from olm.chat.parsers.kit.harmony_names import map_messages, map_tools
from olm.chat.renderers import RENDERERS, RenderInput
from olm.chat.rendering import Rendered, ThinkTags
from olm.chat.tagged import make_parser, tag_syntax, think_tags
from olm.chat.tools import Tool, read_tools
from olm.chat.types import ChatMessage, ChatPrompt, InfillPrompt, Think
from olm.errors import TemplateError
from olm.template.chat import ChatTemplate

__all__ = ["render"]

_KEPT_TEMPLATES: Final = 16
"""Go templates that are kept parsed. A model has one; a client may send its own with each request."""

NewId = Callable[[], str]
Jinja = Callable[[ChatPrompt], Rendered]


def render(prompt: ChatPrompt | InfillPrompt, *, jinja: Jinja, new_id: NewId) -> Rendered:
    """Render a prompt the way its style says.

    Args:
        jinja: renders with the GGUF's own template.
        new_id: makes ids of tool calls.

    Raises:
        TemplateError: the template failed, or the style names a renderer or parser that does not exist.
        InvalidRequest: the tools are malformed.
    """
    if isinstance(prompt, InfillPrompt):
        template = _template(prompt.style.template)
        text = template.infill(prompt.prompt, prompt.suffix)
        return Rendered(text=text, make_parser=partial(make_parser, template.tags, (), new_id))
    family = _family(prompt.style.parser)
    tools = read_tools(prompt.tools_json)
    base = _render(prompt, tools, jinja, new_id)
    if family is None:
        return base
    given = ParseInput(
        tools=tools,
        think=prompt.think,
        prompt=base.text,
        prefill=_prefill(prompt.messages),
        new_id=new_id,
    )
    return Rendered(
        text=base.text,
        make_parser=partial(family.make, given),
        stops=base.stops,
        preserved_tokens=family.preserved_tokens,
        think=_family_tags(family, prompt.think, base.text),
        content_headers=family.content_headers,
        calls=family.calls if tools else None,
    )


def _render(prompt: ChatPrompt, tools: Sequence[Tool], jinja: Jinja, new_id: NewId) -> Rendered:
    style, messages, think = prompt.style, prompt.messages, prompt.think
    if style.renderer:
        renderer = RENDERERS.get(style.renderer)
        if renderer is None:
            raise TemplateError(f'unknown renderer "{style.renderer}"')
        text = renderer(RenderInput(messages=messages, tools=tools, think=think))
        return Rendered(text=text, make_parser=partial(_plain, new_id))
    if not style.template:
        return jinja(prompt)
    return _go(prompt, tools, new_id)


def _go(prompt: ChatPrompt, tools: Sequence[Tool], new_id: NewId) -> Rendered:
    template, messages = _template(prompt.style.template), prompt.messages
    shown: Sequence[Tool] = tools
    if prompt.style.parser == "harmony":
        # Harmony lists tools as TypeScript functions; its parser turns the names back.
        shown, names = map_tools(tools)
        messages = map_messages(messages, names)
    text = template.render(messages, shown, prompt.think)
    # A thought that nobody asked for stays content, as in Ollama.
    think = think_tags(template.tags, text) if prompt.think else None
    is_required = prompt.tool_choice.mode == "required"
    return Rendered(
        text=text,
        make_parser=partial(make_parser, template.tags, tools, new_id, think),
        preserved_tokens=template.tags.marks,
        think=think,
        calls=tag_syntax(template.tags, is_required=is_required) if tools else None,
    )


@lru_cache(maxsize=_KEPT_TEMPLATES)
def _template(text: str) -> ChatTemplate:
    return ChatTemplate(text)


def _family(name: str) -> ParserFamily | None:
    if not name:
        return None
    family = PARSERS.get(name)
    if family is None:
        raise TemplateError(f'unknown parser "{name}"')
    return family


def _plain(new_id: NewId) -> Parser:
    return PARSERS["passthrough"].make(ParseInput(new_id=new_id))


def _prefill(messages: Sequence[ChatMessage]) -> str | None:
    """The text that the answer continues, if the last message is the beginning of one."""
    last = messages[-1] if messages else None
    if last is None or last.role != "assistant" or last.tool_calls or not last.content:
        return None
    return last.content


def _family_tags(family: ParserFamily, think: Think | None, prompt: str) -> ThinkTags | None:
    if not (family.thinking and family.think_ends):
        return None
    wanted = family.thinks if think is None else think is not False
    is_open = bool(family.think_start) and prompt.rstrip().endswith(family.think_start)
    if not (wanted or is_open):
        return None
    return ThinkTags(family.think_start, family.think_ends, is_open)
