#!/usr/bin/env python3
"""Prompt processing with AMX against AVX-512, in llama-bench and through olm's HTTP API.

    python bench/prefill.py             # 0.5 B shape, Q8_0, 512 tokens; about two minutes
    python bench/prefill.py --quick
    python bench/prefill.py --publish   # also put the table into docs/performance.md

The two CPU builds come from the same tree and run alternately. In llama-bench a build is chosen by leaving only that one
beside the program, in olm by OLM_CPU_VARIANT.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs
from load import LoadError, LoadSpec, run_load
from machine import FOREIGN_LIMIT_FRAC, CpuWindow, describe_machine, wait_until_idle
from report import markdown_table, pairwise_ratio, publish
from serve import model_file
from servers import (
    BenchError,
    ServerPlan,
    cache_directory,
    create_model,
    end_on_sigterm,
    open_olm,
    peer_directory,
    variant_directory,
)

__all__ = ["Rate", "llama_bench_rate", "main", "olm_rate"]

_SHAPE: Final = "q05b"
_N_PROMPT: Final = 512
_MAX_REPEATS: Final = 2


@attrs.frozen
class Rate:
    """Prompt tokens a second, and the share of the machine that others took meanwhile."""

    tokens_per_s: float
    foreign_frac: float


def llama_bench_rate(directory: Path, n_threads: int) -> Rate:
    """Run llama-bench's prompt processing; raises BenchError with its own words."""
    command = [str(directory / "llama-bench"), "-m", str(model_file(_SHAPE)), "-o", "json"]
    command += ["-p", str(_N_PROMPT), "-n", "0", "-r", "2", "-t", str(n_threads)]
    window, started = CpuWindow(None), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    foreign_frac = window.foreign_frac(time.perf_counter() - started)
    if done.returncode:
        raise BenchError(f"llama-bench ended with {done.returncode}: {done.stderr[-1000:]}")
    return Rate(float(json.loads(done.stdout)[0]["avg_ts"]), foreign_frac)


def olm_rate(store: Path, variant: str, n_threads: int, seed: int) -> Rate:
    """Send one prompt through a fresh daemon that uses `variant`; the rate is over wall time, HTTP and all.

    Raises BenchError when the daemon loaded another variant.
    """
    with open_olm(store, ServerPlan(1, n_threads, cpu_variant=variant)) as server:
        spec = LoadSpec(server.url, model=_SHAPE, n_tokens=1, prompt_words=_N_PROMPT, seed=seed)
        run_load(spec)
        wait_until_idle(server.pid)
        result = run_load(attrs.evolve(spec, seed=seed + 1_000_000), server.pid)
        if f"cpu={variant}" not in server.log.read_text(errors="replace"):
            raise BenchError(f"the daemon's log does not say that it used {variant}")
    return Rate(result.n_prompt_tokens / result.wall_s, result.foreign_frac)


def _pair(fast: Callable[[], Rate], plain: Callable[[], Rate]) -> tuple[Rate, Rate]:
    """Measure one after the other, again when others took too much of the machine."""
    for _ in range(1 + _MAX_REPEATS):
        pair = fast(), plain()
        if max(rate.foreign_frac for rate in pair) <= FOREIGN_LIMIT_FRAC:
            break
    return pair


def _row(name: str, pairs: Sequence[tuple[Rate, Rate]]) -> list[str]:
    fast = [pair[0].tokens_per_s for pair in pairs]
    plain = [pair[1].tokens_per_s for pair in pairs]
    n_noisy = sum(max(r.foreign_frac for r in pair) > FOREIGN_LIMIT_FRAC for pair in pairs)
    noise = f", {n_noisy} noisy" if n_noisy else ""
    return [
        name,
        str(pairwise_ratio(fast, plain)),
        f"{statistics.median(fast):.0f}",
        f"{statistics.median(plain):.0f}",
        f"{len(pairs)}{noise}",
    ]


def _run(fast: str, plain: str, n_threads: int, n_pairs: int) -> str:
    """Measure both ways and return the markdown."""
    peer = peer_directory()
    with tempfile.TemporaryDirectory(prefix="prefill-", dir=cache_directory()) as directory:
        scratch = Path(directory)
        programs = {v: variant_directory(peer, v, scratch / v) for v in (fast, plain)}
        with open_olm(scratch / "store") as server:
            create_model(server, _SHAPE, model_file(_SHAPE))
        ways: dict[str, Callable[[str, int], Rate]] = {
            "llama-bench": lambda variant, _: llama_bench_rate(programs[variant], n_threads),
            "olm, HTTP": lambda variant, n: olm_rate(scratch / "store", variant, n_threads, n),
        }
        rows = []
        for name, way in ways.items():
            pairs = [
                _pair(functools.partial(way, fast, n), functools.partial(way, plain, n))
                for n in range(n_pairs)
            ]
            rows.append(_row(name, pairs))
            print(" | ".join(rows[-1]), file=sys.stderr)
    head = [
        f"{_SHAPE} Q8_0, {_N_PROMPT} tokens",
        "ratio",
        f"{fast}, tok/s",
        f"{plain}, tok/s",
        "pairs",
    ]
    return f"Machine: {describe_machine()}; {n_threads} threads.\n\n{markdown_table(head, rows)}"


def main() -> None:
    """Run the command line described at the top of this file."""
    parser = argparse.ArgumentParser(description="Prompt processing, AMX against AVX-512.")
    parser.add_argument("--quick", action="store_true", help="one pair instead of three")
    parser.add_argument("--fast", default="sapphirerapids", help="the CPU build with AMX")
    parser.add_argument("--plain", default="zen4", help="the best CPU build without it")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--publish", action="store_true", help="write to docs/performance.md")
    args = parser.parse_args()
    end_on_sigterm()
    try:
        text = _run(args.fast, args.plain, args.threads, 1 if args.quick else 3)
    except (BenchError, LoadError, OSError) as exc:
        sys.exit(f"prefill: {exc}")
    print(text)
    if args.publish:
        publish("prefill", text)


if __name__ == "__main__":
    main()
