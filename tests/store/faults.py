"""Fail or kill a process at its k-th change of the file system. The calls are counted where Python makes them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CALLS = (
    "write", "pwrite", "fsync", "replace", "rename", "unlink", "mkdir", "rmdir", "ftruncate",
)  # fmt: skip


@contextmanager
def at_step(k: int, act: Callable[[], None], *, before: bool = True) -> Iterator[list[str]]:
    """Run `act` before (or after) the k-th changing call, counted from 0; yields the names of the calls made."""
    made: list[str] = []
    real = {name: getattr(os, name) for name in CALLS}

    def wrap(name: str) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            made.append(name)
            is_it = len(made) - 1 == k
            if is_it and before:
                act()
            try:
                return real[name](*args, **kwargs)
            finally:
                if is_it and not before:
                    act()

        return call

    for name in CALLS:
        setattr(os, name, wrap(name))
    try:
        yield made
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def run_and_kill(work: Callable[[], None], k: int, *, before: bool) -> bool:
    """Run `work` in a forked child that kills itself with SIGKILL at step k; False when it got to its end."""
    pid = os.fork()
    if pid == 0:
        try:
            with at_step(k, lambda: os.kill(os.getpid(), signal.SIGKILL), before=before):
                work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the work itself failed"
    return False
