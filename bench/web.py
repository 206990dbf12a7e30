#!/usr/bin/env python3
"""What HTTP itself costs: bare requests, streamed tokens, idle connections, many streams at once.

    python bench/web.py             # about two minutes
    python bench/web.py --quick     # half a minute
    python bench/web.py --publish   # also put the table into docs/performance.md

Bare requests are compared with the least application that hypercorn can serve (bare_app.py) and with llama-server's
`/health`, all in the same run, one after the other and again. A streamed token is counted in CPU time of the daemon's
process alone; computing is the worker's, which is another process. (Not `http.py`: scripts here import each other by
plain names, and that one is the standard library's.)

Ends with a non-zero status when a limit is exceeded, so that it can be a gate.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import selectors
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import attrs
from load import LoadError, LoadSpec, run_load
from machine import CpuWindow, describe_machine, own_cpu_seconds, rss_bytes, wait_until_idle
from report import markdown_table, pairwise_ratio, publish
from servers import (
    REPO,
    BenchError,
    Server,
    ServerPlan,
    cache_directory,
    end_on_sigterm,
    open_bare,
    open_llama_server,
    open_olm,
    peer_directory,
)

__all__ = ["Effort", "Figure", "Requests", "ask_bare", "main", "measure"]

_TINY: Final = REPO / "src" / "olm" / "data" / "tiny" / "tiny-q8_0.gguf"
_N_CLIENTS: Final = 8
"""Connections that ask for bare requests at once: enough that the server never waits for its client."""
_CLOSES: Final = b"\r\nConnection: close\r\n"
_N_IDLE: Final = 1000
_N_CROWD: Final = 200

# Every server has one answer in flight for each connection, so none is measured by its pipelining.
_PLAN: Final = ServerPlan(n_parallel=16, n_threads=1, n_ctx=2048)


@attrs.frozen
class Figure:
    """One row: what olm needs, what the others need, and the limit of ours with its sense; None: nothing is promised."""

    name: str
    ours: str
    others: str = ""
    limit: str = ""
    is_kept: bool = True


@attrs.frozen
class Effort:
    """How much is measured: rounds of bare requests, seconds of each, tokens of a stream, rounds of streams."""

    n_rounds: int
    round_s: float
    n_tokens: int
    n_stream_rounds: int


@attrs.frozen
class Requests:
    """One round of bare requests: how many a second, and CPU microseconds of the server for each."""

    per_s: float
    cpu_us: float


def _address(server: Server) -> tuple[str, int]:
    parts = urlsplit(server.url)
    return parts.hostname or "127.0.0.1", parts.port or 80


def _get(server: Server, path: str) -> bytes:
    host, port = _address(server)
    return f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()


def _is_whole(data: bytes) -> bool:
    """Whether this is a whole answer with a content-length; raises BenchError unless its status is 200."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise BenchError(f"the server answered {data[:300]!r}")
    _, _, length = head.lower().partition(b"\r\ncontent-length:")
    return bool(end) and len(body) == int(length.split(b"\r\n", 1)[0])


def _receive_whole(connection: socket.socket) -> bytes:
    """One whole answer; raises BenchError when the server breaks off."""
    data = connection.recv(1 << 16)
    while not _is_whole(data):
        piece = connection.recv(1 << 16)
        if not piece:
            raise BenchError(f"the server broke off after {data[:300]!r}")
        data += piece
    return data


@contextlib.contextmanager
def _connections(server: Server, request: bytes, n: int) -> Iterator[list[socket.socket]]:
    """Open `n` connections that have each had one answer and stay open."""
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(n):
            connection = stack.enter_context(socket.create_connection(_address(server), 10))
            connection.sendall(request)
            _receive_whole(connection)
            opened.append(connection)
        yield opened


