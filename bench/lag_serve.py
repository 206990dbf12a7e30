"""`olm serve` with a clock in its event loop, which notes every ten milliseconds how late it was woken.

    python bench/lag_serve.py FILE serve

Lateness is what every other task of the loop meets, too: somebody's step that takes long, the interpreter's lock held by a
thread, a core that is busy with something else. When the daemon has ended, FILE has a line for each tick: the monotonic
clock in seconds, and how late it was in milliseconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import trio

__all__ = ["main"]

T = TypeVar("T")

_TICK_S: Final = 0.01
_run = trio.run


def main() -> None:
    """Run the rest of the command line as `olm`, with the clock."""
    file, *rest = sys.argv[1:]
    ticks: list[str] = []

    async def tick() -> None:
        while True:
            due_s = trio.current_time() + _TICK_S
            await trio.sleep_until(due_s)
            late_s = trio.current_time() - due_s
            # Trio's clock has an offset of its own; the tick is stamped with the one that other processes share.
            ticks.append(f"{time.monotonic():.4f} {late_s * 1e3:.3f}")

    async def with_clock(main: Callable[..., Awaitable[T]], *args: object) -> T:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            result = await main(*args)
            nursery.cancel_scope.cancel()
        return result

    def run(main: Callable[..., Awaitable[T]], *args: object) -> T:
        return _run(with_clock, main, *args)

    trio.run = run  # type: ignore[assignment]  # the daemon uses no other argument of it
    sys.argv[1:] = rest
    from olm.cli.main import main as olm

    try:
        olm()
    finally:
        Path(file).write_text("\n".join(ticks))


if __name__ == "__main__":
    main()
