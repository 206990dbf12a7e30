"""After the crash: is the store in order, does it open, and does everything that was begun succeed now?"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import traceback
import urllib.request
from pathlib import Path
from typing import Final

import trio
import zstandard

from crash.disk import read_tree
from crash.ledger import Ledger, Operation
from crash.life import BROKEN, perform
from crash.world import marks, open_shop
from olm.actors.jobs_client import CheckRequest, Finding
from store.conftest import Shop

__all__ = ["verify"]

_KNOWN: Final = re.compile(r"sha256-[0-9a-f]{64}(-partial(-\d+)?)?")


async def verify(base: Path, ledger: Ledger) -> list[str]:
    """Look at a store as it was left, open it, do again what was begun, look again. Returns what is wrong."""
    try:
        return await _Check(base, ledger).run()
    except (Exception, BaseExceptionGroup) as exc:
        return [f"the check itself failed: {''.join(traceback.format_exception(exc))}"]


class _Check:
    def __init__(self, base: Path, ledger: Ledger) -> None:
        self._base = base
        self._root = base / "home/models"
        self._ledger = ledger
        self._wrong: list[str] = []

    async def run(self) -> list[str]:
        self._look("as it was left")
        for operation in (*self._ledger.done, *self._ledger.pending.values()):
            if operation.kind == "export":
                self._archive(operation, must_be=operation.number not in self._ledger.pending)
        for operation in self._ledger.done:
            if operation.kind == "push":
                self._pushed(operation)
        vouched = self._vouched()
        async with open_shop(self._root) as shop:
            self._ledger.opened()
            names = {model.name for model in await shop.store.list()}
            self._look("opened")
            self._temps("opened")
            if len(names) != len(self._names):
                self._wrong.append(f"olm lists {sorted(names)}, there are {sorted(self._names)}")
            for operation in list(self._ledger.pending.values()):
                await self._again(shop, operation, vouched)
        self._look("in the end")
        self._temps("in the end")
        async with open_shop(self._root) as shop:
            await self._doctor(shop)
        self._look("opened again")
        return self._wrong

    def _look(self, when: str) -> None:
        self._names, problems = marks(read_tree(self._root)) if self._root.exists() else ({}, [])
        problems += self._ledger.observe(self._names)
        self._wrong += [f"{when}: {problem}" for problem in problems]

    def _temps(self, when: str) -> None:
        """Nothing temporary is left but downloads that can be resumed."""
        for path in self._root.rglob("*"):
            name = path.name
            if name.startswith(".olm-tmp-"):
                self._wrong.append(f"{when}: {path.relative_to(self._root)} is still there")
            elif path.parent.name == "blobs" and not _KNOWN.fullmatch(name):
                self._wrong.append(f"{when}: {name} among the blobs")

    def _vouched(self) -> dict[str, int]:
        """How many bytes of each digest a record says to be there."""
        vouched: dict[str, int] = {}
        for path in (self._root / "blobs").glob("*-partial-0"):
            blob = path.with_name(path.name.removesuffix("-0"))
            if blob.exists() and blob.stat().st_size:
                record = json.loads(path.read_bytes())
                spans = record.get("olm") or [(0, record.get("Completed", 0))]
                digest = blob.name.removesuffix("-partial").replace("-", ":")
                vouched[digest] = sum(end - start for start, end in spans)
        return vouched

    def _is_done(self, operation: Operation) -> bool:
        """Whether what was begun came to its end unseen."""
        match operation.kind:
            case "restart":
                return True
            case "delete":
                return self._ledger.of(operation.models[0]) == {None}
            case "export":
                return os.path.lexists(self._base / operation.path)
            case _:
                return False

    async def _again(self, shop: Shop, operation: Operation, vouched: dict[str, int]) -> None:
        """What was begun has to succeed now, and go on from where it was."""
        ledger = self._ledger
        if self._is_done(operation):
            return
        lacks = ledger.may_lack(operation)
        notes: list[str] = []
        steps = await perform(shop, self._base, operation, notes.append)
        for note in notes:
            ledger.note(note)
        if steps is None and not lacks:
            self._wrong.append(f"{operation} does not succeed afterwards: {notes[-1]}")
        for digest in {step.digest for step in steps or ()} & vouched.keys():
            completed = [step.completed for step in steps or () if step.digest == digest]
            first = next((n for n in completed if n), 0)
            n_bytes = vouched.pop(digest)  # a later pull may have to begin anew, after a delete
            if first < n_bytes:
                self._wrong.append(f"{operation} begins at {first}, not {n_bytes}: {digest}")
        if steps is not None and operation.kind == "export":
            self._archive(operation, must_be=True)
        if steps is not None and operation.kind == "push":
            await trio.to_thread.run_sync(self._pushed, operation)

    async def _doctor(self, shop: Shop) -> None:
        """olm's own check has to come to the same end."""
        async with shop.jobs.check(CheckRequest()) as found:
            async for item in found:
                if isinstance(item, Finding) and item.kind in BROKEN:
                    self._wrong.append(f"olm doctor finds {item}")

    def _pushed(self, operation: Operation) -> None:
        """What was told to be pushed is there whole, asked for with nothing of olm."""
        name = operation.models[0]
        host, namespace, model = name.removesuffix(":latest").split("/")
        url = f"http://{host}/v2/{namespace}/{model}"
        try:
            manifest = json.loads(_fetched(f"{url}/manifests/latest"))
            for layer in (manifest["config"], *manifest["layers"]):
                data = _fetched(f"{url}/blobs/{layer['digest']}")
                if f"sha256:{hashlib.sha256(data).hexdigest()}" != layer["digest"]:
                    self._wrong.append(f"{name} was pushed with another {layer['digest']}")
        except OSError as exc:
            self._wrong.append(f"{name} was pushed and is not whole there: {exc}")

    def _archive(self, operation: Operation, *, must_be: bool) -> None:
        path = self._base / operation.path
        if not os.path.lexists(path):
            if must_be:
                self._wrong.append(f"{operation} was done, and {path.name} is not there")
            return
        problem = _archive_problem(path)
        if problem:
            self._wrong.append(f"{operation}: {path.name} is visible, and {problem}")


def _fetched(url: str) -> bytes:
    with urllib.request.urlopen(url) as answer:
        data: bytes = answer.read()
        return data


def _archive_problem(path: Path) -> str:
    """What is wrong with an archive, read with other programs' code; empty when it is whole."""
    try:
        members = _members(path)
        index = json.loads(members["index.json"])
        wanted = [item["digest"] for item in index["manifests"]]
        for digest in list(wanted):
            manifest = json.loads(members[_member(digest)])
            wanted += [layer["digest"] for layer in (manifest["config"], *manifest["layers"])]
        for digest in wanted:
            if f"sha256:{hashlib.sha256(members[_member(digest)]).hexdigest()}" != digest:
                return f"{digest} has other bytes"
    except (KeyError, ValueError, tarfile.TarError, zstandard.ZstdError, OSError) as exc:
        return f"it is not whole: {exc!r}"
    return ""


def _member(digest: str) -> str:
    return digest.replace("sha256:", "blobs/sha256/")


def _members(path: Path) -> dict[str, bytes]:
    if path.is_dir():
        return {name: data for name, data in read_tree(path).items() if isinstance(data, bytes)}
    data = path.read_bytes()
    if path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is not None:
                found[member.name] = file.read()
    return found
