"""What the crash test plays with: models in a registry, archives, stores to begin from. Made once for each run."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from crash.disk import Tree
from kit.registry import open_registry
from olm.actors.download import Pace
from olm.actors.jobs import Jobs
from olm.actors.jobs_client import ExportRequest, PullRequest
from olm.actors.pull import Pulls
from olm.actors.runtime import SupervisorSpec, open_supervisor
from olm.actors.store import Store, store_spec
from store.conftest import Shop
from store.gguf_files import model

__all__ = ["PULLED", "World", "local", "marks", "open_shop", "open_world", "run_forked", "weights"]

PULLED: Final = ("a", "b", "c", "d")
IMPORTED: Final = ("x", "y")
PACE: Final = Pace(
    part_bytes=200_000,
    n_streams=3,
    stall_s=5.0,
    n_tries=3,
    first_wait_s=0.001,
    record_s=0.004,
    progress_s=0.002,
)
_CONFIG: Final = b'{"model_format":"gguf","model_family":"llama"}'
_BLOB: Final = re.compile(r"blobs/sha256-[0-9a-f]{64}")
_DAY_S: Final = 86400.0


def weights(number: int, n_bytes: int) -> bytes:
    """A GGUF file, its own for each number, with so many bytes behind the tensors."""
    return model(general__name=f"w{number}") + random.Random(number).randbytes(n_bytes)


def local(name: str) -> str:
    """The full name of a model that is of no registry."""
    return f"registry.ollama.ai/library/{name}:latest"


@attrs.frozen
class World:
    """Where things are.

    Attributes:
        port: of the registry.
        folder: holds `stores/<name>/home/models` to begin from, and archives `x.tar`, `x.tar.zst`, `x/`.
    """

    port: int
    folder: Path

    def remote(self, name: str) -> str:
        """The full name of a pulled model."""
        return f"127.0.0.1:{self.port}/library/{name}:latest"

    @property
    def starts(self) -> list[Path]:
        """The stores to begin from."""
        return sorted((self.folder / "stores").iterdir())

    @property
    def linked(self) -> Path:
        """A GGUF file that models run in place."""
        return self.folder / "linked.gguf"

    @property
    def archives(self) -> list[Path]:
        """All archives: each has the models x and y."""
        return sorted(self.folder.glob("x*"))


@asynccontextmanager
async def open_shop(root: Path, pace: Pace = PACE) -> AsyncIterator[Shop]:
    """A running store with its jobs, as a daemon has them."""
    async with open_supervisor(children=[store_spec(root), SupervisorSpec("jobs")]) as top:
        store, work = Store(top.address("store"), root), top.supervisor("jobs")
        pulls = Pulls(work, store, root.parent, pace)
        yield Shop(store, Jobs(work, store, n_export_workers=2, pulls=pulls), root)


# -- processes -------------------------------------------------------------------------------------------------------


def run_forked(work: Callable[[], Awaitable[None]]) -> None:
    """Run something in a process of its own, so that this one stays without threads."""
    pid = os.fork()
    if pid == 0:
        try:
            trio.run(work)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert status == 0, "setting up failed; see above"


async def _serve(pipe: int) -> None:
    """A registry with the models, until the pipe's other end is closed."""
    big, small = weights(1, 700_000), weights(2, 10)
    async with open_registry() as registry:
        registry.add("a", [("model", big), ("system", b"a")], _CONFIG)
        registry.add("b", [("model", big), ("license", b""), ("system", b"b")], _CONFIG)
        registry.add("c", [("model", weights(3, 3_000_000)), ("system", b"c")], _CONFIG)
        registry.add("d", [("model", small), ("license", b"free" * 5000), ("system", b"d")], b"{}")
        os.write(pipe, f"{registry.port}\n".encode())
        await trio.lowlevel.wait_readable(pipe)


@contextmanager
def _registry() -> Iterator[int]:
    """Run the registry in a process; gives its port."""
    import socket

    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            trio.run(_serve, theirs.fileno())
        finally:
            os._exit(0)
    theirs.close()
    try:
        yield int(ours.makefile().readline())
    finally:
        ours.close()
        os.waitpid(pid, 0)


@contextmanager
def open_world(folder: Path) -> Iterator[World]:
    """Make everything."""
    with _registry() as port:
        world = World(port, folder)
        stores = folder / "stores"
        (stores / "nothing/home").mkdir(parents=True)
        world.linked.write_bytes(weights(7, 300_000))
        run_forked(partial(_make_archives, folder))
        run_forked(partial(_make_full, world, stores / "full/home/models"))
        shutil.copytree(stores / "full", stores / "littered")
        _litter(stores / "littered/home/models")
        for store in world.starts:
            (store / "out").mkdir()
        yield world


