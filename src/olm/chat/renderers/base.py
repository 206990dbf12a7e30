"""What a renderer is, and the table of them: from messages to a prompt, one family a file.

A file of this package registers its families with `@renderer(...)`; nothing else has to be edited. JSON spellings are in
`olm.chat.jsontext`, the placing of pictures and sound in `olm.chat.media`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import attrs

from olm.chat.tools import Tool
from olm.chat.types import ChatMessage, Think

__all__ = ["RENDERERS", "RenderInput", "Renderer", "renderer"]


@attrs.frozen(kw_only=True)
class RenderInput:
    """A conversation. `think` None is the family's habit; a last assistant message with content is to be continued."""

    messages: Sequence[ChatMessage]
    tools: Sequence[Tool] = ()
    think: Think | None = None


Renderer = Callable[[RenderInput], str]
"""Writes the whole prompt, with the beginning of the answer. Raises TemplateError, InvalidRequest."""

RENDERERS: Final[dict[str, Renderer]] = {}
"""By name; filled when the package is imported, by the files in it."""


def renderer(*names: str) -> Callable[[Renderer], Renderer]:
    """Enter a function into the table under these names. Asserts that they are free."""

    def enter(function: Renderer) -> Renderer:
        for name in names:
            assert name not in RENDERERS, f"two renderers are named {name}"
            RENDERERS[name] = function
        return function

    return enter
