"""The grammars of tool calls match what the parsers read: llguidance accepts good calls and refuses bad ones."""

from __future__ import annotations

import json
from typing import Final

import attrs
import pytest

from chat.chat_kit import TOOLS, Sample, answer_of, events_of, is_accepted, make_parser, make_tool
from olm.chat.parsers import PARSERS
from olm.chat.tools import Tool

_CALLS, _CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL, _CALL_END, _SEP = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"


@attrs.frozen
class Form:
    """How a family writes a section: what stands around it, and around name and arguments of a call."""

    parser: str
    begin: str
    call: str
    between: str
    end: str

    def write(self, *calls: tuple[str, str]) -> str:
        """Write calls of a name and arguments as the family writes them."""
        written = [self.call.replace("NAME", name).replace("VALUES", text) for name, text in calls]
        return self.begin + self.between.join(written) + self.end


_JSON_FORMS: Final = [
    Form("deepseek3", _CALLS, f"{_CALL}NAME{_SEP}VALUES{_CALL_END}", "", _CALLS_END),
    Form("cogito", _CALLS, f"{_CALL}function{_SEP}NAME\n```json\nVALUES\n```{_CALL_END}", "\n", _CALLS_END),
    Form("ministral", "", "[TOOL_CALLS]NAME[ARGS]VALUES", "", ""),
    Form("cohere", "<|START_ACTION|>[\n\n    ", '{"tool_call_id": "0", "tool_name": "NAME", "parameters": VALUES}', ",\n\n    ", "\n\n]<|END_ACTION|>"),
]  # fmt: skip
_PAIR_FORMS: Final = [
    Form(parser, "", "<tool_call>NAMEVALUES</tool_call>", between, "")
    for parser, between in (
        ("glm-4.7", ""),
        ("glm-ocr", "\n"),
        ("laguna", "\n"),
        ("poolside-v1", ""),
    )
]
_OLMO: Final = Form("olmo3", "<function_calls>", "NAME(VALUES)", "\n", "</function_calls>")


def _accepts(
    parser: str, text: str, *, tools: tuple[Tool, ...] = TOOLS, parallel: bool = True
) -> bool:
    return is_accepted(PARSERS[parser], text, tools, parallel=parallel)


def _check(form: Form, good: list[tuple[tuple[str, str], dict[str, object]]], bad: list[tuple[str, str]]) -> None:  # fmt: skip
    """Assert that good calls pass grammar and parser alike, and that bad ones do not pass the grammar."""
    for call, arguments in good:
        text = form.write(call)
        assert _accepts(form.parser, text), text
        answer = answer_of(
            events_of(make_parser(Sample(parser=form.parser, text=text, think=False)), [text])
        )
        assert answer.calls == [(call[0], arguments)], text
    for call in bad:
        assert not _accepts(form.parser, form.write(call)), call
    two = form.write(*[call for call, _ in good[:2]])
    assert _accepts(form.parser, two)
    assert not _accepts(form.parser, two, parallel=False)
    assert _accepts(form.parser, form.write(good[0][0]), parallel=False)


@pytest.mark.parametrize("form", _JSON_FORMS, ids=lambda form: form.parser)
def test_json_arguments_are_held_to_the_schema(form: Form) -> None:
    whole = {"city": 'O "x"', "days": 2, "metric": True, "parts": ["a"], "limits": {"low": -1.5}}

    _check(
        form,
        good=[
            (("now", "{}"), {}),
            (("get_weather", '{"city": "Oslo"}'), {"city": "Oslo"}),
            (("get_weather", json.dumps(whole)), whole),
        ],
        bad=[
            ("get_weather", '{"days": 2}'),
            ("get_weather", '{"city": 1}'),
            ("get_weather", '{"city": "x", "town": "y"}'),
            ("unknown", "{}"),
            ("now", "[]"),
        ],
    )


def test_python_arguments_are_held_to_the_schema() -> None:
    _check(
        _OLMO,
        good=[
            (("now", ""), {}),
            (("get_weather", 'city="O\\"x"'), {"city": 'O"x'}),
            (
                ("get_weather", 'city="a", metric=true, parts=["b"], limits={"low": -1.5}'),
                {"city": "a", "metric": True, "parts": ["b"], "limits": {"low": -1.5}},
            ),
            (("add", "a=1, b=2.5"), {"a": 1, "b": 2.5}),
        ],
        bad=[
            ("get_weather", ""),
            ("get_weather", "days=1"),
            ("get_weather", "city=Oslo"),
            ("get_weather", 'city="a" days=1'),
            ("get_weather", 'city="a", city="b"'),
            ("add", "a=1"),
            ("unknown", ""),
        ],
    )


def _pairs(line_end: str, **values: str) -> str:
    return line_end + "".join(
        f"<arg_key>{key}</arg_key>{line_end}<arg_value>{value}</arg_value>{line_end}"
        for key, value in values.items()
    )


@pytest.mark.parametrize("line_end", ["", "\n"])
@pytest.mark.parametrize("form", _PAIR_FORMS, ids=lambda form: form.parser)
def test_pairs_are_held_to_the_schema(form: Form, line_end: str) -> None:
    _check(
        form,
        good=[
            (("now", line_end), {}),
            (("get_weather", _pairs(line_end, city="a <b>\n{c")), {"city": "a <b>\n{c"}),
            (
                ("get_weather", _pairs(line_end, city="", days="3", limits='{"low": -1.5}')),
                {"city": "", "days": 3, "limits": {"low": -1.5}},
            ),
            (("add", _pairs(line_end, a="1", b="2.5")), {"a": 1, "b": 2.5}),
        ],
        bad=[
            ("get_weather", ""),
            ("get_weather", _pairs(line_end, city="x", days="soon")),
            ("get_weather", _pairs(line_end, days="1", city="x")),
            ("get_weather", _pairs(line_end, city="x", town="y")),
            ("unknown", ""),
        ],
    )


def test_a_choice_of_texts_is_held_to_it() -> None:
    tool = make_tool("paint", {"tone": {"type": "string", "enum": ["red", "blue"]}})
    good, bad = (
        f"<tool_call>paint{_pairs('', tone=tone)}</tool_call>" for tone in ("red", "green")
    )

    assert _accepts("glm-4.7", good, tools=(tool,))
    assert not _accepts("glm-4.7", bad, tools=(tool,))


@pytest.mark.parametrize(
    "parser", [*(form.parser for form in [*_JSON_FORMS, *_PAIR_FORMS]), _OLMO.parser]
)
def test_schemas_may_refer_to_their_definitions(parser: str) -> None:
    place = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    tool = make_tool("go", {"to": {"$ref": "#/$defs/place"}}, **{"$defs": {"place": place}})

    assert not _accepts(
        parser, "", tools=(tool, *TOOLS)
    )  # the kit asserts that the grammar is valid
