"""Calls in Python's syntax: cut out of a stream, read without evaluating (vectors of Ollama's olmo3_test.go among them)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.chat_kit import cuts
from olm.chat.parsers.kit.python_calls import (
    Begun,
    Ended,
    Found,
    Junk,
    PythonCalls,
    read_arguments,
    read_calls,
)

VALUES: list[tuple[str, object]] = [
    ('"hello"', "hello"),
    ("'hello'", "hello"),
    ("42", 42),
    ("-10", -10),
    ("3.14", 3.14),
    ("1e3", 1000.0),
    ("true", True),
    ("True", True),
    ("false", False),
    ("False", False),
    ("null", None),
    ("None", None),
    ("nil", None),
    ("[]", []),
    ('["a", "b"]', ["a", "b"]),
    ("[1, 2, 3,]", [1, 2, 3]),
    ("(1, 'x')", [1, "x"]),
    ("{}", {}),
    ('{"name": "John", "age": 30}', {"name": "John", "age": 30}),
    ("{name: 'John'}", {"name": "John"}),
    ('{"user": {"name": "J", "ok": true}, "l": [[], {}]}', {"user": {"name": "J", "ok": True}, "l": [[], {}]}),
    ("hello world", "hello world"),
    ("2024-01-15", "2024-01-15"),
    ('"say \\"hi\\" \\\\ \\n\\t"', 'say "hi" \\ \n\t'),
    ("'it\\'s'", "it's"),
    ('"\\u003cb\\u003e \\x41 \\q"', "<b> A \\q"),
    ('"\\ud83e\\udd89"', "🦉"),
    ('"\\ud83e"', "\ufffd"),
    ('"a)b(c, d=1]"', "a)b(c, d=1]"),
    ('""', ""),
    ("9223372036854775807", 9223372036854775807),
    ("9223372036854775808", 9223372036854775808.0),
    ("1e400", "1e400"),
    ("7" * 5000, "7" * 5000),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_a_value_is_read(text: str, value: object) -> None:
    found = read_arguments(f"a={text} , b = {text}")

    assert found == {"a": value, "b": value}
    assert type(found["a"]) is type(value)


@pytest.mark.parametrize(
    "text",
    ["a", "1", "a=", "a=1 b=2,,", "=1", "a=[1", 'a="x" y', "a=f(1)", "a={1}", "a=[1 [2]]", "a=" + "[" * 300 + "]" * 300],
)  # fmt: skip
def test_anything_else_is_not_read(text: str) -> None:
    assert read_arguments(text) is None


def test_no_arguments_are_an_empty_object() -> None:
    assert read_arguments(" \n") == {}


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('get_weather(location="SF")\nget_time(timezone="PST")',
         [("get_weather", {"location": "SF"}), ("get_time", {"timezone": "PST"})]),
        ('[f(a="v"), ns.g-h()]', [("f", {"a": "v"}), ("ns.g-h", {})]),
        ("", []),
        ("   \n   ", []),
        ("not a call", None),
        ("f(a=1) and more", None),
        ("f(a=", None),
        ("f(1)", None),
    ],
)  # fmt: skip
def test_calls_of_a_whole_text(text: str, calls: object) -> None:
    assert read_calls(text) == calls


def test_a_stream_is_cut_into_calls_and_junk() -> None:
    calls = PythonCalls()

    found = calls.push('f(a="x)") then\n g(1)\nh(b="\\"') + calls.finish()

    assert found == [
        Begun("f"),
        Ended({"a": "x)"}, 'f(a="x)")'),
        Junk("then"),
        Begun("g"),
        Ended(None, "g(1)"),
        Begun("h"),
        Ended(None, 'h(b="\\"'),
    ]


def _told(found: list[Found]) -> list[Found]:
    """Join neighbouring junk: its pieces depend on the cuts."""
    whole: list[Found] = []
    for event in found:
        if isinstance(event, Junk) and whole and isinstance(last := whole[-1], Junk):
            whole[-1] = Junk(last.text + event.text)
        else:
            whole.append(event)
    return whole


@given(data=st.data(), text=st.text(alphabet="ab=(),[]{}'\"\\\n 1", max_size=40))
def test_what_is_found_does_not_depend_on_the_cuts(data: st.DataObject, text: str) -> None:
    one, many = PythonCalls(), PythonCalls()

    whole = one.push(text) + one.finish()
    parts = [event for part in data.draw(cuts(text)) for event in many.push(part)] + many.finish()

    assert _told(parts) == _told(whole)
