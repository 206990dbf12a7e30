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
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
from load import LoadError, LoadSpec, run_load
from machine import describe_machine, wait_until_idle
from report import markdown_table, pairwise_ratio, publish
from serve import model_file
from servers import (
    BenchError,
    ServerPlan,
    cache_directory,
    create_model,
    open_olm,
    peer_directory,
    variant_directory,
)

__all__ = ["main"]

_SHAPE: Final = "q05b"
_N_PROMPT: Final = 512


def llama_bench_rate(directory: Path, n_threads: int) -> float:
    """Run llama-bench's prompt processing once and return tokens a second; raises BenchError with its own words."""
    command = [str(directory / "llama-bench"), "-m", str(model_file(_SHAPE)), "-o", "json"]
    command += ["-p", str(_N_PROMPT), "-n", "0", "-r", "2", "-t", str(n_threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"llama-bench ended with {done.returncode}: {done.stderr[-1000:]}")
    return float(json.loads(done.stdout)[0]["avg_ts"])


def olm_rate(store: Path, variant: str, n_threads: int, seed: int) -> float:
    """Send one prompt through a fresh daemon that uses `variant`; return prompt tokens a second of wall time."""
    with open_olm(store, ServerPlan(1, n_threads, cpu_variant=variant)) as server:
        spec = LoadSpec(server.url, model=_SHAPE, n_tokens=1, prompt_words=_N_PROMPT, seed=seed)
        run_load(spec)
        wait_until_idle(server.pid)
        result = run_load(attrs.evolve(spec, seed=seed + 1_000_000), server.pid)
    return result.n_prompt_tokens / result.wall_s


def _compare(
    name: str, fast: Callable[[int], float], plain: Callable[[int], float], n: int
) -> list[str]:
    """Measure `n` pairs and return a row of the table."""
    pairs = [(fast(number), plain(number)) for number in range(n)]
    fast_rates, plain_rates = zip(*pairs, strict=True)
    print(f"{name}: {fast_rates} against {plain_rates} tok/s", file=sys.stderr)
    return [
        name,
        str(pairwise_ratio(fast_rates, plain_rates)),
        f"{statistics.median(fast_rates):.0f}",
        f"{statistics.median(plain_rates):.0f}",
    ]


def _run(fast: str, plain: str, n_threads: int, n_pairs: int) -> str:
    """Measure both ways and return the markdown."""
    peer = peer_directory()
    with tempfile.TemporaryDirectory(prefix="prefill-", dir=cache_directory()) as directory:
        scratch = Path(directory)
        programs = {v: variant_directory(peer, v, scratch / v) for v in (fast, plain)}
        with open_olm(scratch / "store") as server:
            create_model(server, _SHAPE, model_file(_SHAPE))
        rows = [
            _compare(
                "llama-bench",
                lambda _: llama_bench_rate(programs[fast], n_threads),
                lambda _: llama_bench_rate(programs[plain], n_threads),
                n_pairs,
            ),
            _compare(
                "olm, HTTP",
                lambda seed: olm_rate(scratch / "store", fast, n_threads, seed),
                lambda seed: olm_rate(scratch / "store", plain, n_threads, seed),
                n_pairs,
            ),
        ]
    head = [f"{_SHAPE} Q8_0, {_N_PROMPT} tokens", "ratio", f"{fast}, tok/s", f"{plain}, tok/s"]
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
    try:
        text = _run(args.fast, args.plain, args.threads, 1 if args.quick else 3)
    except (BenchError, LoadError, OSError) as exc:
        sys.exit(f"prefill: {exc}")
    print(text)
    if args.publish:
        publish("prefill", text)


if __name__ == "__main__":
    main()
