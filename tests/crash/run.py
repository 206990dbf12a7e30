"""The crash test: `python -m crash.run --seeds 1000`. Prints seeds that fail; `--seed N` does one of them again.

A process with the shim, `_Worker`, forks one process for each life of a daemon, reads the journal when that is dead, and
checks what is left: the tree on disk as it is after a kill, and trees as a power cut at any moment could have left them.
"""

from __future__ import annotations

import argparse
import copy
import faulthandler
import gc
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs
import trio

from crash.disk import Disk, Tree, read_tree, write_tree
from crash.journal import Kind, Record, note_record, read_journal
from crash.ledger import Ledger
from crash.life import live
from crash.sabotage import SABOTAGES
from crash.script import FAULTS, Life, Script, make_script
from crash.shim import DeafShim, Shim, build, preloaded
from crash.verify import verify
from crash.world import World, local, marks, open_world

__all__ = ["main"]

_LIFE_S: Final = 90
"""A life that takes longer hangs."""
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
    stops_early: bool
    tells: bool


@attrs.define
class Result:
    """What came of a seed: lines about what is wrong, and what was tried."""

    seed: int
    wrong: list[str] = attrs.field(factory=list)
    tried: Counter[str] = attrs.field(factory=Counter)
    messages: Counter[str] = attrs.field(factory=Counter)


# -- one seed --------------------------------------------------------------------------------------------------------


