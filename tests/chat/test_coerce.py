"""Parameters written as bare text become JSON values by their schema (vectors of Ollama's qwen3coder_test.go among them)."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olm.chat.parsers.kit.coerce import StreamedText, allowed_types, coerce, coerce_json, is_text

CASES: list[tuple[str, object, object]] = [
    ("hello world", "string", "hello world"),
    ("test", None, "test"),
    ("\nhello\n", "string", "hello"),
    ("\n\nhello\n\n", "string", "\nhello\n"),
    ("hello\n", "string", "hello"),
    ("  hello  ", "string", "  hello  "),
    ("", "string", ""),
    ("null", "string", None),
    ("NULL", "integer", None),
    ("\nNull\n", None, None),
    ("null\n\n", "string", "null\n"),
    ("42", "integer", 42),
    ("+7", "integer", 7),
    ("-42", "integer", -42),
    ("9223372036854775807", "integer", 9223372036854775807),
    ("9223372036854775808", "integer", "9223372036854775808"),
    ("1" * 5000, "number", "1" * 5000),
    ("3.14", "integer", "3.14"),
    ("1_000", "integer", "1_000"),
    ("not-a-number", "integer", "not-a-number"),
    ("3.14", "number", 3.14),
    ("42.0", "number", 42),
    ("1e3", "number", 1000),
    ("-0.5", "number", -0.5),
    ("1e400", "number", "1e400"),
    ("nan", "number", "nan"),
    ("1e20", "number", 1e20),
    ("9223372036854775808", "number", 9223372036854775808.0),
    ("9223372036854774784", "number", 9223372036854774784),
    ("true", "boolean", True),
    ("FALSE", "boolean", False),
    ("yes", "boolean", False),
    ("yes", ["boolean", "string"], "yes"),
    ("[1, 2, 3]", "array", [1, 2, 3]),
    ("[1, 2", "array", "[1, 2"),
    ('{"a": {"b": 1.5}}', "object", {"a": {"b": 1.5}}),
    ('{"a": 1}', "array", '{"a": 1}'),
    ("[" * 100_000, "array", "[" * 100_000),
    ("123", ["string", "number"], 123),
    ("hello", ["string", "number"], "hello"),
    ("true", ["string", "number", "boolean"], True),
    ("[1]", ["string", "array"], [1]),
    ("12", ["string", "array", "object"], "12"),
]


@pytest.mark.parametrize(("raw", "types", "value"), CASES)
def test_the_most_special_allowed_type_wins(raw: str, types: object, value: object) -> None:
    schema = None if types is None else {"type": types}

    found = coerce(raw, schema)

    assert (found, type(found)) == (value, type(value))
    assert json.loads(coerce_json(raw, schema)) == value


def test_any_of_is_the_union_of_its_types() -> None:
    schema: dict[str, object] = {"anyOf": [{"type": "array"}, {"type": ["integer", "null"]}, True]}

    assert allowed_types(schema) == {"array", "integer", "null"}
    assert coerce("5", schema) == 5


def test_only_text_and_the_unknown_may_be_streamed() -> None:
    assert is_text(None)
    assert is_text({})
    assert is_text({"type": "string", "enum": ["a"]})
    assert is_text({"type": ["string", "null"]})
    assert not is_text({"type": ["string", "null", "integer"]})
    assert not is_text({"anyOf": [{"type": "string"}, {"type": "number"}]})


_TEXTS = st.text(alphabet='nulNUL\n"\\é\x01 ', max_size=12) | st.text(max_size=30)


@given(text=_TEXTS, cuts=st.lists(st.integers(0, 30), max_size=6))
def test_streamed_text_adds_up_to_the_whole(text: str, cuts: list[int]) -> None:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    streamed = StreamedText()

    parts = [streamed.push(text[a:b]) for a, b in itertools.pairwise(places)]

    assert "".join(parts) + streamed.finish() == coerce_json(text, {"type": "string"})


def test_text_streams_before_it_ends() -> None:
    streamed = StreamedText()

    assert streamed.push("\nnu") == ""
    assert streamed.push("mber\n") == '"number'
    assert streamed.push("two") == "\\ntwo"
    assert streamed.finish() == '"'
