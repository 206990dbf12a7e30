#!/usr/bin/env python3
"""Pulling a large model from loopback, against `curl | sha256sum` of the same bytes.

    python bench/transfer_pull.py                 # 4 GiB, three rounds
    python bench/transfer_pull.py --size 1GiB --rounds 1

A daemon pulls four layers of random bytes from a registry in a process of its own (file_registry.py), verifies and stores
them durably; then curl gets the same four files one after the other, each piped to sha256sum, and writes nothing. Both
read from the page cache. While the daemon pulls, its memory is sampled, a timer in its event loop notes
how late it is (lag_serve.py), and it is asked for `/api/version` every ten milliseconds on one connection, which on a
busy machine also measures how long the client itself waits for a core. `rows` is what transfer.py takes into its table.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

import attrs
from machine import cpu_seconds, describe_machine, process_tree, rss_bytes, wait_until_idle
from report import markdown_table, pairwise_ratio
from servers import BenchError, Server, cache_directory, end_on_sigterm, open_olm
from web import Figure

from olm.units import parse_bytes

__all__ = ["main", "rows"]

_N_LAYERS: Final = 4
_PROBE_S: Final = 0.01
_LIMIT_RATIO: Final = 1.0
_LIMIT_RSS_MB: Final = 150.0
_LIMIT_LAG_MS: Final = 20.0


@attrs.frozen
class _Source:
    """A registry on loopback: its address, and the files it serves."""

    host: str
    blobs: list[str]


@attrs.frozen
class _Pull:
    """One pull.

    Attributes:
        rss_mb: the most memory over idle, all processes of the daemon together.
        late_ms: how late a timer in the event loop was, every ten milliseconds.
        probes_ms: what `GET /api/version` took, as often.
        cpu_s: of the daemon's processes.
    """

    wall_s: float
    rss_mb: float
    late_ms: list[float]
    probes_ms: list[float]
    cpu_s: float


def _write_layer(folder: Path, size_bytes: int, number: int) -> str:
    """Write random bytes under their digest, which is returned."""
    hashed, temp = hashlib.sha256(), folder / "layer"
    with temp.open("wb") as file:
        for at in range(0, size_bytes, 1 << 24):
            # Random enough that nothing compresses, cheaper than urandom; no two pieces are the same.
            piece = hashlib.shake_128(f"{number}-{at}".encode()).digest(
                min(1 << 24, size_bytes - at)
            )
            hashed.update(piece)
            file.write(piece)
        os.fsync(file.fileno())
    digest = f"sha256:{hashed.hexdigest()}"
    temp.rename(folder / digest)
    return digest


def _write_model(folder: Path, size_bytes: int) -> list[str]:
    """Write a model of four layers of data that no engine will ever read; returns the layers' digests."""
    config = b'{"model_format":"gguf","model_family":"llama"}'
    config_digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    (folder / config_digest).write_bytes(config)
    share = size_bytes // _N_LAYERS
    layers = [_write_layer(folder, share, number) for number in range(_N_LAYERS)]
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": config_digest,
            "size": len(config),
        },
        "layers": [
            {"mediaType": "application/vnd.ollama.image.license", "digest": digest, "size": share}
            for digest in layers
        ],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return layers


@contextlib.contextmanager
def _open_source(folder: Path, size_bytes: int) -> Iterator[_Source]:
    blobs = _write_model(folder, size_bytes)
    script = Path(__file__).with_name("file_registry.py")
    process = subprocess.Popen([sys.executable, str(script), str(folder)], stdout=subprocess.PIPE)
    assert process.stdout is not None, "it was asked for"
    try:
        address = process.stdout.readline().decode().strip()
        if not address:
            raise BenchError("the registry does not start")
        yield _Source(address, blobs)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def _tree_rss_bytes(pid: int) -> int:
    total = 0
    for one in process_tree(pid):
        with contextlib.suppress(OSError, ValueError):
            total += rss_bytes(one)
    return total


class _Watch:
    """Probes a daemon in a thread until it is left: the latency of a cheap request, and memory every tenth time."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.probes_ms: list[float] = []
        self.peak_bytes = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        address = urlsplit(self._server.url).netloc
        connection = http.client.HTTPConnection(address, timeout=30)
        while not self._stop.wait(_PROBE_S):
            started = time.perf_counter()
            connection.request("GET", "/api/version")
            connection.getresponse().read()
            self.probes_ms.append((time.perf_counter() - started) * 1e3)
            if len(self.probes_ms) % 10 == 1:
                self.peak_bytes = max(self.peak_bytes, _tree_rss_bytes(self._server.pid))
        connection.close()


def _post(server: Server, path: str, body: dict[str, object]) -> list[dict[str, object]]:
    """Run a job of the daemon to its end; its statuses. Raises BenchError when it fails."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
    with contextlib.closing(connection):
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        lines = connection.getresponse().read().splitlines()
    steps: list[dict[str, object]] = [json.loads(line) for line in lines]
    if not steps or "error" in steps[-1]:
        raise BenchError(f"{path}: {steps[-1] if steps else 'no answer'}")
    return steps


