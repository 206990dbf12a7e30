"""The built-in templates: what they render, and which Jinja texts they are found by."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olm.chat.types import ChatMessage
from olm.template.builtin import builtin, distance_within, match, names
from olm.template.chat import ChatTemplate

GOLDENS = json.loads(Path(__file__).with_name("builtin_goldens.json").read_text())
TEXTS = {
    "S": "You are a helpful assistant.",
    "U": "Hello, how are you?",
    "A": "I'm doing great. How can I help you today?",
    "V": "I'd like to show off how chat templating works!",
}
MESSAGES = [
    ChatMessage("system", TEXTS["S"]),
    ChatMessage("user", TEXTS["U"]),
    ChatMessage("assistant", TEXTS["A"]),
    ChatMessage("user", TEXTS["V"]),
]
CASES = {
    "system-user-assistant-user": MESSAGES,
    "user-assistant-user": MESSAGES[1:],
    "user": MESSAGES[1:2],
}
INDEX = json.loads((Path(__file__).parents[2] / "src/olm/template/data/index.json").read_text())


@pytest.mark.parametrize(
    ("case", "name"), [(case, name) for case in CASES for name in GOLDENS[case]]
)
def test_a_built_in_template_renders_what_ollamas_does(case: str, name: str) -> None:
    expected = GOLDENS[case][name]
    for key, text in TEXTS.items():
        expected = expected.replace(f"{{{key}}}", text)

    assert ChatTemplate(builtin(name).text).render(CASES[case]) == expected


def test_there_are_twenty_with_stops_and_most_are_in_the_index() -> None:
    indexed = {entry["name"] for entry in INDEX}

    assert len(names()) == 20
    assert len(INDEX) == 37
    assert set(names()) - indexed == {"vicuna"}
    assert all(builtin(name).stops for name in names())
    assert set(GOLDENS["system-user-assistant-user"]) == set(names())


@pytest.mark.parametrize("entry", INDEX, ids=lambda entry: entry["name"])
def test_a_jinja_text_of_the_index_is_found(entry: dict[str, str]) -> None:
    found = match(entry["template"])

    assert found is not None
    assert found.name == entry["name"]


def test_a_text_with_few_edits_is_found_and_one_with_many_is_not() -> None:
    text = max((entry["template"] for entry in INDEX), key=len)

    def edited(n: int) -> str:
        letters = list(text)
        for at in range(n):
            letters[at * 30] = "~"
        return "".join(letters)

    assert match(edited(99)) == builtin("llama3-instruct")
    assert match(edited(100)) is None
    assert match("") is None


def test_the_nearest_of_several_is_chosen() -> None:
    text = next(entry["template"] for entry in INDEX if entry["name"] == "magicoder")
    nearer = text.replace("@@ Instruction", "### Instruction")

    found = match(nearer)

    assert found is not None
    assert found.name == "magicoder"


def test_matching_a_long_text_gives_up_early() -> None:
    like_one = "".join(random.Random(7).sample(max((e["template"] for e in INDEX), key=len), 3000))
    start = time.process_time()

    assert match(like_one + "{" * 900) is None
    assert match("{% for message in messages %}" * 1000) is None
    assert time.process_time() - start < 0.5


LETTERS = st.text("ab{", max_size=12)


def edits(first: str, second: str) -> int:
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        above, row = row, [i]
        for j, b in enumerate(second, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
    return row[-1]


@given(LETTERS, LETTERS, st.integers(1, 14))
def test_distances_are_those_of_the_plain_table(first: str, second: str, limit: int) -> None:
    distance = edits(first, second)

    assert distance_within(first, second, limit) == (distance if distance < limit else None)
