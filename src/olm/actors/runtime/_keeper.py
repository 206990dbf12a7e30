"""How a supervisor keeps its children: start, restart by strategy, stop in order. One keeper serves one life of a supervisor.

What a supervisor shows to its users is `_supervisor`.
"""

from __future__ import annotations

import logging
import random

import trio

from olm.actors.runtime._exits import (
    Crashed,
    Exit,
    Killed,
    Shutdown,
    TooManyRestarts,
    describe_exit,
    stopped_error,
)
from olm.actors.runtime._policy import Backoff, Intensity, RestartPolicy, Strategy, wants_restart
from olm.actors.runtime._signal import Signal
from olm.actors.runtime._units import Child

__all__ = ["Keeper"]

_log = logging.getLogger("olm.actors")


class Keeper:
    """The children of a supervisor and the nursery they live in.

    `end` fires when the supervisor is to end: by request, or here when the children crash too often.
    """

    def __init__(
        self,
        name: str,
        strategy: Strategy,
        policy: RestartPolicy,
        rng: random.Random,
        nursery: trio.Nursery,
    ) -> None:
        self.end: Signal[Exit] = Signal()
        self.children: dict[str, Child] = {}
        self.is_stopping = False
        self._name = name
        self._strategy = strategy
        self._policy = policy
        self._rng = rng
        self._nursery = nursery
        self._intensity = Intensity(policy)
        self._group_backoff = Backoff(policy, rng)
        self._group_pause: trio.CancelScope | None = None
        # The order of the first child that a group restart has to take along; None when there is nothing to do.
        self._affected_from: int | None = None
        self._is_regrouping = False

    # -- starting ----------------------------------------------------------------------------------------------------

    async def start_first(self, child: Child) -> None:
        """Start a child that is new here. A failing start raises here and is not retried; the child is dropped."""
        self.children[child.name] = child
        self._spawn(child)
        try:
            exit_ = await child.ready.wait()
        except BaseException:
            child.halting = True
            child.unit.cancel("its start was cancelled")
            with trio.CancelScope(
                shield=True
            ):  # bounded: the child was cancelled, its stop() has a bound
                await child.gone.wait()
            self.drop(child)
            raise
        if exit_ is None:
            return
        self.drop(child)
        cause = exit_.exc if isinstance(exit_, Crashed | Killed) else None
        raise cause or stopped_error(f"{self._name}/{child.name}", exit_)

    def drop(self, child: Child) -> None:
        """Forget a child for good."""
        if self.children.get(child.name) is child:
            del self.children[child.name]
        child.unit.retire()

    def _spawn(self, child: Child) -> None:
        self._nursery.start_soon(self._keep, child, name=f"{self._name}/{child.name}")

    async def _keep(self, child: Child) -> None:
        """Be the task of a child: live, and live again while that is this task's to decide."""
        exit_: Exit = Shutdown("it was stopped before it began")
        while not child.halting:
            exit_ = await child.unit.run(child.note_ready)
            child.exit_text = describe_exit(exit_)
            delay_s = self._judge(child, exit_)
            if delay_s is None:
                break
            child.n_restarts += 1
            if delay_s > 0:
                with trio.CancelScope() as child.pause:
                    await trio.sleep(delay_s)
                child.pause = None
        child.ready.fire(exit_)
        child.gone.fire(exit_)

    # -- restarting --------------------------------------------------------------------------------------------------

    def _judge(self, child: Child, exit_: Exit) -> float | None:
        """Decide about a child that ended. Returns the seconds to wait before this task starts it again, or None."""
        if child.halting or self.is_stopping or child.is_first:
            return None
        name = f"{self._name}/{child.name}"
        cause = exit_.exc if isinstance(exit_, Crashed | Killed) else None
        if not wants_restart(child.restart, exit_):
            if cause is not None:
                _log.error("%s %s; it is not restarted", name, child.exit_text, exc_info=cause)
            self.drop(child)
            return None
        now_s = trio.current_time()
        if not self._intensity.record(now_s):
            policy = self._policy
            error = TooManyRestarts(
                f"supervisor {self._name}: child {child.name} {child.exit_text}; "
                f"that was more than {policy.max_restarts} in {policy.period_s:g} s",
                actor=name,
            )
            error.__cause__ = cause
            self.end.fire(Crashed(error))
            return None
        if self._strategy != "one_for_one":
            _log.warning("%s %s; restarting its group", name, child.exit_text, exc_info=cause)
            self._affect(child)
            return None
        delay_s = child.backoff(lambda: Backoff(self._policy, self._rng)).next_s(now_s)
        _log.warning("%s %s; restarting in %.3g s", name, child.exit_text, delay_s, exc_info=cause)
        return delay_s

    def _affect(self, child: Child) -> None:
        """Have the group of a crashed child restarted; a restart in progress takes it along."""
        order = 0 if self._strategy == "one_for_all" else child.order
        before = self._affected_from
        self._affected_from = order if before is None else min(before, order)
        if self._group_pause is not None:
            self._group_pause.cancel("another child crashed")
        if not self._is_regrouping:
            self._is_regrouping = True
            self._nursery.start_soon(self._regroup, name=f"{self._name} group restart")

    async def _regroup(self) -> None:
        """Stop the affected children in reverse order, each until it is gone; then start them in order."""
        while self._affected_from is not None and not self.is_stopping:
            first, self._affected_from = self._affected_from, None
            victims = [child for child in self.children.values() if child.order >= first]
            for child in reversed(victims):
                await self.halt(child, "restarting, because a sibling crashed")
                if child.restart == "temporary":
                    self.drop(child)
            delay_s = self._group_backoff.next_s(trio.current_time())
            if delay_s > 0:
                with trio.CancelScope() as self._group_pause:
                    await trio.sleep(delay_s)
                self._group_pause = None
            # Starts nothing if a child before these crashed during the wait; the loop then begins again with it.
            await self._start_again(victims)
        self._is_regrouping = False

    async def _start_again(self, victims: list[Child]) -> None:
        for child in victims:
            if self.is_stopping or self._affected_from is not None:
                return  # one of them failed again and is noted; those not yet started come after it
            if self.children.get(child.name) is child:
                child.renew()
                child.n_restarts += 1
                self._spawn(child)
                await child.ready.wait()

    # -- stopping ----------------------------------------------------------------------------------------------------

    async def halt(self, child: Child, reason: str) -> None:
        """Stop a child and wait until it is gone: ask, and cancel if that takes too long. It may end meanwhile."""
        if not child.halting:
            child.halting = True
            if child.pause is not None:
                child.pause.cancel(reason)
            if not child.gone.is_set:
                child.unit.request_stop(reason)
        with trio.move_on_after(child.unit.stop_within_s) as scope:
            await child.gone.wait()
        if scope.cancelled_caught:
            child.unit.cancel(reason)
            await child.gone.wait()

    def begin_halt(self, child: Child, reason: str) -> None:
        """Stop a child and drop it, in a task of its own: a caller that leaves must not interrupt the ladder."""
        self._nursery.start_soon(
            self._halt_and_drop, child, reason, name=f"{self._name}/{child.name} stop"
        )

    async def _halt_and_drop(self, child: Child, reason: str) -> None:
        await self.halt(child, reason)
        self.drop(child)

    async def stop_all(self, reason: str) -> None:
        """Stop the children, the last one first. Temporary ones of a one_for_one supervisor are asked all at once."""
        self.is_stopping = True
        if self._group_pause is not None:
            self._group_pause.cancel(reason)
        children = list(self.children.values())
        if self._strategy == "one_for_one":
            for child in children:
                if child.restart == "temporary":
                    child.unit.request_stop(reason)
        for child in reversed(children):
            await self.halt(child, reason)
