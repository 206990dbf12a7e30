#!/usr/bin/env python3
"""Compare `olm serve` with llama.cpp's own llama-server through HTTP.

    python bench/serve.py             # the standard table, under five minutes
    python bench/serve.py --quick     # fewer pairs, about a minute
    python bench/serve.py --publish   # also put the table into docs/performance.md
    python bench/serve.py --null      # llama-server against itself: the noise of the method

Both servers run the same random-weight model on the same number of threads, with CPU kernels from the same tree. They are
started one after the other, A-B-A-B, and each pair of neighbours gives one ratio; the table has the median of the ratios and their
range. A pair during which other programs took more than 5 % of the machine is repeated, and marked if that does not help.
Token counts must be equal, or the run fails: a server that generates less has not been faster.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs
from load import LoadError, LoadResult, LoadSpec, run_load
from machine import FOREIGN_LIMIT_FRAC, describe_machine, wait_until_idle
from make_model import write_model
from report import markdown_table, pairwise_ratio, publish
from servers import (
    BenchError,
    Server,
    ServerPlan,
    cache_directory,
    create_model,
    end_on_sigterm,
    llama_cpp_tree,
    open_llama_server,
    open_olm,
    peer_directory,
)

__all__ = ["Case", "Outcome", "Pair", "main", "model_file", "run_case"]

_MAX_REPEATS: Final = 2
_WARM_UP_TOKENS: Final = 16


@attrs.frozen
class Case:
    """One row of the table: a shape of `make_model`, streams at once, and tokens of each, so that a run takes seconds."""

    shape: str
    n_streams: int
    n_tokens: int


CASES: Final = (
    Case("s15m", 1, 800),
    Case("s15m", 8, 400),
    Case("q05b", 1, 96),
    Case("q05b", 8, 48),
)


@attrs.frozen
class Pair:
    """Two runs beside each other in time."""

    ours: LoadResult
    theirs: LoadResult

    @property
    def foreign_frac(self) -> float:
        """The larger share of the machine that others took."""
        return max(self.ours.foreign_frac, self.theirs.foreign_frac)


@attrs.frozen
class Outcome:
    """All pairs of a case."""

    case: Case
    pairs: tuple[Pair, ...]


Opener = Callable[[], contextlib.AbstractContextManager[Server]]


def model_file(shape: str) -> Path:
    """Return the Q8_0 file of a shape, made on first use (half a minute for the 0.5 B one)."""
    path = cache_directory() / f"{shape}-q8_0.gguf"
    if not path.exists():
        print(f"making {path}", file=sys.stderr)
        write_model(shape, llama_cpp_tree() / "models", path)
    return path


def _measure(opener: Opener, case: Case, seed: int) -> LoadResult:
    """Start a server, warm it up, load it once, stop it."""
    with opener() as server:
        spec = LoadSpec(
            url=server.url,
            api=server.api,
            model=case.shape,
            n_streams=case.n_streams,
            n_tokens=_WARM_UP_TOKENS,
            seed=seed,
        )
        run_load(spec)
        wait_until_idle(server.pid)
        # Another seed: nothing of the prompts may be cached, in either server.
        spec = attrs.evolve(spec, n_tokens=case.n_tokens, seed=seed + 1_000_000)
        return run_load(spec, server.pid)


def _check_equal_work(case: Case, pair: Pair) -> None:
    ours, theirs = pair.ours, pair.theirs
    wanted = case.n_streams * case.n_tokens
    if not ours.n_tokens == theirs.n_tokens == wanted:
        raise BenchError(f"{case}: tokens {ours.n_tokens} and {theirs.n_tokens}, wanted {wanted}")
    if ours.n_prompt_tokens != theirs.n_prompt_tokens:
        raise BenchError(
            f"{case}: prompt tokens {ours.n_prompt_tokens} here, {theirs.n_prompt_tokens} there"
        )


def run_case(case: Case, ours: Opener, theirs: Opener, n_pairs: int) -> Outcome:
    """Measure `n_pairs` pairs, ours first in each.

    Raises:
        BenchError: a server does not start, or the two did not do the same work.
        LoadError: a stream failed.
    """
    pairs: list[Pair] = []
    for seed in range(n_pairs):
        for _ in range(1 + _MAX_REPEATS):
            pair = Pair(_measure(ours, case, seed), _measure(theirs, case, seed))
            _check_equal_work(case, pair)
            if pair.foreign_frac <= FOREIGN_LIMIT_FRAC:
                break
        pairs.append(pair)
        print(
            f"{case.shape} x{case.n_streams}: first {pair.ours.tokens_per_s:.0f}, "
            f"second {pair.theirs.tokens_per_s:.0f} tok/s, others {pair.foreign_frac:.0%}",
            file=sys.stderr,
        )
    return Outcome(case, tuple(pairs))


def _both(outcome: Outcome, value: Callable[[LoadResult], float], digits: int) -> str:
    """Medians of both systems, as `ours / theirs`."""
    ours = statistics.median(value(pair.ours) for pair in outcome.pairs)
    theirs = statistics.median(value(pair.theirs) for pair in outcome.pairs)
    return f"{ours:.{digits}f} / {theirs:.{digits}f}"


def _row(outcome: Outcome) -> list[str]:
    ratio = pairwise_ratio(
        [pair.ours.tokens_per_s for pair in outcome.pairs],
        [pair.theirs.tokens_per_s for pair in outcome.pairs],
    )
    n_noisy = sum(pair.foreign_frac > FOREIGN_LIMIT_FRAC for pair in outcome.pairs)
    noise = f", {n_noisy} noisy" if n_noisy else ""
    return [
        f"{outcome.case.shape} Q8_0, {outcome.case.n_streams}",
        str(ratio),
        _both(outcome, lambda r: r.tokens_per_s, 0),
        _both(outcome, lambda r: r.ttft_p50_ms, 1),
        _both(outcome, lambda r: r.gap_p95_ms, 2),
        _both(outcome, lambda r: r.cpu_s_per_1k, 2),
        f"{len(outcome.pairs)}{noise}",
    ]


def report_text(outcomes: Sequence[Outcome], n_threads: int, first: str = "olm") -> str:
    """Return the markdown that the documentation carries: the machine, then the table."""
    head = [
        "model, streams",
        f"throughput {first} : llama-server",
        "tok/s",
        "TTFT p50, ms",
        "gap p95, ms",
        "CPU s per 1000 tokens",
        "pairs",
    ]
    table = markdown_table(head, [_row(outcome) for outcome in outcomes])
    return (
        f"Machine: {describe_machine()}; {n_threads} threads.\n\n{table}\n\n"
        "The ratio is the median of the pairs' (lowest–highest); the other columns are medians, "
        f"{first} / llama-server."
    )


@contextlib.contextmanager
def _store_with(shapes: Sequence[str]) -> Iterator[Path]:
    """A store of its own that holds the shapes, beside the models so that nothing crosses a file system."""
    with tempfile.TemporaryDirectory(prefix="store-", dir=cache_directory()) as directory:
        store = Path(directory)
        with open_olm(store) as server:
            for shape in shapes:
                create_model(server, shape, model_file(shape))
        yield store


def _run(cases: Sequence[Case], n_pairs: int, n_threads: int, *, is_null: bool) -> list[Outcome]:
    peer = peer_directory()
    shapes = [] if is_null else sorted({case.shape for case in cases})
    outcomes: list[Outcome] = []
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(_store_with(shapes)) if shapes else None
        for case in cases:
            plan = ServerPlan(n_parallel=case.n_streams, n_threads=n_threads)
            model = model_file(case.shape)

            theirs = functools.partial(open_llama_server, peer, model, plan)
            ours = functools.partial(open_olm, store, plan) if store else theirs
            outcomes.append(run_case(case, ours, theirs, n_pairs))
    return outcomes


def main() -> None:
    """Run the command line described at the top of this file."""
    parser = argparse.ArgumentParser(description="Compare olm with llama-server through HTTP.")
    parser.add_argument("--quick", action="store_true", help="two pairs instead of five")
    parser.add_argument("--pairs", type=int, help="pairs for each row")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--shape", choices=sorted({case.shape for case in CASES}))
    parser.add_argument("--streams", type=int, choices=sorted({c.n_streams for c in CASES}))
    parser.add_argument("--null", action="store_true", help="compare llama-server with itself")
    parser.add_argument("--json", type=Path, help="write every run to this file")
    parser.add_argument("--publish", action="store_true", help="write to docs/performance.md")
    args = parser.parse_args()
    end_on_sigterm()
    if args.publish and (args.shape or args.streams or args.quick or args.null):
        parser.error("--publish replaces the whole table, so it wants all rows, all pairs, and olm")
    cases = [
        case
        for case in CASES
        if args.shape in (None, case.shape) and args.streams in (None, case.n_streams)
    ]
    try:
        n_pairs = args.pairs or (2 if args.quick else 5)
        outcomes = _run(cases, n_pairs, args.threads, is_null=args.null)
    except (BenchError, LoadError, OSError) as exc:
        sys.exit(f"serve: {exc}")
    if args.json:
        args.json.write_text(json.dumps([attrs.asdict(o) for o in outcomes], indent=1) + "\n")
    text = report_text(outcomes, args.threads, "llama-server" if args.null else "olm")
    print(text)
    if args.publish:
        publish("serve", text)


if __name__ == "__main__":
    main()