async def _make_archives(folder: Path) -> None:
    async with open_shop(folder / "first/models") as shop:
        await upload(shop, "x", weights(4, 900_000), "x")
        await shop.create(model="y", from_="x", system="y", licenses=["none", ""])
        for path in ("x.tar", "x.tar.zst", "x/"):
            request = ExportRequest(
                models=IMPORTED, path=f"{folder}/{path}", compress=path.endswith("zst")
            )
            async with shop.jobs.export(request) as steps:
                assert [step.status async for step in steps][-1] == "success"


async def _make_full(world: World, root: Path) -> None:
    async with open_shop(root) as shop:
        for name in ("a", "b"):
            async with shop.jobs.pull(PullRequest(world.remote(name), insecure=True)) as steps:
                assert [step.status async for step in steps][-1] == "success"
        await upload(shop, "one", weights(5, 400_000), "one")
        await shop.create(model="two", from_="one", system="two")
        await shop.store.copy("two", "other.host/three/two")


async def upload(shop: Shop, name: str, data: bytes, mark: str) -> None:
    """Bring a GGUF file and make a model of it."""
    digest = await shop.upload(data)
    await shop.create(model=name, files={"model.gguf": digest}, system=mark)


def _litter(root: Path) -> None:
    """What earlier crashes may have left: temporary files, blobs of no model, downloads that nobody came back for."""
    blobs, now_s = root / "blobs", time.time()

    def put(path: Path, data: bytes, age_s: float) -> None:
        path.write_bytes(data)
        os.utime(path, (now_s - age_s, now_s - age_s))

    for path in (blobs, root / "manifests", root / "manifests/registry.ollama.ai/library/one"):
        put(path / ".olm-tmp-0123", b"half", 0)
    for age_s in (60.0, _DAY_S):
        data = f"unused {age_s}".encode()
        put(blobs / f"sha256-{hashlib.sha256(data).hexdigest()}", data, age_s)
    stale = blobs / f"sha256-{hashlib.sha256(weights(6, 0)).hexdigest()}-partial"
    put(stale, b"half", 20 * _DAY_S)
    put(stale.with_name(f"{stale.name}-0"), b"{}", 20 * _DAY_S)
    half = weights(3, 3_000_000)
    young = blobs / f"sha256-{hashlib.sha256(half).hexdigest()}-partial"
    put(young, half[:1_000_000] + bytes(len(half) - 1_000_000), 60)
    record = {"N": 0, "Offset": 0, "Size": len(half), "Completed": 1_000_000, "olm": []}
    put(young.with_name(f"{young.name}-0"), json.dumps(record).encode(), 60)
    (root / "manifests/empty/folders/of/a").mkdir(parents=True)


# -- looking at a store without olm ----------------------------------------------------------------------------------


def marks(tree: Tree) -> tuple[Mapping[str, str | None], list[str]]:
    """What each name of a store stands for, and what is wrong in it: read with nothing of olm.

    The mark of a model is its system text, or a part of its manifest's digest when it has none.
    """
    found: dict[str, str | None] = {}
    wrong: list[str] = []
    # Of a link into the world the file counts that it leads to.
    tree = {
        path: Path(data).read_bytes() if isinstance(data, str) else data
        for path, data in tree.items()
    }
    for path, data in tree.items():
        if data is None or "/.olm-tmp-" in f"/{path}":
            continue
        if path.startswith("manifests/"):
            host, namespace, name, tag = path.split("/")[1:]
            mark, problems = _mark(tree, data)
            found[f"{host}/{namespace}/{name}:{tag}"] = mark
            wrong += [f"{path}: {problem}" for problem in problems]
        elif _BLOB.fullmatch(path) and not _is_whole(path, data):
            wrong.append(f"{path} is visible and has other bytes")
        elif path.endswith(".json"):
            try:
                json.loads(data)
            except ValueError:
                wrong.append(f"{path} is visible and half-written")
    return found, wrong


def _is_whole(path: str, data: bytes) -> bool:
    return path == f"blobs/sha256-{hashlib.sha256(data).hexdigest()}"


def _mark(tree: Mapping[str, bytes | None], data: bytes) -> tuple[str, list[str]]:
    try:
        manifest = json.loads(data)
        layers = [manifest["config"], *manifest["layers"]]
    except (ValueError, KeyError, TypeError):
        return "damaged", [f"damaged manifest {data[:80]!r}"]
    mark, problems = hashlib.sha256(data).hexdigest()[:12], []
    for layer in layers:
        blob = tree.get(f"blobs/{layer['digest'].replace(':', '-')}")
        if blob is None:
            problems.append(f"its blob {layer['digest'][:19]} is missing")
        elif len(blob) != layer["size"]:
            problems.append(f"its blob {layer['digest'][:19]} has {len(blob)} bytes")
        elif layer["mediaType"].endswith(".system"):
            mark = blob.decode()
    return mark, problems