def ask_bare(server: Server, path: str, seconds: float) -> Requests:
    """Ask for `path` on a few connections, each again as soon as it has its answer.

    A connection that the server closes, as llama-server does after 100 requests, is opened again. Raises BenchError when
    an answer is not a good one.
    """
    request = _get(server, path)
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as ready:

        def ask_again(connection: socket.socket | None = None) -> None:
            if connection is None:
                connection = stack.enter_context(socket.create_connection(_address(server), 10))
                ready.register(connection, selectors.EVENT_READ)
            connection.sendall(request)

        for _ in range(_N_CLIENTS):
            ask_again()
        n_done, cpu_before, started = 0, own_cpu_seconds(server.pid), time.perf_counter()
        while time.perf_counter() - started < seconds:
            for key, _ in ready.select(5):
                connection = key.fileobj
                assert isinstance(connection, socket.socket), "only sockets are registered"
                answer = _receive_whole(connection)
                n_done += 1
                if _CLOSES in answer:
                    ready.unregister(connection)
                    connection.close()
                    ask_again()
                else:
                    ask_again(connection)
        wall_s = time.perf_counter() - started
        cpu_s = own_cpu_seconds(server.pid) - cpu_before
    return Requests(n_done / wall_s, cpu_s / n_done * 1e6)


Opener = Callable[[], AbstractContextManager[Server]]


def _bare_figures(openers: dict[str, tuple[Opener, str]], effort: Effort) -> list[Figure]:
    """Requests a second of all servers, in turn; the first of the dict is ours, the second what it is held against."""
    rounds: dict[str, list[Requests]] = {name: [] for name in openers}
    with contextlib.ExitStack() as stack:
        running = {name: stack.enter_context(opener()) for name, (opener, _) in openers.items()}
        for name, (_, path) in openers.items():
            wait_until_idle(running[name].pid)
            ask_bare(running[name], path, 0.5)
        for _ in range(effort.n_rounds):
            for name, (_, path) in openers.items():
                rounds[name].append(ask_bare(running[name], path, effort.round_s))
    ours, bare, *_ = rounds.values()
    ratio = pairwise_ratio([r.per_s for r in ours], [r.per_s for r in bare])
    return [
        Figure(
            "bare requests/s",
            *_row(rounds, lambda r: r.per_s),
        ),
        Figure(
            "CPU of a bare request, µs",
            *_row(rounds, lambda r: r.cpu_us),
        ),
        Figure(
            "bare requests, olm : hypercorn on trio",
            str(ratio),
            "",
            "≥ 0.80",
            ratio.median >= 0.8,
        ),
    ]


def _row(rounds: dict[str, list[Requests]], value: Callable[[Requests], float]) -> tuple[str, str]:
    """The median of ours, and those of the others with their names."""
    medians = {name: statistics.median(map(value, those)) for name, those in rounds.items()}
    (_, first), *others = medians.items()
    return f"{first:.0f}", ", ".join(f"{name} {median:.0f}" for name, median in others)


def _token_us(server: Server, n_streams: int, effort: Effort, seed: int) -> float:
    """CPU of the server's own process for a token, in µs; the median of the rounds."""
    spec = LoadSpec(
        url=server.url, api=server.api, n_streams=n_streams, n_tokens=effort.n_tokens, seed=seed
    )
    found: list[float] = []
    for number in range(effort.n_stream_rounds):
        before = own_cpu_seconds(server.pid)
        result = run_load(attrs.evolve(spec, seed=seed + number))
        found.append((own_cpu_seconds(server.pid) - before) / result.n_tokens * 1e6)
    return statistics.median(found)


def _stream_figures(server: Server, effort: Effort) -> list[Figure]:
    _token_us(server, 16, attrs.evolve(effort, n_tokens=32, n_stream_rounds=1), 0)
    wait_until_idle(server.pid)
    one = _token_us(server, 1, effort, 100)
    many = _token_us(server, 16, effort, 200)
    name = "daemon's CPU for a streamed token, µs"
    return [
        Figure(f"{name}, 1 stream", f"{one:.1f}", "", "< 60", one < 60),
        Figure(f"{name}, 16 streams", f"{many:.1f}", "", "less than with 1", many < one),
    ]


