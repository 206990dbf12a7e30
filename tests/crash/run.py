"""The crash test: `python -m crash.run --seeds 1000`. Prints seeds that fail; `--seed N` does one of them again.

A process that has the shim, and everything imported, forks workers; what these do with a seed is in `crash.seed`.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs
import trio

from crash.disk import read_tree
from crash.life import live
from crash.sabotage import SABOTAGES
from crash.script import FAULTS, KINDS, Focus, first_life, make_script
from crash.seed import Result, Seed, forked
from crash.shim import DeafShim, Shim, build, preloaded
from crash.world import World, local, marks, open_world

__all__ = ["main"]

_READY: Final = "OLM_CRASH_SHIM"


@attrs.frozen(kw_only=True)
class Options:
    """From the command line."""

    seeds: Sequence[int]
    folder: Path
    n_jobs: int
    n_cuts: int
    is_kept: bool
    sabotage: str
    focus: Focus
    stops_early: bool
    tells: bool


def _warm(world: World, folder: Path) -> None:
    """Import here what a life will need, so that no life has to: a first one tells."""
    told = folder / "modules"

    def work() -> None:
        base = folder / "warm"
        shutil.copytree(world.folder / "stores/full", base)
        trio.run(live, base, first_life(world), DeafShim())
        told.write_text(json.dumps(list(sys.modules)))

    assert forked(work, folder / "errors") == 0, (folder / "errors").read_text()
    for name in json.loads(told.read_text()):
        if name != "__main__":
            with suppress(ImportError):
                importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _work(world: World, options: Options, number: int, out: int) -> None:
    """Run a share of the seeds; each result is a line."""
    shim = Shim()
    tiny = marks(read_tree(world.folder / "stores/full/home/models"))[0][local("tiny")]
    for seed in options.seeds[number :: options.n_jobs]:
        base = options.folder / f"seed-{seed}"
        base.mkdir()
        script = make_script(seed, world, options.focus)
        try:
            result = Seed(script, base, shim, str(tiny), options.sabotage).run(options.n_cuts)
        except Exception:
            result = Result(seed, [f"the harness failed: {traceback.format_exc()}"])
        if result.wrong:
            result.wrong.append(str(script))
        if not (result.wrong and options.is_kept):
            shutil.rmtree(base, ignore_errors=True)
        os.write(out, (json.dumps(attrs.asdict(result)) + "\n").encode())


def _results(world: World, options: Options) -> Iterator[Result]:
    """Run all seeds in several processes."""
    reading, writing = os.pipe()
    workers = []
    for number in range(options.n_jobs):
        pid = os.fork()
        if pid == 0:
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.close(reading)
                _work(world, options, number, writing)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        workers.append(pid)
    os.close(writing)
    try:
        with open(reading) as lines:
            for line in lines:
                fields = json.loads(line)
                tried, messages = Counter(fields.pop("tried")), Counter(fields.pop("messages"))
                yield Result(**fields, tried=tried, messages=messages)
    finally:
        for pid in workers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)


def _report(tried: Counter[str]) -> str:
    """How often each operation met each fault."""
    faults = [*FAULTS, "power"]
    rows = [f"| operation | {' | '.join(faults)} |", f"|---|{'---|' * len(faults)}"]
    kinds = sorted({key.split(" ")[1] for key in tried})
    for kind in kinds:
        counts = [str(tried[f"{fault} {kind}"]) for fault in faults]
        rows.append(f"| {kind} | {' | '.join(counts)} |")
    totals = [str(sum(n for key, n in tried.items() if key.startswith(f"{f} "))) for f in faults]
    rows.append(f"| all | {' | '.join(totals)} |")
    return "\n".join(rows)


def _options(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="crash.run", description=__doc__)
    parser.add_argument("--seeds", type=int, default=40, help="how many (40)")
    parser.add_argument("--base", type=int, default=0, help="the first (0)")
    parser.add_argument("--seed", type=int, help="this one alone, its files kept")
    parser.add_argument("--cuts", type=int, default=2, help="power cuts for each seed (2)")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--keep", action="store_true", help="keep the files of seeds that fail")
    parser.add_argument("--first", action="store_true", help="stop at the first that fails")
    parser.add_argument("--messages", action="store_true", help="print what failures said")
    parser.add_argument("--fault", choices=FAULTS, help="this one only")
    parser.add_argument("--operation", choices=sorted(KINDS), help="it falls on this one")
    parser.add_argument("--sabotage", choices=sorted(SABOTAGES), default="", help="break the store")
    args = parser.parse_args(arguments)
    seeds = range(args.base, args.base + args.seeds) if args.seed is None else [args.seed]
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="olm-crash-", dir=memory if memory.is_dir() else None))
    return Options(
        seeds=seeds,
        folder=folder,
        n_cuts=args.cuts,
        n_jobs=max(1, min(args.jobs, len(seeds))),
        is_kept=args.keep or args.seed is not None,
        sabotage=args.sabotage,
        focus=Focus(args.fault, args.operation),
        stops_early=args.first,
        tells=args.messages,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns the exit status: 1 when a seed failed."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all is cleared away
    failed = 0
    try:
        began_s = time.monotonic()
        tried, messages = Counter[str](), Counter[str]()
        with open_world(options.folder / "world") as world:
            _warm(world, options.folder)
            for n_done, result in enumerate(_results(world, options), 1):
                tried += result.tried
                messages += result.messages
                if result.wrong:
                    failed += 1
                    print(f"seed {result.seed} FAILED:", *result.wrong, sep="\n    ", flush=True)
                    if options.stops_early:
                        break
                if n_done % 100 == 0:
                    print(f"{n_done} seeds, {time.monotonic() - began_s:.0f} s", flush=True)
        print(_report(tried))
        if options.tells:
            for message, n in sorted(messages.items()):
                print(f"{n:5} {message}")
        print(
            f"{n_done} seeds, {sum(n for key, n in tried.items() if key.startswith('power '))} power cuts, {failed} failed, {time.monotonic() - began_s:.0f} s"
        )
        return 1 if failed else 0
    finally:
        if failed and options.is_kept:
            print(f"kept: {options.folder}")
        else:
            shutil.rmtree(options.folder, ignore_errors=True)


def _start() -> None:
    """Become a process with the shim."""
    folder = Path(tempfile.mkdtemp(prefix="olm-crash-shim-"))
    # Nothing is asked of registries elsewhere.
    proxy = {"HTTPS_PROXY": "http://127.0.0.1:1"}
    environment = {
        **proxy,
        **preloaded(build(folder)),
        _READY: str(folder),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    os.execve(sys.executable, [sys.executable, "-m", "crash.run", *sys.argv[1:]], environment)


if __name__ == "__main__":
    shim_folder = os.environ.pop(_READY, "")
    if not shim_folder:
        _start()
    shutil.rmtree(shim_folder, ignore_errors=True)
    sys.exit(main())
