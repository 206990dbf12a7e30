"""Answers that write about calls and thoughts, or slip in writing them: no text is lost, no call made up, nothing stalls."""

from __future__ import annotations

from typing import Final

import pytest

from chat.chat_kit import TOOLS, Answer, Sample, answer_of, events_of, make_parser
from olm.chat.types import Piece

_PLAIN_MARKS: Final = {
    "qwen3": "<tool_call>", "qwen3-thinking": "<tool_call>", "qwen3-vl-instruct": "<tool_call>",
    "qwen3-coder": "<tool_call>", "qwen3.5": "<tool_call>", "nemotron-3-nano": "<tool_call>",
    "glm-4.7": "<tool_call>", "glm-ocr": "<tool_call>", "laguna": "<tool_call>", "poolside-v1": "<tool_call>",
    "ministral": "[TOOL_CALLS]",
}  # fmt: skip
"""Markers of calls that a model may write in a sentence, too; those of the other families are special tokens."""
_MAX_HELD: Final = 300
"""Characters in which a parser must have seen that a marker stands in a sentence."""


def _read(parser: str, text: str, **more: object) -> Answer:
    sample = Sample(parser=parser, text=text, think=False, **more)  # type: ignore[arg-type]  # fields of the sample
    return answer_of(events_of(make_parser(sample), [text]))


@pytest.mark.parametrize(("parser", "mark"), _PLAIN_MARKS.items())
def test_a_marker_in_a_sentence_is_text_and_does_not_stop_the_stream(
    parser: str, mark: str
) -> None:
    text = f"They write `{mark}` before a name. " + "This goes on for a while. " * 40 + "End."
    made = make_parser(Sample(parser=parser, text="", think=False))
    n_given = most_held = 0

    given = ""
    for at, character in enumerate(text):
        events = made.push(character)
        given += "".join(event.content for event in events if isinstance(event, Piece))
        n_given = len(given)
        most_held = max(most_held, at + 1 - n_given)
    rest = made.finish()

    assert given + "".join(event.content for event in rest if isinstance(event, Piece)) == text
    assert most_held <= _MAX_HELD


@pytest.mark.parametrize(
    ("parser", "text"),
    [
        ("qwen3", 'So:\n\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\n\nDone.'),
        ("qwen3.5", "So:\n\n<tool_call>\n<function=now>\n</function>\n</tool_call>\n\nDone."),
        ("glm-4.7", "So:\n\n<tool_call>now</tool_call>\n\nDone."),
        ("laguna", "So:\n\n<tool_call>now</tool_call>\n\nDone."),
        ("olmo3", "So:\n\n<function_calls>now()</function_calls>\n\nDone."),
        ("ministral", "So:\n\n[TOOL_CALLS]now[ARGS]{}\n\nDone."),
    ],
)
def test_without_tools_an_example_of_a_call_is_text(parser: str, text: str) -> None:
    shown, called = _read(parser, text, tools=()), _read(parser, text, tools=TOOLS)

    assert (shown.content, shown.calls) == (text, [])
    assert called.calls == [("now", {})]


def test_without_tools_a_marker_does_not_end_the_thinking() -> None:
    text = "They want `<tool_call>` explained.</think>It is a tag."
    for parser in ("qwen3-thinking", "qwen3.5"):
        sample = Sample(parser=parser, text=text, tools=())

        answer = answer_of(events_of(make_parser(sample), [text]))

        assert answer.thinking == "They want `<tool_call>` explained."
        assert answer.content == "It is a tag."


def test_arguments_under_their_other_name_are_not_lost() -> None:
    answer = _read("qwen3", '<tool_call>{"name": "add", "parameters": {"a": 1}}</tool_call>')

    assert answer.calls == [("add", {"a": 1})]


def test_arguments_as_json_amid_tags_are_not_lost() -> None:
    text = '<tool_call>\n<function=add>\n{"a": 1, "b": 2}\n</function>\n</tool_call>'

    answer = _read("qwen3.5", text)

    assert (answer.content, answer.calls, answer.broken) == (text, [], 1)


@pytest.mark.parametrize("parser", ["laguna", "poolside-v1"])
def test_an_unasked_thought_is_dropped_only_where_it_ends(parser: str) -> None:
    assert _read(parser, "<think>hm</think>Yes.").content == "Yes."
    assert _read(parser, "The tag `<think>` opens it.").content == "The tag `<think>` opens it."


def test_white_space_around_a_call_stays_where_the_call_cannot_be_read() -> None:
    for text in (
        'A\n\n<tool_call>{"name": }</tool_call>\n\nB',
        "A\n\n<tool_call>no call</tool_call>\n\nB",
    ):
        assert _read("qwen3", text).content == text
    good = _read("qwen3", 'A\n\n<tool_call>{"name": "now"}</tool_call>\n\nB')

    assert (good.content, good.calls) == ("AB", [("now", {})])


def test_a_section_that_gives_nothing_leaves_a_blank() -> None:
    text = "A <|channel>thought\nhm<channel|> b"

    assert _read("gemma4", text).content == "A b"
