#!/usr/bin/env python3
"""What taking an answer apart costs a token, by the length of the answer: our parsers beside llama.cpp's whole-text parse.

    python bench/parse.py            # 5 to 10 seconds
    python bench/parse.py --quick    # shorter answers, fewer parsers
    python bench/parse.py qwen3      # of the named parsers only these
    python bench/parse.py --publish  # also put the table into docs/performance.md

An answer is thinking, prose, and a call whose argument is long; it comes in pieces of four characters, the size of a token.
That of a named parser has more prose in the call's place, for each family writes calls its own way.
llama.cpp reads all of the text again for each piece, as llama-server does while it streams; every 16th piece is timed
there, which estimates the same sum in less time.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from machine import describe_machine
from report import markdown_table, publish

from olm.chat.parsers import PARSERS, ParseInput, Parser, ParserFamily
from olm.chat.tools import read_tools
from olm.chat.types import ChatMessage, ChatPrompt
from olm.native.chat import Applied, ChatTemplate, JinjaParser, parse_whole
from olm.native.devices import choose_cpu_variant
from olm.native.handles import Model, initialize

TINY: Final = Path(__file__).resolve().parents[1] / "src" / "olm" / "data" / "tiny"
LIMIT_US: Final = 20.0
N_TOKENS: Final = (500, 2000, 8000, 16000)
N_TOKENS_QUICK: Final = (500, 2000, 8000)
QUICK: Final = ("qwen3", "harmony", "gemma4")

_PIECE: Final = 4
_STRIDE: Final = 16
_PROSE: Final = (
    "The quick brown fox jumps over the lazy dog and <i>goes</i> home to think about {it}. "
)
_TOOLS: Final = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "write",
                "description": "Write a file.",
                "parameters": {
                    "type": "object",
                    "properties": {"text": {"type": "string"}},
                    "required": ["text"],
                },
            },
        }
    ]
)


def prose(n_tokens: int) -> str:
    """Write so many pieces of text."""
    return (_PROSE * (n_tokens * _PIECE // len(_PROSE) + 1))[: n_tokens * _PIECE]


def answer(n_tokens: int, think: tuple[str, str], *, calls: bool) -> str:
    """Write an answer: a third thinking, a third prose, a third a call in the form of Qwen and Hermes."""
    third = prose(n_tokens // 3)
    call = f'<tool_call>\n{{"name": "write", "arguments": {{"text": "{third}"}}}}\n</tool_call>'
    return f"{think[0]}{third}{think[1]}{third}{call if calls else third}"


def pieces_of(text: str) -> list[str]:
    """Cut a text into pieces of a token's size."""
    return [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]


def stream_us(make: Callable[[], Parser], text: str) -> float:
    """Time a parser over a whole answer, the best of three: microseconds per piece."""
    pieces, best = pieces_of(text), float("inf")
    gc.collect()
    for _ in range(3):
        parser = make()
        start = time.perf_counter()
        for piece in pieces:
            parser.push(piece)
        parser.finish()
        best = min(best, time.perf_counter() - start)
    return best / len(pieces) * 1e6


def whole_us(parser_json: bytes, text: str) -> float:
    """Time llama.cpp's parse of everything so far after each piece, without the reading of the grammar that goes before."""
    n_pieces = len(pieces_of(text))
    parse_whole(parser_json, "", partial=True)
    timed = range(_STRIDE, n_pieces, _STRIDE)
    seconds = 0.0
    for n in timed:
        so_far = text[: n * _PIECE]
        start = time.perf_counter()
        parse_whole(parser_json, so_far, partial=True)
        seconds += time.perf_counter() - start
    reading = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        parse_whole(parser_json, "", partial=True)
        reading = min(reading, time.perf_counter() - start)
    return (seconds / len(timed) - reading) * 1e6


def family_maker(family: ParserFamily) -> Callable[[], Parser]:
    """Make parsers of a family for an answer with tools."""
    asked = ParseInput(tools=read_tools(_TOOLS), think=True, new_id=lambda: "call_00000000")
    return lambda: family.make(asked)


def family_answer(family: ParserFamily, n_tokens: int) -> str:
    """Write an answer with the family's own tags of thinking; calls differ too much from family to family."""
    ends = family.think_ends
    return answer(
        n_tokens, (family.think_start if ends else "", ends[0] if ends else ""), calls=False
    )


def row(name: str, cells: Sequence[float]) -> list[str]:
    """Write a row of microseconds."""
    return [name, *(f"{cell:,.1f}" for cell in cells)]


def apply_tiny() -> Applied:
    """Let the built-in model's template say how its answers look."""
    with Model.load(TINY / "tiny-q8_0.gguf") as model, ChatTemplate(model) as chat:
        prompt = ChatPrompt((ChatMessage("user", "Hello"),), tools_json=_TOOLS, think=True)
        return chat.apply(prompt)


def main() -> int:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("names", nargs="*", help="named parsers (default: all)")
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--publish", action="store_true", help="put the table into the docs")
    args = arguments.parse_args()
    lengths = N_TOKENS_QUICK if args.quick else N_TOKENS
    initialize(choose_cpu_variant().path)
    parser_json = bytes(apply_tiny().parser)
    think = ("<think>\n", "\n</think>\n\n")
    texts = [answer(n, think, calls=True) for n in lengths]

    ours = [
        stream_us(lambda: JinjaParser(parser_json, lambda: "call_00000000"), text) for text in texts
    ]
    theirs = [whole_us(parser_json, text) for text in texts]
    rows = [row("olm, Jinja", ours), row("llama.cpp, the whole text each time", theirs)]
    rows.append(
        ["llama.cpp, an answer in all"]
        + [
            f"{each * len(pieces_of(text)) / 1e3:,.0f} ms"
            for each, text in zip(theirs, texts, strict=True)
        ]
    )
    slow = [name for name, cells in [("Jinja", ours)] if max(cells) > LIMIT_US]
    for name in args.names or (QUICK if args.quick else sorted(PARSERS)):
        family = PARSERS[name]
        cells = [stream_us(family_maker(family), family_answer(family, n)) for n in lengths]
        rows.append(row(f"olm, {name}", cells))
        slow += [name] if max(cells) > LIMIT_US else []

    table = markdown_table(["parser", *(f"{n:,} tokens" for n in lengths)], rows)
    text = (
        f"{describe_machine()}\n\nMicroseconds per token; the limit is {LIMIT_US:.0f}.\n\n{table}"
    )
    print(text)
    if args.publish:
        publish("parse", text)
    if slow:
        print(f"\nover the limit: {', '.join(slow)}")
    return 1 if slow else 0


if __name__ == "__main__":
    raise SystemExit(main())
