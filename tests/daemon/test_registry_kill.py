"""A daemon that is killed in the middle of a transfer: the next one goes on where it was, and asks for no byte twice."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import httpx2
import pytest
import trio

from kit.daemon import Daemon, run_daemon, wait_until
from kit.registry import Registry, digest_of, open_registry
from store.gguf_files import model

pytestmark = [pytest.mark.daemon, pytest.mark.native, pytest.mark.slow]

WEIGHTS = model() + random.Random(3).randbytes(4 << 20)
CONFIG = b'{"model_format":"gguf","model_family":"llama"}'


@attrs.define
class Kept:
    """A registry in a thread of its own."""

    registry: Registry
    _token: trio.lowlevel.TrioToken

    def do(self, work: Callable[[], object]) -> None:
        """Do something where the registry runs."""
        trio.from_thread.run_sync(work, trio_token=self._token)

    def close_gates(self) -> None:
        """Have bodies wait in their middle."""

        def work() -> None:
            self.registry.gate = self.registry.uploads.gate = trio.Event()

        self.do(work)

    def open_gates(self) -> None:
        """Let bodies go on."""

        def work() -> None:
            gate, self.registry.gate, self.registry.uploads.gate = self.registry.gate, None, None
            assert gate is not None
            gate.set()

        self.do(work)


@contextmanager
def run_registry() -> Iterator[Kept]:
    started = threading.Event()
    kept: list[Kept] = []
    over = trio.Event()

    async def main() -> None:
        async with open_registry() as registry:
            kept.append(Kept(registry, trio.lowlevel.current_trio_token()))
            started.set()
            await over.wait()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    assert started.wait(10)
    try:
        yield kept[0]
    finally:
        kept[0].do(over.set)
        thread.join()


@contextmanager
def transfer(daemon: Daemon, what: str, name: str) -> Iterator[None]:
    """Run a push or pull in the background; however it ends."""

    def run() -> None:
        with suppress(httpx2.TransportError):  # the daemon is killed
            body = {"model": name, "insecure": True}
            httpx2.post(daemon.url + f"/api/{what}", json=body, timeout=60)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def finish(daemon: Daemon, what: str, name: str) -> None:
    body = {"model": name, "insecure": True, "stream": False}
    answer = httpx2.post(daemon.url + f"/api/{what}", json=body, timeout=60)
    assert answer.json() == {"status": "success"}


def fill(store: Path, registry: Registry) -> None:
    scratch = Registry()
    manifest = scratch.add("good", [("model", WEIGHTS)], CONFIG)
    (store / "blobs").mkdir(parents=True)
    for digest, data in scratch.blobs.items():
        (store / "blobs" / digest.replace(":", "-")).write_bytes(data)
    path = store / "manifests" / f"127.0.0.1:{registry.port}" / "library" / "good" / "latest"
    path.parent.mkdir(parents=True)
    path.write_bytes(manifest)


def test_a_push_goes_on_after_kill_9(tmp_path: Path) -> None:
    with run_registry() as kept:
        registry = kept.registry
        fill(tmp_path / "models", registry)
        kept.close_gates()
        with run_daemon(tmp_path) as daemon, transfer(daemon, "push", registry.name("good")):
            wait_until(registry.uploads.waiting.is_set, what="the first bytes")
            daemon.stop(signal.SIGKILL)
        kept.open_gates()
        wait_until(lambda: registry.uploads.n_received > 100_000, what="what was under way")

        with run_daemon(tmp_path) as daemon:
            finish(daemon, "push", registry.name("good"))

    assert registry.blobs[digest_of(WEIGHTS)] == WEIGHTS
    assert registry.uploads.asked
    assert registry.uploads.n_received == len(WEIGHTS) + len(CONFIG)


def test_a_pull_goes_on_after_kill_9(tmp_path: Path) -> None:
    with run_registry() as kept:
        registry = kept.registry
        kept.do(lambda: registry.add("good", [("model", WEIGHTS)], CONFIG))
        kept.close_gates()
        record = f"{digest_of(WEIGHTS).replace(':', '-')}-partial-0"
        with run_daemon(tmp_path) as daemon, transfer(daemon, "pull", registry.name("good")):
            wait_until((tmp_path / "models" / "blobs" / record).exists, what="the record")
            daemon.stop(signal.SIGKILL)
        kept.open_gates()
        kept.do(registry.log.clear)

        with run_daemon(tmp_path) as daemon:
            finish(daemon, "pull", registry.name("good"))

    spans = [span for path, span in registry.blob_log() if digest_of(WEIGHTS) in path]
    asked = [int(last) - int(first) + 1 for first, last in (s[6:].split("-") for s in spans)]
    blob = tmp_path / "models" / "blobs" / digest_of(WEIGHTS).replace(":", "-")
    assert blob.read_bytes() == WEIGHTS
    assert 0 < sum(asked) < len(WEIGHTS) * 0.6
