"""What goes with a prompt besides its text: the tags of thinking, and which kind of item stands at a mark."""

from __future__ import annotations

import pytest

from olm.chat.media import kind_of
from olm.chat.rendering import Rendered, ThinkTags
from olm.chat.types import ChatMessage, ChatPrompt, PromptStyle, Think
from olm.chat.ways import render

USER = ChatMessage("user", "Hello")


def _rendered(style: PromptStyle, think: Think | None) -> Rendered:
    def no_jinja(prompt: ChatPrompt) -> Rendered:
        raise AssertionError("the GGUF's template is not asked")

    prompt = ChatPrompt((USER,), style=style, think=think)
    return render(prompt, jinja=no_jinja, new_id=lambda: "call_1")


@pytest.mark.parametrize(
    ("name", "think", "is_open"),
    [
        ("nemotron-3-nano", None, True),
        ("nemotron-3-nano", True, True),
        ("nemotron-3-nano", False, None),
        ("gemma4", None, None),
        ("gemma4", True, False),
        ("gemma4", False, None),
        ("qwen3-coder", True, None),
    ],
)
def test_thinking_has_tags_where_the_family_thinks_or_is_asked_to(
    name: str, think: bool | None, is_open: bool | None
) -> None:
    tags = _rendered(PromptStyle(name, name), think).think

    assert (None if tags is None else tags.is_open) == is_open


def test_a_go_template_has_tags_only_when_thinking_was_asked_for() -> None:
    thought = "{{ if .Thinking }}<t>{{ .Thinking }}</t>{{ end }}"
    style = PromptStyle(
        template=f"{{{{ range .Messages }}}}{thought}{{{{ .Content }}}}{{{{ end }}}}"
    )

    assert _rendered(style, True).think == ThinkTags("<t>", ("</t>",), False)
    assert _rendered(style, None).think is None


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        (b"RIFF\0\0\0\0WAVEfmt ", "audio"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image"),
        (b"ID3\x04", "audio"),
        (b"\xff\xfb\x90", "audio"),
        (b"\xff\xd8\xff\xe0", "image"),
        (b"\x89PNG\r\n", "image"),
        (b"\xff", "image"),
        (b"", "image"),
    ],
)
def test_sounds_are_told_from_pictures_by_their_first_bytes(item: bytes, kind: str) -> None:
    assert kind_of(item) == kind