def _pull(store: Path, source: _Source) -> _Pull:
    """One pull into an empty store, from the request to `success`."""
    ticks = store / "ticks"
    clock = [sys.executable, str(Path(__file__).with_name("lag_serve.py")), str(ticks)]
    with open_olm(store, command=clock) as server:
        wait_until_idle(server.pid)
        idle, cpu_before = _tree_rss_bytes(server.pid), cpu_seconds(server.pid)
        with _Watch(server) as watch:
            started = time.monotonic()
            steps = _post(
                server,
                "/api/pull",
                {"model": f"http://{source.host}/library/big", "insecure": True},
            )
            wall_s = time.monotonic() - started
        if steps[-1].get("status") != "success":
            raise BenchError(f"the pull ended with {steps[-1]}")
        cpu_s = cpu_seconds(server.pid) - cpu_before
    samples = [tuple(map(float, line.split())) for line in ticks.read_text().splitlines()]
    late_ms = [late for at, late in samples if started <= at <= started + wall_s]
    return _Pull(wall_s, (watch.peak_bytes - idle) / 1e6, late_ms, watch.probes_ms, cpu_s)


def _curl(source: _Source, hasher: str) -> float:
    """Seconds that curl piped to a hashing program takes for all blobs, one after the other; digests are checked."""
    started = time.perf_counter()
    for digest in source.blobs:
        url = f"http://{source.host}/v2/library/big/blobs/{digest}"
        command = f"curl --silent --fail {url} | {hasher}"
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
        if digest.removeprefix("sha256:") not in done.stdout:
            raise BenchError(f"{command}: {done.stdout.strip()}")
    return time.perf_counter() - started


def _percentile(values: list[float], frac: float) -> float:
    return sorted(values)[min(int(len(values) * frac), len(values) - 1)]


def rows(size_bytes: int, folder: Path, n_rounds: int = 3) -> list[Figure]:
    """Measure pulls of `size_bytes` in four layers in pairs with curl; `folder` needs twice the room.

    Raises:
        BenchError: a pull failed, or curl did.
    """
    pulls: list[_Pull] = []
    curls: list[float] = []
    harder: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="pull-", dir=folder) as scratch,
        tempfile.TemporaryDirectory(prefix="source-", dir=folder) as served,
        _open_source(Path(served), size_bytes) as source,
    ):
        for number in range(n_rounds):
            with tempfile.TemporaryDirectory(prefix=f"{number}-", dir=scratch) as store:
                pulls.append(_pull(Path(store), source))
            curls.append(_curl(source, "sha256sum"))
            harder.append(_curl(source, "openssl dgst -sha256"))
    walls = [pull.wall_s for pull in pulls]
    ratio, hard = pairwise_ratio(walls, curls), pairwise_ratio(walls, harder)
    rss_mb = max(pull.rss_mb for pull in pulls)
    lag_ms = statistics.median(_percentile(pull.late_ms, 0.99) for pull in pulls)
    worst_ms = max(max(pull.late_ms) for pull in pulls)
    probe_ms = statistics.median(_percentile(pull.probes_ms, 0.99) for pull in pulls)
    seconds, gib = statistics.median, size_bytes / 2**30
    return [
        Figure(
            f"pull of {gib:g} GiB in {_N_LAYERS} layers, s",
            f"{seconds(walls):.1f} (CPU {seconds(p.cpu_s for p in pulls):.1f})",
            f"curl, sha256sum {seconds(curls):.1f}; curl, openssl {seconds(harder):.1f}",
        ),
        Figure(
            "pull ÷ curl piped to sha256sum",
            str(ratio),
            "",
            f"≤ {_LIMIT_RATIO:.1f}",
            ratio.median <= _LIMIT_RATIO,
        ),
        Figure("pull ÷ curl piped to openssl, which writes nothing either", str(hard)),
        Figure(
            "memory of the daemon during a pull over idle, MB",
            f"{rss_mb:.0f}",
            "",
            f"< {_LIMIT_RSS_MB:.0f}",
            rss_mb < _LIMIT_RSS_MB,
        ),
        Figure(
            "the event loop's lag during a pull, p99 (worst), ms",
            f"{lag_ms:.1f} ({worst_ms:.0f})",
            f"`GET /api/version` by a client on the same cores {probe_ms:.1f}",
            f"< {_LIMIT_LAG_MS:.0f}",
            lag_ms < _LIMIT_LAG_MS,
        ),
    ]


def main() -> None:
    """Run the command line described at the top of this file."""
    parser = argparse.ArgumentParser(description="Pulling, against curl.")
    parser.add_argument("--size", default="4GiB", help="bytes of the model, such as 1GiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where; default the bench cache")
    args = parser.parse_args()
    end_on_sigterm()
    try:
        figures = rows(parse_bytes(args.size), args.folder or cache_directory(), args.rounds)
    except (BenchError, OSError) as exc:
        sys.exit(f"transfer_pull: {exc}")
    table = [[f.name, f.ours, f.others, f.limit] for f in figures]
    print(f"Machine: {describe_machine()}\n")
    print(markdown_table(["figure", "olm", "others", "limit"], table))
    broken = [figure.name for figure in figures if not figure.is_kept]
    if broken:
        sys.exit(f"transfer_pull: over the limit: {', '.join(broken)}")


if __name__ == "__main__":
    main()