def _idle_figure(server: Server) -> Figure:
    request = _get(server, "/api/version")
    before = rss_bytes(server.pid)
    with _connections(server, request, _N_IDLE):
        more_mb = (rss_bytes(server.pid) - before) / 1e6
    text = f"{more_mb:.1f} ({more_mb / _N_IDLE * 1e3:.0f} kB each)"
    return Figure(f"{_N_IDLE} idle connections, MB", text, "", "< 60", more_mb < 60)


def _crowd(server: Server) -> str:
    """Run many streams at once; raises LoadError when one of them fails."""
    result = run_load(LoadSpec(url=server.url, api=server.api, n_streams=_N_CROWD, n_tokens=32))
    if result.n_tokens != _N_CROWD * 32:
        raise BenchError(f"{result.n_tokens} tokens, wanted {_N_CROWD * 32}")
    return f"{result.tokens_per_s:.0f}"


def _crowd_figure(ours: Server, theirs: Server | None) -> Figure:
    other = ""
    if theirs is not None:
        try:
            other = f"llama-server {_crowd(theirs)}"
        except (LoadError, BenchError, OSError) as exc:
            other = f"llama-server fails: {str(exc)[:60]}"
    name = f"{_N_CROWD} streams at once, none failed, tokens/s"
    return Figure(name, _crowd(ours), other)


def measure(effort: Effort, peer: Path | None) -> list[Figure]:
    """Measure everything, beside llama-server when `peer` is its folder.

    Raises:
        BenchError: a server does not start, or answers otherwise than it should.
        LoadError: a stream of ours failed.
    """
    with tempfile.TemporaryDirectory(prefix="web-", dir=cache_directory()) as directory:
        ours = functools.partial(open_olm, Path(directory), _PLAN)
        openers: dict[str, tuple[Opener, str]] = {
            "olm": (ours, "/api/version"),
            "hypercorn on trio": (functools.partial(open_bare, "trio"), "/"),
            "hypercorn on asyncio": (functools.partial(open_bare, "asyncio"), "/"),
        }
        theirs = functools.partial(open_llama_server, peer, _TINY, _PLAN) if peer else None
        if theirs:
            openers["llama-server"] = (theirs, "/health")
        figures = _bare_figures(openers, effort)
        with ours() as server:
            wait_until_idle(server.pid)
            figures.append(_idle_figure(server))
            figures += _stream_figures(server, effort)
            with theirs() if theirs else contextlib.nullcontext() as other:
                figures.append(_crowd_figure(server, other))
    return figures


def report_text(figures: Sequence[Figure], foreign_frac: float) -> str:
    """Return the markdown that the documentation carries: the machine, then the table."""
    rows = [[f.name, f.ours, f.others, f.limit] for f in figures]
    table = markdown_table(["figure", "olm", "others", "limit"], rows)
    return (
        f"Machine: {describe_machine()}; other programs took {foreign_frac:.0%} of it.\n\n{table}"
    )


def main() -> None:
    """Run the command line described at the top of this file."""
    parser = argparse.ArgumentParser(description="What HTTP itself costs.")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--no-peer", action="store_true", help="without llama-server")
    parser.add_argument("--publish", action="store_true", help="write to docs/performance.md")
    args = parser.parse_args()
    end_on_sigterm()
    effort = Effort(3, 1.5, 300, 3) if args.quick else Effort(7, 3.0, 1000, 5)
    window, started = CpuWindow(None), time.perf_counter()
    try:
        figures = measure(effort, None if args.no_peer else peer_directory())
    except (BenchError, LoadError, OSError) as exc:
        sys.exit(f"web: {exc}")
    text = report_text(figures, window.foreign_frac(time.perf_counter() - started))
    print(text)
    if args.publish:
        publish("http", text)
    broken = [figure.name for figure in figures if not figure.is_kept]
    if broken:
        sys.exit(f"web: over the limit: {', '.join(broken)}")


if __name__ == "__main__":
    main()
