"""The part of the worker that holds the model and decides where work on it runs: in the loop, or in a thread beside it.

What is asked of the model is in `texts` (prompts and tokens), `vectors` (embeddings, scores) and `worker` (loads, turns).
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar, TypeVarTuple

import trio

from olm.actors.runtime import Actor
from olm.chat.types import Prompt
from olm.errors import LoadFailed, TemplateError
from olm.native.engine import Event
from olm.native.guard import HereTemplate, TemplateStuck, ThreadTemplate, confined
from olm.native.loaded import LoadedModel, portable_errors
from olm.native.prompting import Template, prompt_size_bytes, runs_go_template

__all__ = ["ModelHolder"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_INLINE_BYTES: Final = 4096
"""Prompts up to this size are rendered and tokenized in the loop (under 2 ms); a thread costs 0.1 ms more."""

_LAST_WORDS_S: Final = 0.5
"""How long a worker with a stuck template still lives, so that the error of whoever met it gets out."""


class ModelHolder(Actor):
    """Has a model once it is loaded, and a few threads for what takes long."""

    def __init__(self) -> None:
        self._loaded: LoadedModel | None = None
        self._requests: dict[int, Callable[[Event], None]] = {}
        """The engine's requests that run, and who takes their events."""
        self._is_quick_template = False
        self._is_stuck = False
        # The model's functions may run in any thread; few at a time leave the cores to the engine.
        self._limiter = trio.CapacityLimiter(2)

    def _model(self) -> LoadedModel:
        if self._loaded is None:
            raise LoadFailed("this worker holds no model")
        return self._loaded

    def _template(self, prompt: Prompt) -> tuple[Template, int]:
        """Choose where a prompt is rendered: what is quick in the loop, the rest in a thread.

        Returns:
            The way to render it, and the size to give to `_work`, which runs it there.
        """
        loaded, size_bytes = self._model(), prompt_size_bytes(prompt)
        # A Go template may be the request's own, and how long it takes is not known before.
        is_quick = self._is_quick_template and not runs_go_template(prompt)
        if is_quick and size_bytes <= _INLINE_BYTES:
            return HereTemplate(loaded), size_bytes
        return ThreadTemplate(loaded), _INLINE_BYTES + 1

    async def _work(self, size_bytes: int, function: Callable[[], T]) -> T:
        """Run something of the model's: here when it is small, in a thread when it would hold up the loop."""
        with portable_errors(), self._ends_when_stuck(), confined():
            if size_bytes > _INLINE_BYTES:
                return await self._in_thread(function)
            await trio.lowlevel.checkpoint()
            return function()

    @contextmanager
    def _ends_when_stuck(self) -> Iterator[None]:
        """Let the process end soon after a template did not: nothing else stops its thread."""
        try:
            yield
        except TemplateStuck as exc:
            if not self._is_stuck:
                self._is_stuck = True
                threading.Timer(_LAST_WORDS_S, _end_process, [exc.message]).start()
            raise TemplateError(exc.message) from exc

    async def _in_thread(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        return await trio.to_thread.run_sync(function, *args, limiter=self._limiter)


def _end_process(why: str) -> None:
    print(f"worker ends: {why}", file=sys.stderr, flush=True)
    os._exit(os.EX_SOFTWARE)
