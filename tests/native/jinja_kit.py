"""What the tests of Jinja templates share: the templates of the llama.cpp tree, conversations, and answers by a grammar."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from olm.chat.types import (
    AnswerEvent,
    CallArguments,
    CallEnd,
    CallStart,
    ChatMessage,
    ChatPrompt,
    Piece,
    Think,
    ToolCall,
)

if TYPE_CHECKING:
    from olm.native.chat import Applied

__all__ = [
    "CONVERSATIONS",
    "NO_TEMPLATES",
    "TEMPLATES",
    "TOOLS_JSON",
    "Answer",
    "Sentences",
    "joined",
    "prompt",
    "read_in_pieces",
    "source",
]

_ROOT = Path(__file__).resolve().parents[2]


def _templates() -> Path:
    sys.path.insert(0, str(_ROOT / "native"))
    from olm_build.common import Places, cache_root  # type: ignore[import-not-found,unused-ignore]  # found at run time
    from olm_build.upstream import parse_pin  # type: ignore[import-not-found,unused-ignore]  # the same

    places = Places(_ROOT, cache_root(os.environ))
    home = os.environ.get("OLM_LLAMA_CPP")
    if home is None:
        pin = parse_pin(places.pin_file.read_text())
        home = str(places.cache / "upstream" / pin.sha256[:12] / "llama.cpp")
    return Path(home) / "models" / "templates"


_FOLDER = _templates()
TEMPLATES = sorted(path.stem for path in _FOLDER.glob("*.jinja"))
NO_TEMPLATES = f"no llama.cpp tree at {_FOLDER}: it comes with `python build_native.py`"


def source(name: str) -> str:
    """Read a template of the tree."""
    return (_FOLDER / f"{name}.jinja").read_text()


TOOLS_JSON = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "The weather.",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                    "required": ["city"],
                },
            },
        },
        {
            "type": "function",
            "function": {
                "name": "add",
                "description": "Add numbers.",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "a": {"type": "number"},
                        "b": {"type": "number"},
                        "tags": {"type": "array", "items": {"type": "string"}},
                    },
                    "required": ["a", "b"],
                },
            },
        },
    ]
)

_CALL = ToolCall("get_weather", '{"city": "Paris"}', "callnr001")
_CALLED = (
    ChatMessage("user", "What is the weather in Paris?"),
    ChatMessage("assistant", tool_calls=(_CALL,)),
    ChatMessage("tool", "Sunny", tool_name="get_weather", tool_call_id="callnr001"),
)

CONVERSATIONS: dict[str, ChatPrompt] = {
    "plain": ChatPrompt((ChatMessage("user", "Hello"),)),
    "system": ChatPrompt((ChatMessage("system", "Be brief."), ChatMessage("user", "Hello"))),
    "thoughts": ChatPrompt(
        (
            ChatMessage("user", "Hello"),
            ChatMessage("assistant", "Hi.", thinking="They greet."),
            ChatMessage("user", "And now?"),
        )
    ),
    "silent": ChatPrompt((ChatMessage("user", "Hello"),), think=False),
    "tools": ChatPrompt((ChatMessage("user", "Hello"),), tools_json=TOOLS_JSON),
    "result": ChatPrompt(_CALLED, tools_json=TOOLS_JSON),
    "after": ChatPrompt(
        (*_CALLED, ChatMessage("assistant", "Sunny."), ChatMessage("user", "Thanks")),
        tools_json=TOOLS_JSON,
    ),
}
"""The standard conversation in its forms."""


def prompt(*messages: ChatMessage, tools: bool = False, think: Think | None = None) -> ChatPrompt:
    """Make a prompt of messages; without any, of a greeting."""
    return ChatPrompt(
        messages or (ChatMessage("user", "Hello"),),
        tools_json=TOOLS_JSON if tools else "",
        think=think,
    )


# -- answers -------------------------------------------------------------------------------------------


@attrs.frozen
class Answer:
    """Events joined: texts, whole calls as (name, arguments), and the calls that broke off."""

    content: str = ""
    thinking: str = ""
    malformed: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    broken: tuple[tuple[str, str], ...] = ()


def joined(events: Iterable[AnswerEvent]) -> Answer:
    """Join the deltas of an answer; asserts that those of a call add up to it."""
    texts = {"content": "", "thinking": "", "malformed": ""}
    names: list[str] = []
    arguments: list[str] = []
    calls, broken = [], []
    for event in events:
        match event:
            case Piece():
                texts["malformed" if event.malformed else "content"] += event.content
                texts["thinking"] += event.thinking
            case CallStart():
                assert event.index == len(names), "calls are counted"
                names.append(event.name)
                arguments.append("")
            case CallArguments():
                assert event.index == len(names) - 1, "one call is open"
                arguments[event.index] += event.json
            case CallEnd(index, None):
                broken.append((names[index], arguments[index]))
            case CallEnd(index, ToolCall() as call):
                assert (call.name, call.arguments_json) == (names[index], arguments[index])
                calls.append((call.name, call.arguments_json))
    return Answer(calls=tuple(calls), broken=tuple(broken), **texts)


def read_in_pieces(parser_json: bytes, pieces: Sequence[str]) -> list[AnswerEvent]:
    """Let a parser read an answer piece by piece."""
    from olm.native.chat import JinjaParser

    parser = JinjaParser(parser_json, lambda: "new")
    events = [event for piece in pieces for event in parser.push(piece)]
    return events + parser.finish()


_WORDS = ("Hello", " world", "\n", "  ", "a < b", "{x}", "<b>", "</", "é", "😀", '"q"', "1.5", "[1]", "\\",
          "<", "think", "</thin", "<tool", ": ", "end.", "]<]", "[TOOL", "<|", "|>")  # fmt: skip
_STRINGS = ("Paris", "", "a b", 'x\\"y', "\\u00e9", "tab\\t", "😀")


class Sentences:
    """Writes answers that a template's grammar may take: walks the grammar and chooses at random.

    Whether the grammar takes one is for the library to say: its choices are ordered, ours are not.
    """

    def __init__(self, applied: Applied, seed: str) -> None:
        parser = json.loads(bytes(applied.parser))
        grammar = json.loads(parser["arena"])
        self._parsers, self._rules, self._root = (
            grammar["parsers"],
            grammar["rules"],
            grammar["root"],
        )
        self._head: str = parser["generation_prompt"]
        self._random = random.Random(seed)
        self._left = 0

    def write(self) -> str:
        """Write an answer behind the prompt's end."""
        text = ""
        for _ in range(20):
            self._left = 400
            text = self._write(self._root, 0)
            if text.startswith(self._head):
                return text[len(self._head) :]
        same = [n for n in range(len(text) + 1) if self._head.startswith(text[:n])]
        return text[same[-1] :]

    def _write(self, number: int, depth: int) -> str:
        node, choose = self._parsers[number], self._random
        self._left -= 1
        is_deep = self._left < 0 or depth > 60
        match node["type"]:
            case "epsilon" | "start" | "end" | "and" | "not":
                return ""
            case "literal":
                return str(node["literal"])
            case "sequence":
                return "".join(self._write(child, depth + 1) for child in node["children"])
            case "choice":
                plain = [n for n in node["children"] if self._parsers[n]["type"] == "literal"]
                return self._write(
                    choose.choice((is_deep and plain) or node["children"]), depth + 1
                )
            case "repetition":
                n = self._count(node, 0 if is_deep else 2)
                return "".join(self._write(node["child"], depth + 1) for _ in range(n))
            case "any":
                return choose.choice("xyz")
            case "space":
                return choose.choice(["", "", " ", "\n"])
            case "chars":
                return "".join(self._char(node) for _ in range(self._count(node, 3)))
            case "string":
                return choose.choice(_STRINGS)
            case "until":
                return self._words(node["delimiters"])
            case "ref":
                return self._write(self._rules[node["name"]], depth + 1)
            case _:
                return self._write(node["child"], depth + 1)

    def _count(self, node: dict[str, int], more: int) -> int:
        low, high = max(node["min_count"], 0), node["max_count"]
        return self._random.randint(low, low + more if high < 0 else min(high, low + more))

    def _words(self, delimiters: Sequence[str]) -> str:
        while True:
            text = "".join(self._random.choice(_WORDS) for _ in range(self._random.randrange(8)))
            if not any(delimiter and delimiter in text for delimiter in delimiters):
                return text

    def _char(self, node: dict[str, object]) -> str:
        ranges = [(item["start"], item["end"]) for item in node["ranges"]]  # type: ignore[attr-defined]  # of JSON
        if not node["negated"]:
            start, end = self._random.choice(ranges)
            return chr(self._random.randint(start, min(end, start + 5)))
        return next(c for c in "abcxyz" if not any(low <= ord(c) <= high for low, high in ranges))
