"""Content with calls in it that ends as the model ended it: white space at the end of an answer is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from olm.chat.parsers.kit.sections import CallReader, TextBefore, TextWithCalls

__all__ = ["ContentWithCalls"]


class _TextBeforeMarker(TextBefore):
    """Drops white space before a marker only."""

    __slots__ = ()

    def finish(self) -> str:
        """Give out what was held back, white space and all."""
        rest, self._held = "".join(self._held), []
        return rest


class ContentWithCalls(TextWithCalls):
    """Differs from `TextWithCalls` at the end of the text, as Ollama's parsers of gemma4, functiongemma and lfm2 do.

    Args:
        opened: a section that the prompt has opened already.
        trims: whether white space before a section is dropped.
    """

    __slots__ = ()

    def __init__(
        self,
        markers: Sequence[str],
        open_section: Callable[[str], CallReader],
        *,
        opened: CallReader | None = None,
        trims: bool = True,
    ) -> None:
        super().__init__(markers, open_section)
        self._before = _TextBeforeMarker(markers, trims=trims)
        self._reader = opened
