"""One seed: its lives are lived, each in a process of its own, and what they leave is looked at.

Twice: the tree on disk as the last death left it, and trees as a power cut at any moment might have left them.
"""

from __future__ import annotations

import copy
import faulthandler
import json
import os
import random
import shutil
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs
import trio

from crash.disk import Disk, Tree, read_tree, write_tree
from crash.journal import Kind, Record, note_record, read_journal
from crash.ledger import Ledger
from crash.life import live
from crash.sabotage import SABOTAGES
from crash.script import Life, Script
from crash.shim import Shim
from crash.verify import verify
from crash.world import local, marks

__all__ = ["Result", "Seed", "forked"]

_LIFE_S: Final = 90
"""A life that takes longer hangs."""


@attrs.define
class Result:
    """What came of a seed: lines about what is wrong, and what was tried."""

    seed: int
    wrong: list[str] = attrs.field(factory=list)
    tried: Counter[str] = attrs.field(factory=Counter)
    messages: Counter[str] = attrs.field(factory=Counter)


def forked(work: Callable[[], None], errors: Path) -> int:
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


class Seed:
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

        status = forked(work, self._base / "errors")
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
        write_tree(base, disk.after_power_cut(dice))
        running = [*ledger.running] or [operation.number for operation in ledger.done[-1:]]
        for operation in running[-1:]:
            self._count("power", operation)
        ledger.died()
        self._verify(f"power cut {number} after record {n_records}", base, ledger)

    def _verify(self, what: str, base: Path, ledger: Ledger) -> None:
        report = self._base / "report"

        def work() -> None:
            report.write_text(json.dumps(trio.run(verify, base, ledger)))

        report.unlink(missing_ok=True)
        status = forked(work, self._base / "errors")
        if status or not report.exists():
            self._fail(f"{what}: the check ended with {status}: {self._errors()}")
            return
        for line in json.loads(report.read_text()):
            self._fail(f"{what}: {line}")

    def _fail(self, line: str) -> None:
        self.result.wrong.append(line)
