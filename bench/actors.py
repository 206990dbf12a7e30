"""The actor runtime beside pykka and bare trio memory channels: time per operation, and memory per idle actor.

    python bench/actors.py [--repeat 5] [--json FILE]

Each figure is the median of `--repeat` runs, with the best one beside it, which a busy machine disturbs least. The systems are taken
in turn, so that a busy moment hits all of them. Figures are of the machine at hand; only ratios travel.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import msgspec
import trio

from olm.actors.runtime import (
    Actor,
    ActorStopped,
    ChildSpec,
    Message,
    RestartPolicy,
    SpareProcess,
    StreamMessage,
    StreamSink,
    handles,
    open_supervisor,
    process_actor,
    streams,
)

N_TELLS = 256 * 800
N_ASKS = 5_000
N_SPAWNS = 2_000
N_CRASHES = 300
N_ITEMS = 20_000
N_IDLE = 10_000
N_PROCESS_ASKS = 3_000
POLICY = RestartPolicy(max_restarts=10**9, backoff_s=0.0)


class Ping(Message[int], frozen=True):
    number: int


class Crash(Message[None], frozen=True):
    pass


class Items(StreamMessage[int], frozen=True):
    count: int


class Batch(StreamMessage[list[int]], frozen=True):
    count: int


class Config(msgspec.Struct):
    pass


class Echo(Actor):
    """What is measured: a handler that does nothing."""

    mailbox_size = 1024

    def __init__(self, config: Config | None = None) -> None:
        self.n_handled = 0

    @handles(Ping)
    def on_ping(self, msg: Ping) -> int:
        self.n_handled += 1
        return msg.number

    @handles(Crash)
    def on_crash(self, msg: Crash) -> None:
        raise ValueError("on purpose")

    @streams(Items)
    async def on_items(self, msg: Items, out: StreamSink[int]) -> None:
        for number in range(msg.count):
            await out.send(number)

    @streams(Batch)
    async def on_batch(self, msg: Batch, out: StreamSink[list[int]]) -> None:
        for _ in range(msg.count // 16):
            await out.send([1] * 16)


@attrs.frozen
class Figure:
    """One line of the table."""

    what: str
    system: str
    unit: str
    median: float
    best: float
    gate: str = ""


# -- olm ---------------------------------------------------------------------------------------------------------------------


async def olm_tell() -> float:
    """Messages a second, from the first `tell` to the last handler."""
    async with open_supervisor() as root:
        address = await root.start_child(ChildSpec("echo", Echo))
        message = Ping(1)
        start_s = time.perf_counter()
        # As many a tick as the actor handles before it lets others run.
        for _ in range(N_TELLS // 256):
            for _ in range(256):
                address.tell(message)
            await trio.lowlevel.checkpoint()
        await address.ask(message)
        return N_TELLS / (time.perf_counter() - start_s)


async def olm_ask() -> float:
    """Microseconds."""
    async with open_supervisor() as root:
        address = await root.start_child(ChildSpec("echo", Echo))
        message = Ping(1)
        start_s = time.perf_counter()
        for _ in range(N_ASKS):
            await address.ask(message)
        return (time.perf_counter() - start_s) / N_ASKS * 1e6


async def olm_stream() -> float:
    """Items a second, one at a time."""
    async with open_supervisor() as root:
        address = await root.start_child(ChildSpec("echo", Echo))
        start_s = time.perf_counter()
        async with address.stream(Items(N_ITEMS)) as items:
            async for _ in items:
                pass
        return N_ITEMS / (time.perf_counter() - start_s)


async def olm_spawn() -> float:
    """Microseconds for a supervised actor, from the call to its return with the actor up."""
    async with open_supervisor() as root:
        specs = [ChildSpec(f"echo{number}", Echo, "temporary") for number in range(N_SPAWNS)]
        start_s = time.perf_counter()
        for spec in specs:
            await root.start_child(spec)
        return (time.perf_counter() - start_s) / N_SPAWNS * 1e6


async def olm_crash() -> float:
    """Microseconds from asking for a crash to the first answer of the next life."""
    async with open_supervisor(policy=POLICY) as root:
        address = await root.start_child(ChildSpec("echo", Echo))
        start_s = time.perf_counter()
        for _ in range(N_CRASHES):
            try:
                await address.ask(Crash())
            except ActorStopped:
                await address.ask(Ping(1), wait_for_restart=True)
        return (time.perf_counter() - start_s) / N_CRASHES * 1e6


async def olm_idle_bytes() -> float:
    """Bytes of memory of an idle supervised actor."""
    async with open_supervisor() as root:
        gc.collect()
        before = rss_bytes()
        for number in range(N_IDLE):
            await root.start_child(ChildSpec(f"echo{number}", Echo, "temporary"))
        gc.collect()
        return (rss_bytes() - before) / N_IDLE


async def olm_process_ask() -> float:
    """Microseconds."""
    async with open_supervisor() as root:
        address = await root.start_child(ChildSpec("echo", process_actor(__name__ + ":Echo")))
        message = Ping(1)
        start_s = time.perf_counter()
        for _ in range(N_PROCESS_ASKS):
            await address.ask(message)
        return (time.perf_counter() - start_s) / N_PROCESS_ASKS * 1e6


async def olm_process_stream() -> float:
    """Items a second, one at a time."""
    async with open_supervisor() as root:
        address = await root.start_child(ChildSpec("echo", process_actor(__name__ + ":Echo")))
        start_s = time.perf_counter()
        async with address.stream(Items(N_ITEMS)) as items:
            async for _ in items:
                pass
        return N_ITEMS / (time.perf_counter() - start_s)


async def olm_process_batches() -> float:
    """Items a second, sixteen to a message."""
    async with open_supervisor() as root:
        address = await root.start_child(ChildSpec("echo", process_actor(__name__ + ":Echo")))
        start_s = time.perf_counter()
        async with address.stream(Batch(N_ITEMS * 4)) as items:
            async for _ in items:
                pass
        return N_ITEMS * 4 / (time.perf_counter() - start_s)


async def olm_process_spawn() -> float:
    """Milliseconds from nothing to an actor that is up."""
    async with open_supervisor() as root:
        start_s = time.perf_counter()
        await root.start_child(ChildSpec("echo", process_actor(__name__ + ":Echo")))
        return (time.perf_counter() - start_s) * 1e3


async def olm_spare_spawn() -> float:
    """Milliseconds with a spare process ready."""
    pool = SpareProcess(__name__)
    async with open_supervisor() as root:
        spare = await root.start_child(ChildSpec("spare", lambda: pool))
        while not pool.is_ready:
            await trio.sleep(0.01)
        start_s = time.perf_counter()
        await root.start_child(ChildSpec("echo", process_actor(__name__ + ":Echo", spare=spare)))
        return (time.perf_counter() - start_s) * 1e3


def bare_python() -> float:
    """Milliseconds that Python takes to start and import trio, the floor of a cold start."""
    start_s = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", "import trio, msgspec"], check=True)
    return (time.perf_counter() - start_s) * 1e3


# -- bare trio ---------------------------------------------------------------------------------------------------------------


async def trio_tell() -> float:
    send, receive = trio.open_memory_channel[int](1024)
    done = trio.Event()

    async def loop() -> None:
        async for number in receive:
            if number < 0:
                done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop)
        start_s = time.perf_counter()
        for _ in range(N_TELLS // 256):
            for _ in range(256):
                try:
                    send.send_nowait(1)
                except trio.WouldBlock:
                    await send.send(1)
            await trio.lowlevel.checkpoint()
        await send.send(-1)
        await done.wait()
        spent_s = time.perf_counter() - start_s
        nursery.cancel_scope.cancel()
    return N_TELLS / spent_s


async def trio_ask() -> float:
    send, receive = trio.open_memory_channel[tuple[int, trio.MemorySendChannel[int]]](64)

    async def loop() -> None:
        async for number, reply in receive:
            reply.send_nowait(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop)
        start_s = time.perf_counter()
        for _ in range(N_ASKS):
            reply_send, reply_receive = trio.open_memory_channel[int](1)
            await send.send((1, reply_send))
            await reply_receive.receive()
        spent_s = time.perf_counter() - start_s
        nursery.cancel_scope.cancel()
    return spent_s / N_ASKS * 1e6


async def trio_stream() -> float:
    send, receive = trio.open_memory_channel[int](64)

    async def produce() -> None:
        with send:
            for number in range(N_ITEMS):
                await send.send(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        start_s = time.perf_counter()
        async for _ in receive:
            pass
        return N_ITEMS / (time.perf_counter() - start_s)


async def trio_spawn() -> float:
    async def loop(receive: trio.MemoryReceiveChannel[int]) -> None:
        async for _ in receive:
            pass

    async with trio.open_nursery() as nursery:
        start_s = time.perf_counter()
        for _ in range(N_SPAWNS):
            nursery.start_soon(loop, trio.open_memory_channel[int](64)[1])
            await trio.lowlevel.checkpoint()
        spent_s = time.perf_counter() - start_s
        nursery.cancel_scope.cancel()
    return spent_s / N_SPAWNS * 1e6


async def trio_idle_bytes() -> float:
    channels: list[object] = []

    async def loop(receive: trio.MemoryReceiveChannel[int]) -> None:
        async for _ in receive:
            pass

    async with trio.open_nursery() as nursery:
        gc.collect()
        before = rss_bytes()
        for _ in range(N_IDLE):
            send, receive = trio.open_memory_channel[int](64)
            channels.append(send)
            nursery.start_soon(loop, receive)
        await trio.sleep(0.1)
        gc.collect()
        spent = rss_bytes() - before
        nursery.cancel_scope.cancel()
    return spent / N_IDLE


# -- pykka -------------------------------------------------------------------------------------------------------------------


def pykka_measures() -> dict[str, Callable[[], float]]:
    """Its operations, or none where it is not installed."""
    try:
        import pykka
    except ImportError:
        return {}

    class PykkaEcho(pykka.ThreadingActor):
        def on_receive(self, message: object) -> object:
            return message

    def tell() -> float:
        ref = PykkaEcho.start()
        start_s = time.perf_counter()
        for _ in range(N_TELLS // 10):
            ref.tell(1)
        ref.ask(1)
        spent_s = time.perf_counter() - start_s
        ref.stop()
        return N_TELLS // 10 / spent_s

    def ask() -> float:
        ref = PykkaEcho.start()
        start_s = time.perf_counter()
        for _ in range(N_ASKS):
            ref.ask(1)
        spent_s = time.perf_counter() - start_s
        ref.stop()
        return spent_s / N_ASKS * 1e6

    def spawn() -> float:
        start_s = time.perf_counter()
        refs = [PykkaEcho.start() for _ in range(200)]
        spent_s = time.perf_counter() - start_s
        for ref in refs:
            ref.stop()
        return spent_s / 200 * 1e6

    def idle_bytes() -> float:
        gc.collect()
        before = rss_bytes()
        refs = [PykkaEcho.start() for _ in range(500)]
        gc.collect()
        spent = rss_bytes() - before
        for ref in refs:
            ref.stop()
        return spent / 500

    return {"tell": tell, "ask": ask, "spawn": spawn, "idle": idle_bytes}


# -- the table ---------------------------------------------------------------------------------------------------------------


def rss_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def measures() -> list[tuple[str, str, str, str, Callable[[], float]]]:
    """What, which system, unit, olm's gate, and how."""

    def run(function: Callable[..., object]) -> Callable[[], float]:
        return lambda: trio.run(function)  # type: ignore[arg-type]

    pykka = pykka_measures()
    table: list[tuple[str, str, str, str, Callable[[], float]]] = [
        ("tell", "olm", "msg/s", ">= 1 M", run(olm_tell)),
        ("tell", "memory channel", "msg/s", "", run(trio_tell)),
        ("ask", "olm", "us", "<= 20", run(olm_ask)),
        ("ask", "memory channel", "us", "", run(trio_ask)),
        ("stream", "olm", "items/s", "", run(olm_stream)),
        ("stream", "memory channel", "items/s", "", run(trio_stream)),
        ("spawn", "olm, supervised", "us", "<= 40", run(olm_spawn)),
        ("spawn", "memory channel + task", "us", "", run(trio_spawn)),
        ("idle", "olm, supervised", "B", "<= 5120", run(olm_idle_bytes)),
        ("idle", "memory channel + task", "B", "", run(trio_idle_bytes)),
        ("crash to answer", "olm", "us", "<= 300", run(olm_crash)),
        ("process ask", "olm", "us", "<= 150", run(olm_process_ask)),
        ("process stream", "olm", "items/s", "", run(olm_process_stream)),
        ("process stream, by 16", "olm", "items/s", "", run(olm_process_batches)),
        ("process spawn", "olm, cold", "ms", "<= 100", run(olm_process_spawn)),
        ("process spawn", "python -c 'import trio'", "ms", "", bare_python),
        ("process spawn", "olm, spare", "ms", "", run(olm_spare_spawn)),
    ]
    units = {"tell": "msg/s", "ask": "us", "spawn": "us", "idle": "B"}
    table += [(what, "pykka", units[what], "", function) for what, function in pykka.items()]
    order = list(dict.fromkeys(row[0] for row in table))
    return sorted(table, key=lambda row: order.index(row[0]))


