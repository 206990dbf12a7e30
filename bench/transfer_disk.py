"""Exports and imports of a daemon beside `cp`, `sha256sum` and `tar | zstd`: models, runs in turn, rows of the table.

For `transfer.py`, which is the command. A daemon of its own is asked over HTTP, as a client does. The files are in the
page cache before each run, and what an earlier run made is gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import attrs
import numpy as np
from machine import rss_bytes, wait_until_idle
from report import pairwise_ratio
from servers import BenchError, Server, open_olm
from web import Figure

from olm.store.manifests import MODEL, Layer, config_layer, encode_manifest
from olm.store.names import Digest

__all__ = [
    "N_BLOBS",
    "Ground",
    "compress_rows",
    "export_rows",
    "file_system",
    "import_rows",
    "open_ground",
    "reflink_rows",
    "run_timed",
]

N_BLOBS: Final = 4
_MODEL: Final = "bench"
_BLOCK_BYTES: Final = 64 << 20
_LEVEL: Final = 3
"""What `olm export --compress` uses."""
_RSS_LIMIT_MB: Final = 150
_LAG_LIMIT_MS: Final = 20


@attrs.frozen
class Watched:
    """What one request of the daemon took: wall seconds, MB over idle at the most, and answers' delays in ms."""

    wall_s: float
    more_mb: float
    delays_ms: Sequence[float]


# -- the models ------------------------------------------------------------------------------------------------------


