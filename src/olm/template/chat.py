"""Chats and gaps rendered by a Go template: the variables that Ollama's templates find, and how often one is executed.

The contract is spec/ollama §9.3 (`template/template.go`, commit fb30760). Templates with `.Messages` run once. Older ones
know `.System`, `.Prompt` and `.Response` and run once for each pair of a question and its answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

from msgspec.structs import replace

from olm.chat.media import with_marks
from olm.chat.tools import Tool
from olm.chat.types import ChatMessage, Think
from olm.template.nodes import ActionNode, CommandNode, FieldNode, ListNode, PipeNode
from olm.template.ollama import ollama_functions
from olm.template.pruning import before_response
from olm.template.tags import infer_tags, variables
from olm.template.template import Template, parse
from olm.template.views import message_view, tools_view

__all__ = ["ChatTemplate"]

_RESPONSE: Final = ActionNode(PipeNode((CommandNode((FieldNode(("Response",)),)),)))
"""`{{ .Response }}`, for templates that lack it."""


class ChatTemplate:
    """A Go template as Ollama uses it, parsed once.

    Attributes:
        text: as it was written.
        variables: names of all fields and variables that it uses, in lower case.
        tags: how it tells thinking and tool calls from content.
    """

    def __init__(self, text: str) -> None:
        """Parse a template. Raises TemplateError with Go's words."""
        template = parse(text, functions=ollama_functions())
        self.text: Final = text
        self.variables: Final = variables((template.root, *template.templates.values()))
        self.tags: Final = infer_tags(template.root)
        if not self.variables & {"messages", "response"}:
            template = template.with_root(ListNode((*template.root.nodes, _RESPONSE)))
        self._template: Final = template
        self._opening: Template | None = None

    def render(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[Tool] = (),
        think: Think | None = None,
    ) -> str:
        """Render a conversation up to the beginning of the answer, with a mark for each picture and sound.

        Raises:
            TemplateError: the template failed on these messages, or did more than its limits allow.
        """
        merged = _merged(messages)
        shared = _thinking(think)
        if "messages" not in self.variables:
            return self._render_pairs(merged, shared)
        system = "\n\n".join(message.content for message in messages if message.role == "system")
        return self._template.execute(
            {
                "System": system,
                "Messages": [message_view(message) for message in merged],
                "Tools": tools_view(tools),
                "Response": "",
                **shared,
            }
        )

    def infill(self, prompt: str, suffix: str) -> str:
        """Render a gap between two texts. Raises TemplateError."""
        data = {"Prompt": prompt, "Suffix": suffix, "Response": "", **_thinking(None)}
        return self._template.execute(data)

    def _render_pairs(self, messages: Iterable[ChatMessage], shared: Mapping[str, object]) -> str:
        """Run once for each closed pair, and for the open one at the end as far as the answer's place."""
        texts: list[str] = []
        pair = {"System": "", "Prompt": "", "Response": ""}
        for message in messages:
            is_closed = pair["Response"] or (message.role == "system" and pair["Prompt"])
            if is_closed and message.role in ("system", "user"):
                texts.append(self._template.execute({**pair, **shared}))
                pair = dict.fromkeys(pair, "")
            variable = _VARIABLES.get(message.role)
            if variable is not None:
                pair[variable] = message.content
        if self._opening is None:
            root = self._template.root
            self._opening = self._template.with_root(before_response(root))
        texts.append(self._opening.execute({**pair, **shared}))
        return "".join(texts)


_VARIABLES: Final[Mapping[str, Literal["System", "Prompt", "Response"]]] = {
    "system": "System",
    "user": "Prompt",
    "assistant": "Response",
}


def _thinking(think: Think | None) -> dict[str, object]:
    """Say what was asked: `true` alone is of level medium (Ollama's ThinkValue)."""
    level = think if isinstance(think, str) else "medium" if think else ""
    return {"Think": bool(think), "ThinkLevel": level, "IsThinkSet": think is not None}


def _merged(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Mark media, and join neighbours of one role, other than tools, with a blank line.

    A message with calls stays by itself: Ollama joins it, too, and loses its calls.
    """
    merged: list[ChatMessage] = []
    n_media = 0
    for message in messages:
        if message.images:
            first, n_media = n_media, n_media + len(message.images)
            message = replace(message, content=with_marks(message, first))
        last = merged[-1] if merged else None
        if (
            last is not None
            and last.role == message.role != "tool"
            and not (last.tool_calls or message.tool_calls)
        ):
            merged[-1] = replace(
                last,
                content=f"{last.content}\n\n{message.content}",
                thinking=last.thinking or message.thinking,
                images=last.images + message.images,
            )
        else:
            merged.append(message)
    return merged