def measure(repeat: int) -> list[Figure]:
    """Run everything `repeat` times in turn and take medians."""
    rows = measures()
    values: list[list[float]] = [[] for _ in rows]
    for number in range(repeat):
        print(f"round {number + 1} of {repeat}", file=sys.stderr)
        for row, found in zip(rows, values, strict=True):
            found.append(row[4]())
    return [
        Figure(
            row[0],
            row[1],
            row[2],
            statistics.median(found),
            max(found) if row[2].endswith("/s") else min(found),
            row[3],
        )
        for row, found in zip(rows, values, strict=True)
    ]


def _show(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    import logging

    logging.disable(logging.ERROR)  # a crash on purpose is logged with its traceback
    figures = measure(options.repeat)
    print("| what | system | unit | median | best | gate |")
    print("|---|---|---|---|---|---|")
    for figure in figures:
        numbers = f"{_show(figure.median)} | {_show(figure.best)}"
        print(f"| {figure.what} | {figure.system} | {figure.unit} | {numbers} | {figure.gate} |")
    if options.json:
        options.json.write_text(json.dumps([attrs.asdict(figure) for figure in figures], indent=1))


if __name__ == "__main__":
    # The children import this module by name, so it must have one.
    sys.path.insert(0, str(Path(__file__).parent))
    import actors

    actors.main()
