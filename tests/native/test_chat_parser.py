"""The parser of one answer: what llama.cpp reads from the whole text, told in deltas that no cutting changes."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jinja_kit import (
    NO_TEMPLATES,
    TEMPLATES,
    Answer,
    Sentences,
    joined,
    prompt,
    read_in_pieces,
    source,
)

from olm.chat.types import CallArguments, CallStart, Piece
from olm.native.chat import Applied, ChatTemplate, JinjaParser, parse_whole
from olm.native.handles import Model

pytestmark = [pytest.mark.native]
needs_tree = pytest.mark.skipif(not TEMPLATES, reason=NO_TEMPLATES)

N_ANSWERS = 4


@functools.cache
def applied_to(tiny: Model, name: str, *, tools: bool = True) -> Applied | None:
    """Apply a template of the tree; None where it takes no tools."""
    with ChatTemplate(tiny, source(name)) as chat:
        try:
            return chat.apply(prompt(tools=tools, think=True))
        except Exception:
            return None


@pytest.fixture
def qwen(tiny: Model) -> Iterator[ChatTemplate]:
    with ChatTemplate(tiny) as chat:
        yield chat


def told(text: str, library: str, ours: str, prompt_end: str) -> bool:
    """Whether our text is the library's. Ours has no blanks of the prompt's end, and keeps what may have been a marker."""
    starts = [n for n in range(len(library) + 1) if prompt_end.endswith(library[:n])]
    if not ours and any(not library[n:].strip() for n in starts):
        return True  # thinking of nothing but blanks is none
    return any(
        ours == library[n:]
        or (ours.startswith(library[n:]) and text.endswith(ours[len(library) - n :]))
        for n in starts
    )


def is_object(arguments: str) -> bool:
    try:
        return isinstance(json.loads(arguments, strict=False), dict)
    except ValueError:
        return False


def assert_as_the_library(parser: bytes, text: str, answer: Answer) -> None:
    """Assert that the deltas add up to what the library makes of the whole text, if it makes something of it."""
    whole = parse_whole(parser, text)
    if not whole.complete:
        return
    end = json.loads(parser)["generation_prompt"]
    # Arguments that are no object stand as an open brace in the library's; a call like that has none for us.
    calls = [(c.name, "{}" if c.arguments == "{" else c.arguments) for c in whole.tool_calls]
    unfinished = len(calls) > len(answer.calls)
    if unfinished:
        assert calls[-1][1] == "{}" or not is_object(calls.pop()[1])
        assert answer.malformed
    assert list(answer.calls) == calls[: len(answer.calls)]
    assert told(text, whole.content, answer.content, end), (whole.content, answer.content)
    assert told(text, whole.reasoning_content, answer.thinking, end)


@needs_tree
@pytest.mark.parametrize("name", TEMPLATES)
def test_deltas_add_up_to_what_the_library_reads(tiny: Model, name: str) -> None:
    applied = applied_to(tiny, name) or applied_to(tiny, name, tools=False)
    assert applied is not None
    parser, sentences = bytes(applied.parser), Sentences(applied, name)

    for _ in range(N_ANSWERS):
        text = sentences.write()
        events = read_in_pieces(parser, [text])
        answer = joined(events)

        assert_as_the_library(parser, text, answer)
        assert joined(read_in_pieces(parser, list(text))) == answer


SOME = ["Qwen-Qwen3-0.6B", "Qwen3.5-4B", "openai-gpt-oss-120b", "deepseek-ai-DeepSeek-V3.2", "GLM-4.6", "MiniMax-M3",
        "google-gemma-4-31B-it", "meetkai-functionary-medium-v3.2", "mistralai-Mistral-Nemo-Instruct-2407",
        "Kimi-K2-Thinking", "LFM2-8B-A1B", "Cohere2MoE"]  # fmt: skip


@needs_tree
@pytest.mark.parametrize("name", SOME)
def test_an_answer_that_ends_anywhere_is_what_the_library_reads_of_it(
    tiny: Model, name: str
) -> None:
    applied = applied_to(tiny, name)
    assert applied is not None
    parser, sentences = bytes(applied.parser), Sentences(applied, "cut")
    text = max((sentences.write() for _ in range(4)), key=len)[:120]

    for end in range(len(text)):
        assert_as_the_library(parser, text[:end], joined(read_in_pieces(parser, [text[:end]])))


@needs_tree
@pytest.mark.parametrize("name", SOME)
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_neither_cuts_nor_noise_nor_an_early_end_change_that(
    tiny: Model, name: str, data: st.DataObject
) -> None:
    applied = applied_to(tiny, name)
    assert applied is not None
    text = Sentences(applied, str(data.draw(st.integers(0, 10_000)))).write()
    at = data.draw(st.integers(0, len(text)))
    noise = data.draw(st.sampled_from(["", "", "x", "<", "}", '"', "\n"]))
    text = (text[:at] + noise + text[at:])[: data.draw(st.integers(0, len(text) + 1))]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    parser = bytes(applied.parser)

    answer = joined(read_in_pieces(parser, pieces))

    assert answer == joined(read_in_pieces(parser, [text]))
    if not answer.malformed:
        assert_as_the_library(parser, text, answer)


# -- one by one ------------------------------------------------------------------------------------------

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
WEATHER = ("get_weather", '{"city": "Paris"}')


def parser_of(chat: ChatTemplate, *, think: bool = False, tools: bool = True) -> JinjaParser:
    parser = chat.render(prompt(tools=tools, think=think), new_id=lambda: "new").make_parser()
    assert isinstance(parser, JinjaParser)
    return parser


def answer_of(chat: ChatTemplate, text: str, *, think: bool = False) -> Answer:
    parser = parser_of(chat, think=think)
    events = [event for character in text for event in parser.push(character)]
    return joined(events + parser.finish())


def test_thinking_content_and_calls_come_as_they_are_written(qwen: ChatTemplate) -> None:
    parser = parser_of(qwen, think=True)

    assert parser.push("<think>\nHm") == [Piece(thinking="Hm")]
    assert parser.push("m.\n</thi") == [Piece(thinking="m.\n")]
    assert parser.push("nk>\n\nLet me ") == [Piece(content="Let me ")]
    assert parser.push("see. <tool_call>") == [Piece(content="see. ")]
    assert parser.push('\n{"name": "get_weather", ') == [CallStart(0, "new", "get_weather")]
    assert parser.push('"arguments": {"city": "Pa') == [CallArguments(0, '{"city": "Pa')]
    assert parser.push('ris"') == [CallArguments(0, 'ris"')]


def test_calls_may_stand_amid_text(qwen: ChatTemplate) -> None:
    answer = answer_of(qwen, f"First. {CALL}\nThen. {CALL}\n\nDone.")

    assert answer == Answer(content="First. Then. Done.", calls=(WEATHER, WEATHER))


def test_several_calls_are_counted(qwen: ChatTemplate) -> None:
    assert answer_of(qwen, f"{CALL}\n{CALL}").calls == (WEATHER, WEATHER)


@pytest.mark.parametrize(
    "bad",
    ["<tool_call>\nnot json\n</tool_call> tail", "<tool_call>\n{]</tool_call>",
     '<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call>'],
)  # fmt: skip
def test_a_call_that_cannot_be_read_comes_back(qwen: ChatTemplate, bad: str) -> None:
    assert answer_of(qwen, "Well. " + bad) == Answer(content="Well. ", malformed=bad)


def test_a_call_that_breaks_off_comes_back_whole(qwen: ChatTemplate) -> None:
    text = CALL[: CALL.index("ris")]

    answer = answer_of(qwen, "Well. " + text)

    assert answer == Answer("Well. ", "", text, broken=(("get_weather", '{"city": "Pa'),))


def test_a_call_whose_closing_tag_is_missing_counts(qwen: ChatTemplate) -> None:
    assert answer_of(qwen, CALL.removesuffix("</tool_call>")).calls == (WEATHER,)


@pytest.mark.parametrize("tail", ["<", "<tool", "</thin"])
def test_the_beginning_of_a_marker_at_the_end_is_text(qwen: ChatTemplate, tail: str) -> None:
    assert answer_of(qwen, "a " + tail) == Answer(content="a " + tail)


def test_thinking_of_nothing_but_blanks_is_none(qwen: ChatTemplate) -> None:
    assert answer_of(qwen, "<think>\n\n</think>\n\nHi", think=True) == Answer(content="Hi")


def test_without_tools_a_call_is_text(qwen: ChatTemplate) -> None:
    parser = parser_of(qwen, tools=False)

    assert joined(parser.push(CALL) + parser.finish()) == Answer(content=CALL)


def test_text_is_never_lost_in_surrogates_and_zeros(qwen: ChatTemplate) -> None:
    assert answer_of(qwen, "a\0b\ud800c").content == "a\0b?c"


def test_nested_brackets_without_end_are_no_crash(qwen: ChatTemplate) -> None:
    text = '<tool_call>\n{"name": "get_weather", "arguments": {"city": ' + "[" * 20_000
    parser = parser_of(qwen)

    events = parser.push(text) + parser.finish()

    assert joined(events).malformed == text


@needs_tree
def test_the_models_own_ids_are_kept(tiny: Model) -> None:
    applied = applied_to(tiny, "mistralai-Mistral-Nemo-Instruct-2407")
    assert applied is not None
    call = '{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "abcdef123"}'

    events = read_in_pieces(bytes(applied.parser), list(f"[TOOL_CALLS][{call}]"))

    assert [event.id for event in events if isinstance(event, CallStart)] == ["abcdef123"]


@needs_tree
def test_a_long_answer_costs_no_more_per_token_than_a_short_one(tiny: Model) -> None:
    """By counting: the library's parser would read the 105 kB some 26,000 times, which ends no test."""
    applied = applied_to(tiny, "deepseek-ai-DeepSeek-V3.2")
    assert applied is not None
    text = "Think <b>. " * 5_000 + "</think>" + "Say {so}. " * 5_000

    answer = joined(
        read_in_pieces(bytes(applied.parser), [text[n : n + 4] for n in range(0, len(text), 4)])
    )

    assert (len(answer.thinking), len(answer.content)) == (55_000, 50_000)