def write_model(root: Path, size_bytes: int) -> list[Path]:
    """Put a model of four blobs into a store that no daemon has open; returns the blobs."""
    blobs = root / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    layers = [
        _write_blob(blobs, size_bytes // N_BLOBS, number % 2 == 1) for number in range(N_BLOBS)
    ]
    config = b'{"model_format":"gguf"}'
    digest = Digest.of(config)
    (blobs / digest.file_name).write_bytes(config)
    manifest = root / "manifests/registry.ollama.ai/library" / _MODEL / "latest"
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_bytes(encode_manifest(config_layer(digest, len(config)), layers))
    return [blobs / layer.blob.file_name for layer in layers]


def _write_blob(blobs: Path, size: int, is_f16: bool) -> Layer:
    digest, temp = hashlib.sha256(), blobs / "writing"
    numbers = np.random.default_rng(1)
    with temp.open("wb", buffering=0) as file:
        left = size
        while left:
            n_bytes = min(left, _BLOCK_BYTES)
            if is_f16:
                block = numbers.standard_normal(n_bytes // 2 + 1, np.float32).astype(np.float16)
                data = block.tobytes()[:n_bytes]
            else:
                data = os.urandom(n_bytes)
            digest.update(data)
            file.write(data)
            left -= n_bytes
    found = Digest(digest.hexdigest())
    temp.rename(blobs / found.file_name)
    return Layer(MODEL, str(found), size)


# -- asking and watching the daemon ----------------------------------------------------------------------------------


def ask(server: Server, method: str, path: str, body: object) -> None:
    """Run a job of the daemon to its end; raises BenchError with what it said."""
    where = urlsplit(server.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=600)
    with contextlib.closing(connection):
        connection.request(method, path, json.dumps(body))
        answer = connection.getresponse()
        last = answer.read().strip().rpartition(b"\n")[2]
    if answer.status != http.client.OK or b'"error"' in last:
        raise BenchError(f"{method} {path}: {answer.status} {last[:300]!r}")


class _Watch(threading.Thread):
    """Asks for `/api/version` every 10 ms on one connection and looks at the daemon's memory, until it is stopped."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server
        self._done = threading.Event()
        self.peak_bytes = 0
        self.delays_ms: list[float] = []

    def run(self) -> None:
        where = urlsplit(self._server.url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
        with contextlib.closing(connection):
            while not self._done.wait(0.01):
                started = time.perf_counter()
                connection.request("GET", "/api/version")
                connection.getresponse().read()
                self.delays_ms.append((time.perf_counter() - started) * 1e3)
                self.peak_bytes = max(self.peak_bytes, rss_bytes(self._server.pid))

    def stop(self) -> None:
        self._done.set()
        self.join()


def watched(server: Server, method: str, path: str, body: object) -> Watched:
    """Run a job while memory and answers are watched."""
    wait_until_idle(server.pid)
    idle = rss_bytes(server.pid)
    watch = _Watch(server)
    watch.start()
    started = time.perf_counter()
    try:
        ask(server, method, path, body)
        wall_s = time.perf_counter() - started
    finally:
        watch.stop()
    return Watched(wall_s, max(0, watch.peak_bytes - idle) / 1e6, watch.delays_ms)


def run_timed(command: str, *args: str | Path) -> float:
    """Wall seconds of a shell command with `$@`; raises BenchError when it fails."""
    started = time.perf_counter()
    done = subprocess.run(
        ["bash", "-c", f"set -eo pipefail; {command}", "bash", *map(str, args)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"{command}: {done.stderr.decode(errors='replace').strip()}")
    return time.perf_counter() - started


# -- the rows --------------------------------------------------------------------------------------------------------


@attrs.frozen
class Ground:
    """Where it is measured: a scratch folder, the daemon that has the model, one that has nothing, and its blobs."""

    folder: Path
    sender: Server
    receiver: Server
    blobs: Sequence[Path]
    n_rounds: int

    @contextlib.contextmanager
    def clean(self) -> Iterator[Path]:
        """A folder for what a run makes; gone afterwards, with nothing left to be written back."""
        with tempfile.TemporaryDirectory(dir=self.folder) as made:
            yield Path(made)
        os.sync()

    def warm(self) -> None:
        """Have the blobs in the page cache, for olm and its peers alike."""
        for blob in self.blobs:
            run_timed('cat "$1" > /dev/null', blob)


@attrs.frozen
class Pairs:
    """Runs of olm and of one or more peers, in turn."""

    ours: Sequence[Watched]
    peers: Sequence[Sequence[float]]

    def figure(self, name: str, goal: float | None, peer: int = 0) -> Figure:
        """Compare with one of the peers."""
        walls = [run.wall_s for run in self.ours]
        ratio = pairwise_ratio(walls, self.peers[peer])
        seconds = f"{statistics.median(walls):.2f} s : {statistics.median(self.peers[peer]):.2f} s"
        if goal is None:
            return Figure(name, str(ratio), seconds)
        return Figure(name, str(ratio), seconds, f"≤ {goal}", ratio.median <= goal)

    def watch_figures(self, name: str) -> list[Figure]:
        """The most memory of any run, and the 99th percentile of answers' delays, which the loop's lag is part of."""
        most = max(run.more_mb for run in self.ours)
        delays = sorted(delay for run in self.ours for delay in run.delays_ms)
        p99 = delays[int(0.99 * (len(delays) - 1))]
        return [
            Figure(
                f"memory of the daemon during {name} over idle, MB",
                f"{most:.0f}",
                "",
                f"< {_RSS_LIMIT_MB}",
                most < _RSS_LIMIT_MB,
            ),
            Figure(
                f"GET /api/version during {name}, p99 (worst), ms",
                f"{p99:.1f} ({delays[-1]:.0f})",
                "",
                f"< {_LAG_LIMIT_MS}",
                p99 < _LAG_LIMIT_MS,
            ),
        ]


def in_turn(
    ground: Ground, ours: Callable[[Path], Watched], *peers: Callable[[Path], float]
) -> Pairs:
    """Run olm and its peers, each in a clean folder, the order turned round by round."""
    found: list[Watched] = []
    theirs: list[list[float]] = [[] for _ in peers]
    for number in range(ground.n_rounds):
        steps: list[Callable[[], None]] = []

        def run_ours() -> None:
            with ground.clean() as folder:
                found.append(ours(folder))

        steps.append(run_ours)
        for peer, runs in zip(peers, theirs, strict=True):

            def run_peer(peer: Callable[[Path], float] = peer, runs: list[float] = runs) -> None:
                with ground.clean() as folder:
                    runs.append(peer(folder))

            steps.append(run_peer)
        for step in steps if number % 2 else reversed(steps):
            ground.warm()
            step()
    return Pairs(found, theirs)


def export_rows(ground: Ground) -> list[Figure]:
    """Export to one file, uncompressed, beside `cp`."""

    def ours(folder: Path) -> Watched:
        body = {"models": [_MODEL], "path": str(folder / "out.tar")}
        return watched(ground.sender, "POST", "/api/export", body)

    def with_sync(folder: Path) -> float:
        return run_timed('cp "${@:2}" "$1" && sync -d "$1"/*', folder, *ground.blobs)

    def bare(folder: Path) -> float:
        return run_timed('cp "${@:2}" "$1"', folder, *ground.blobs)

    pairs = in_turn(ground, ours, with_sync, bare)
    return [
        pairs.figure("export ÷ cp and sync", 1.2),
        pairs.figure("export ÷ cp alone", None, 1),
        *pairs.watch_figures("an export"),
    ]


def compress_rows(ground: Ground) -> list[Figure]:
    """Export with zstd beside `tar | zstd -T0`."""

    def ours(folder: Path) -> Watched:
        body = {"models": [_MODEL], "path": str(folder / "out.tar.zst"), "compress": True}
        return watched(ground.sender, "POST", "/api/export", body)

    def peer(folder: Path) -> float:
        names = [blob.name for blob in ground.blobs]
        pipe = f'tar -C "$2" -cf - "${{@:3}}" | zstd -q -T0 -{_LEVEL} -o "$1/x" && sync -d "$1/x"'
        return run_timed(pipe, folder, ground.blobs[0].parent, *names)

    pairs = in_turn(ground, ours, peer)
    return [
        pairs.figure(f"export --compress ÷ tar, zstd -T0 -{_LEVEL} and sync", 1.1),
        *pairs.watch_figures("an export --compress"),
    ]


def import_rows(ground: Ground) -> list[Figure]:
    """Import of one uncompressed file beside `cp`, `sync` and `sha256sum`."""
    archive = ground.folder / "import.tar"
    ask(ground.sender, "POST", "/api/export", {"models": [_MODEL], "path": str(archive)})

    def ours(_folder: Path) -> Watched:
        run_timed('cat "$1" > /dev/null', archive)
        run = watched(ground.receiver, "POST", "/api/import", {"path": str(archive)})
        ask(ground.receiver, "DELETE", "/api/delete", {"model": _MODEL})
        return run

    def peer(hashing: str) -> Callable[[Path], float]:
        def run(folder: Path) -> float:
            script = f'cp "${{@:2}}" "$1" && sync -d "$1"/* && {hashing} "$1"/*'
            return run_timed(script, folder, *ground.blobs)

        return run

    try:
        pairs = in_turn(ground, ours, peer("sha256sum"), peer("openssl dgst -sha256"))
    finally:
        archive.unlink()
    return [
        pairs.figure("import ÷ cp, sync and sha256sum", 1.0),
        pairs.figure("import ÷ cp, sync and openssl dgst -sha256", None, 1),
        *pairs.watch_figures("an import"),
    ]


def reflink_rows(folder: Path, size_bytes: int, n_rounds: int) -> list[Figure]:
    """Export on a file system that shares blocks, beside a `cp` that does not share them."""
    with open_ground(folder, size_bytes, n_rounds) as ground:

        def ours(made: Path) -> Watched:
            body = {"models": [_MODEL], "path": str(made / "out.tar")}
            return watched(ground.sender, "POST", "/api/export", body)

        def peer(flag: str) -> Callable[[Path], float]:
            def run(made: Path) -> float:
                script = f'cp --reflink={flag} "${{@:2}}" "$1" && sync -d "$1"/*'
                return run_timed(script, made, *ground.blobs)

            return run

        pairs = in_turn(ground, ours, peer("never"), peer("always"))
    kind = file_system(folder)
    return [
        pairs.figure(f"export on {kind} ÷ cp --reflink=never and sync", 0.2),
        pairs.figure(f"export on {kind} ÷ cp --reflink=always and sync", None, 1),
    ]


def file_system(folder: Path) -> str:
    """The kind of file system a folder is on."""
    done = subprocess.run(
        ["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip().replace("ext2/ext3", "ext4")


@contextlib.contextmanager
def open_ground(folder: Path, size_bytes: int, n_rounds: int) -> Iterator[Ground]:
    """Make a model, and two daemons: one with it, one to receive it."""
    free = shutil.disk_usage(folder).free
    if free < 4 * size_bytes:
        raise BenchError(f"{folder} has {free >> 20} MiB free, wanted {4 * size_bytes >> 20}")
    with tempfile.TemporaryDirectory(dir=folder, prefix="olm-transfer-") as made:
        scratch = Path(made)
        blobs = write_model(scratch / "sender/models", size_bytes)
        os.sync()
        (scratch / "receiver").mkdir()
        with open_olm(scratch / "sender") as sender, open_olm(scratch / "receiver") as receiver:
            yield Ground(scratch, sender, receiver, blobs, n_rounds)