class _Seed:
    """Runs the script of a seed and looks at what it leaves."""

    def __init__(self, script: Script, base: Path, shim: Shim, tiny: str, sabotage: str) -> None:
        self._script = script
        self._base = base
        self._shim = shim
        self._sabotage = sabotage
        self._tiny = tiny
        self._live = base / "live"
        self._journal = base / "journal"
        self.result = Result(script.seed)

    def run(self, n_cuts: int) -> Result:
        """Run it."""
        shutil.copytree(self._script.start, self._live)
        self._start = Disk(self._live)
        names, wrong = marks(read_tree(self._live / "home/models"))
        assert not wrong, wrong
        self._names = names
        for life in self._script.lives:
            self._one_life(life)
            self._note_death()
        records = list(read_journal(self._journal.read_bytes()))
        self._judge(records)
        disk, ledger = self._replayed(records)
        self._compare(disk.tree(), read_tree(self._live))
        self._verify("kill", self._live, ledger)
        for number in range(n_cuts):
            self._cut(number, records)
        return self.result

    def _ledger(self) -> Ledger:
        return Ledger(self._script.operations, self._names, (local("tiny"), self._tiny))

    def _one_life(self, life: Life) -> None:
        journal = os.open(self._journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

        def work() -> None:
            if self._sabotage:
                SABOTAGES[self._sabotage]()
            self._shim.watch(self._live, journal)
            trio.run(live, self._live, life, self._shim)

        status = _forked(work, self._base / "errors")
        os.close(journal)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
            self._fail(
                f"a life ended by signal {os.WTERMSIG(status)} (14: it hung): {self._errors()}"
            )
        elif os.WIFEXITED(status) and os.WEXITSTATUS(status):
            self._fail(f"a life ended with status {os.WEXITSTATUS(status)}: {self._errors()}")

    def _errors(self) -> str:
        return (self._base / "errors").read_text()[-4000:]

    def _note_death(self) -> None:
        """In the journal, for what follows; the shim is in nobody's way here."""
        with self._journal.open("ab") as file:
            file.write(note_record("died"))

    def _replayed(self, records: Sequence[Record]) -> tuple[Disk, Ledger]:
        disk, ledger = copy.deepcopy(self._start), self._ledger()
        for record in records:
            disk.apply(record)
            if record.kind is Kind.NOTE:
                ledger.note(record.first)
        return disk, ledger

    def _judge(self, records: Sequence[Record]) -> None:
        """Failures have to have a reason, and to say it well; count what was tried."""
        ledger, is_faulty, last, lacking = self._ledger(), False, 0, set[int]()
        faults = iter([life.fault.name for life in self._script.lives])
        fault, hit = next(faults), False
        for record in records:
            if record.kind is Kind.FAULT:
                is_faulty = True
                if not hit:
                    self._count(fault, last)
                    hit = True
            if record.kind is not Kind.NOTE:
                continue
            word, _, rest = record.first.partition(" ")
            is_faulty |= record.first == "armed full"  # it may be told before anything fails
            if word == "died":
                if not hit:
                    self._count(fault, last)
                fault, hit, is_faulty = next(faults, "none"), False, False
            ledger.note(record.first)
            for operation in ledger.running.values():
                if ledger.may_lack(operation):
                    lacking.add(operation.number)
            if word == "begin":
                last = int(rest)
            if word == "failed":
                self._judge_failure(rest, is_faulty=is_faulty, lacking=lacking)

    def _count(self, fault: str, number: int) -> None:
        kinds = {operation.number: operation.kind for operation in self._script.operations}
        self.result.tried[f"{fault} {kinds.get(number, 'start')}"] += 1

    def _judge_failure(self, rest: str, *, is_faulty: bool, lacking: set[int]) -> None:
        number, name, message = (*rest.split(" ", 2), "")[:3]
        operation = next(item for item in self._script.operations if item.number == int(number))
        if name == "DEFECT" or name == "ActorStopped" or "\n" in message:
            self._fail(f"{operation} failed badly: {name} {message}")
        elif operation.number in lacking:
            return
        elif not is_faulty:
            self._fail(f"{operation} failed without a fault: {name} {message}")
        else:
            self.result.messages[f"{operation.kind}: {name} {message}"] += 1

    def _compare(self, expected: Tree, actual: Tree) -> None:
        """Whether the shim has seen everything."""
        for path in sorted(expected.keys() | actual.keys()):
            if expected.get(path, 0) != actual.get(path, 0):
                self._fail(f"the journal does not explain {path}: the shim has missed something")

    def _cut(self, number: int, records: Sequence[Record]) -> None:
        dice = random.Random(f"{self._script.seed} {number}")
        n_records = dice.randint(1, len(records))
        base = self._base / f"cut-{number}"
        disk, ledger = self._replayed(records[:n_records])
        ledger.died()
        write_tree(base, disk.after_power_cut(dice))
        self.result.tried["power cut"] += 1
        self._verify(f"power cut {number} after record {n_records}", base, ledger)

    def _verify(self, what: str, base: Path, ledger: Ledger) -> None:
        report = self._base / "report"

        def work() -> None:
            report.write_text(json.dumps(trio.run(verify, base, ledger)))

        report.unlink(missing_ok=True)
        status = _forked(work, self._base / "errors")
        if status or not report.exists():
            self._fail(f"{what}: the check ended with {status}: {self._errors()}")
            return
        for line in json.loads(report.read_text()):
            self._fail(f"{what}: {line}")

    def _fail(self, line: str) -> None:
        self.result.wrong.append(line)


def _forked(work: Callable[[], None], errors: Path) -> int:
    """Run something in a process of its own, what it says going to a file; returns its status."""
    pid = os.fork()
    if pid == 0:
        try:
            fd = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(fd, 1)
            os.dup2(fd, 2)
            faulthandler.dump_traceback_later(_LIFE_S - 2)
            signal.alarm(_LIFE_S)
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1]


# -- many of them ----------------------------------------------------------------------------------------------------


def _warm(world: World, folder: Path) -> None:
    """Import here what a life will need, so that no life has to: a first one tells."""
    told = folder / "modules"

    def work() -> None:
        base = folder / "warm"
        shutil.copytree(world.folder / "stores/full", base)
        script = make_script(0, world)
        for life in script.lives:
            trio.run(live, base, attrs.evolve(life, ends_well=True), DeafShim())
        told.write_text(json.dumps(list(sys.modules)))

    assert _forked(work, folder / "errors") == 0, (folder / "errors").read_text()
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
        script = make_script(seed, world)
        try:
            result = _Seed(script, base, shim, str(tiny), options.sabotage).run(options.n_cuts)
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
    faults = [*FAULTS]
    rows = [f"| operation | {' | '.join(faults)} |", f"|---|{'---|' * len(faults)}"]
    kinds = sorted({key.split(" ")[1] for key in tried if key.split(" ")[0] in FAULTS})
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
        stops_early=args.first,
        tells=args.messages,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns the exit status: 1 when a seed failed."""
    options = _options(arguments)
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
            f"{n_done} seeds, {tried['power cut']} power cuts, {failed} failed, {time.monotonic() - began_s:.0f} s"
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
