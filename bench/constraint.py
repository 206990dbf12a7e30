#!/usr/bin/env python3
"""What a JSON schema costs a stream: tokens a second with and without one, run by run in turn, in the engine itself.

    python bench/constraint.py          # the built-in model and the 0.5 B shape with 152 k tokens, 1 and 4 streams
    python bench/constraint.py --quick

The schema is one that never ends: an array of objects with strings, numbers, choices and a pattern. Both runs ignore end
tokens and draw as many tokens, so a pair differs in the masks alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs
import trio
from machine import CpuWindow, describe_machine
from report import markdown_table, pairwise_ratio, publish
from serve import model_file

from olm.chat.constraints import answer_grammar
from olm.chat.grammar import AnswerGrammar
from olm.chat.types import Constraint, Sampling
from olm.native.devices import choose_cpu_variant
from olm.native.engine import Done, Engine, EngineOptions, Failed
from olm.native.handles import Model, initialize

__all__ = ["Run", "main", "measure"]

_TINY: Final = Path(__file__).parents[1] / "src/olm/data/tiny/tiny-q8_0.gguf"
_PERSON: Final = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0},
        "mood": {"enum": ["glad", "calm", "sad"]},
        "zip": {"type": "string", "pattern": "^[0-9]{5}$"},
        "notes": {"type": "array", "items": {"type": "string", "maxLength": 60}},
    },
    "required": ["name", "age", "mood", "zip", "notes"],
    "additionalProperties": False,
}
_SCHEMA: Final = {"type": "array", "items": _PERSON, "minItems": 100_000}


@attrs.frozen
class Run:
    """One run: tokens a second of all streams, sampling (with the wait for masks) a token, the first token's delay."""

    tokens_per_s: float
    sample_us: float
    first_ms: float


async def measure(
    engine: Engine, prompt: Sequence[int], grammar: AnswerGrammar | None, n_streams: int, n: int
) -> Run:
    """Generate `n` tokens in each stream. Raises what a request fails with."""
    sampling = Sampling(temperature=1.0, ignore_eos=True, n_predict=n, seed=1)
    before, started_s = engine.stats(), time.perf_counter()
    requests = {engine.submit(prompt, sampling, constraint=grammar) for _ in range(n_streams)}
    delays_ms: list[float] = []
    n_tokens = 0
    while requests:
        for event in await engine.next_events():
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Done):
                requests.discard(event.request)
                n_tokens += event.n_generated
                delays_ms.append(event.prompt_ns / 1e6)
    took_s, after = time.perf_counter() - started_s, engine.stats()
    assert n_tokens == n * n_streams, "no stream ended early"
    sample_us = (after.sample_ns - before.sample_ns) / 1e3 / n_tokens
    return Run(n_tokens / took_s, sample_us, statistics.median(delays_ms))


async def _row(
    name: str, engine: Engine, prompt: Sequence[int], n_streams: int, n: int, n_pairs: int
) -> list[str]:
    grammar = answer_grammar(Constraint("json_schema", json.dumps(_SCHEMA)))
    for warm_up in (None, grammar):  # the vocabulary for grammars is made here
        await measure(engine, prompt, warm_up, n_streams, 8)
    window, started_s = CpuWindow(None), time.perf_counter()
    free: list[Run] = []
    held: list[Run] = []
    for _ in range(n_pairs):
        free.append(await measure(engine, prompt, None, n_streams, n))
        held.append(await measure(engine, prompt, grammar, n_streams, n))
    foreign = window.foreign_frac(time.perf_counter() - started_s)
    ratio = pairwise_ratio([run.tokens_per_s for run in held], [run.tokens_per_s for run in free])

    def medians(field: str, form: str) -> str:
        with_without = [
            statistics.median(getattr(run, field) for run in runs) for runs in (held, free)
        ]
        return " / ".join(form.format(value) for value in with_without)

    return [
        f"{name}, {n_streams}",
        str(ratio),
        medians("tokens_per_s", "{:.0f}"),
        medians("sample_us", "{:.0f}"),
        medians("first_ms", "{:.1f}"),
        f"{foreign:.0%}",
    ]


async def _table(n_pairs: int, n_tokens: int, n_threads: int) -> str:
    rows: list[list[str]] = []
    for name, path in (("tiny", _TINY), ("q05b Q8_0", model_file("q05b"))):
        options = EngineOptions(n_ctx=1024, n_parallel=4, n_threads=n_threads)
        with Model.load(path) as model, Engine(model, options) as engine:
            prompt = model.tokenize("A list of people as JSON:")
            rows += [
                await _row(name, engine, prompt, n_streams, n_tokens, n_pairs)
                for n_streams in (1, 4)
            ]
    head = [
        "model, streams",
        "with : without",
        "tok/s",
        "sampling, µs",
        "first token, ms",
        "others",
    ]
    return markdown_table(head, rows)


def main() -> None:
    """Run the command line described at the top of this file."""
    parser = argparse.ArgumentParser(description="What a JSON schema costs a stream.")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--publish", action="store_true", help="put the table into the docs")
    args = parser.parse_args()
    initialize(choose_cpu_variant().path)
    n_pairs, n_tokens = (3, 64) if args.quick else (7, 192)
    table = trio.run(_table, n_pairs, n_tokens, args.threads)
    text = f"{describe_machine()}; {args.threads} engine thread(s), medians of {n_pairs} pairs.\n\n{table}"
    print(text)
    if args.publish:
        publish("constraint", text)


if __name__ == "__main__":
    main()
