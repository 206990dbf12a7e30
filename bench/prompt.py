#!/usr/bin/env python3
"""From a request's bytes to the engine's queue: what a 100-message chat costs olm besides tokenizing, by each way to a prompt.

    python bench/prompt.py             # about 10 seconds
    python bench/prompt.py --publish   # also put the table into docs/performance.md

All that stands between the socket and the first step is run in one process, in order: decoding the HTTP body, the
checks, the message to the worker and back out of msgpack, rendering, tokenizing (timed apart), the engine's request.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs
import msgspec
from machine import describe_machine
from report import markdown_table, publish

from olm.actors.client import ChatRequest, ModelDetails, StoredModel
from olm.actors.turns import plan_chat, turn_message
from olm.api import schemas
from olm.api.dialects.ollama import chat_request
from olm.chat.types import PromptStyle
from olm.native import wire
from olm.native.devices import choose_cpu_variant, plugin_paths
from olm.native.handles import LoadState, initialize
from olm.native.loaded import LoadedModel, open_model
from olm.native.prompting import prepare
from olm.native.submitting import engine_request

TINY: Final = Path(__file__).resolve().parents[1] / "src" / "olm" / "data" / "tiny"
LIMIT_MS: Final = 10.0

_SENTENCE: Final = "The quick brown fox jumps over the lazy dog and goes home to think about it. "


@attrs.define
class TimedTokenizer:
    """The model's tokenizer with a stop watch."""

    loaded: LoadedModel
    seconds: float = 0.0

    @property
    def add_bos(self) -> bool:
        return self.loaded.add_bos

    @property
    def add_eos(self) -> bool:
        return self.loaded.add_eos

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> Sequence[int]:
        started = time.perf_counter()
        tokens = self.loaded.tokenize(text, add_special=add_special, parse_special=parse_special)
        self.seconds += time.perf_counter() - started
        return tokens


def body(n_messages: int, n_tools: int) -> bytes:
    """A chat of about 300 characters a message, with so many tools of four parameters each."""
    messages = [
        {"role": ("user", "assistant")[n % 2], "content": f"{n}. " + _SENTENCE * 4}
        for n in range(n_messages - 1)
    ]
    messages.append({"role": "user", "content": "And now?"})
    schema = {
        "type": "object",
        "properties": {f"p{n}": {"type": "string", "description": "What it is"} for n in range(4)},
        "required": ["p0"],
    }
    tools = [
        {
            "type": "function",
            "function": {"name": f"tool_{n}", "description": "Does it", "parameters": schema},
        }
        for n in range(n_tools)
    ]
    return json.dumps({"model": "tiny", "messages": messages, "tools": tools}).encode()


def once(data: bytes, model: StoredModel, loaded: LoadedModel) -> tuple[float, float]:
    """Do everything for one request; seconds in all and of these for tokenizing."""
    tokenizer = TimedTokenizer(loaded)
    started = time.perf_counter()
    request = chat_request(msgspec.json.decode(data, type=schemas.ChatRequest))
    assert isinstance(request, ChatRequest), "it has messages"
    plan = plan_chat(request, model)
    sent = msgspec.msgpack.encode(turn_message(plan, n_ctx=32768))
    turn = msgspec.msgpack.decode(sent, type=wire.Turn)
    prepared = prepare(turn, n_ctx=32768, tokenizer=tokenizer, template=loaded)
    engine_request(turn, prepared)
    return time.perf_counter() - started, tokenizer.seconds


def median_ms(run: Callable[[], tuple[float, float]], n_runs: int) -> tuple[float, float]:
    """Medians of (everything but tokenizing, tokenizing), milliseconds, after one run that fills the caches."""
    run()
    times = [run() for _ in range(n_runs)]
    return (
        statistics.median(whole - tokens for whole, tokens in times) * 1e3,
        statistics.median(tokens for _, tokens in times) * 1e3,
    )


def styles() -> dict[str, PromptStyle]:
    """The ways that are measured."""
    return {
        "Jinja (tiny's own)": PromptStyle(),
        "Go template (tiny's own)": PromptStyle(template=(TINY / "template.gotmpl").read_text()),
        "renderer and parser `qwen3-coder`": PromptStyle("qwen3-coder", "qwen3-coder"),
        "renderer and parser `gemma4`": PromptStyle("gemma4", "gemma4"),
    }


def stored(style: PromptStyle) -> StoredModel:
    """The built-in model as if it had that style."""
    (weights,) = TINY.glob("*.gguf")
    return StoredModel(
        name="tiny:latest",
        full_name="registry.ollama.ai/library/tiny:latest",
        digest="0" * 64,
        size_bytes=weights.stat().st_size,
        modified_ns=0,
        details=ModelDetails(family="llama"),
        capabilities=("completion", "tools", "thinking"),
        weights=weights,
        weights_digest="sha256:" + "0" * 64,
        template=style.template,
        uses_go_template=bool(style.template),
        has_chat_template=True,
        renderer=style.renderer,
        parser=style.parser,
    )


def main() -> int:
    """Measure and print; 1 if a median is over the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=100)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--publish", action="store_true")
    args = parser.parse_args()
    initialize(choose_cpu_variant().path, plugin_paths())
    (weights,) = TINY.glob("*.gguf")
    loaded = open_model(wire.Load(path=str(weights)), LoadState())
    rows, worst = [], 0.0
    try:
        for name, style in styles().items():
            model = stored(style)
            for n_tools in (0, 8):
                data = body(args.messages, n_tools)
                rest, tokens = median_ms(lambda: once(data, model, loaded), args.runs)  # noqa: B023  # called at once
                worst = max(worst, rest)
                rows.append((name, str(n_tools), f"{rest:.2f}", f"{tokens:.2f}"))
    finally:
        loaded.close()
    table = markdown_table(("way", "tools", "all but tokenizing (ms)", "tokenizing (ms)"), rows)
    text = f"{describe_machine()}\n\n{args.messages} messages, medians of {args.runs}; limit {LIMIT_MS:.0f} ms.\n\n{table}"
    print(text)
    if args.publish:
        publish("prompt", text)
    return int(worst > LIMIT_MS)


if __name__ == "__main__":
    raise SystemExit(main())
