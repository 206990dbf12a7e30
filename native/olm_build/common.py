"""What every part of the build shares: its error, its places on disk, locks, hashes and atomic directories."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

__all__ = [
    "BuildError",
    "Places",
    "cache_root",
    "digest_of",
    "fail",
    "file_sha256",
    "files_sha256",
    "locked",
    "prune",
    "replace_dir",
    "stored_entry",
]

_KEPT = 8  # results of a kind: a few branches and compilers; 18 MB each for the libraries
_RECENT_S = 3600.0
_SHORT = 16  # hex digits of a key in a path: 64 bits, and short enough to read


class BuildError(Exception):
    """Something the user can act on; printed without a traceback."""


def fail(message: str) -> NoReturn:
    """Raise a `BuildError`."""
    raise BuildError(message)


def cache_root(env: Mapping[str, str]) -> Path:
    """Where trees, build directories and results live: $OLM_BUILD_CACHE, $XDG_CACHE_HOME/olm or ~/.cache/olm."""
    if env.get("OLM_BUILD_CACHE"):
        return Path(env["OLM_BUILD_CACHE"]).expanduser().absolute()
    if env.get("XDG_CACHE_HOME"):
        return Path(env["XDG_CACHE_HOME"]).absolute() / "olm"
    return Path(env.get("HOME") or Path.home()).absolute() / ".cache" / "olm"


@dataclass(frozen=True)
class Places:
    """The checkout (or unpacked source distribution) and the cache."""

    root: Path
    cache: Path

    @property
    def native(self) -> Path:
        """Our native sources."""
        return self.root / "native"

    @property
    def pin_file(self) -> Path:
        """The pin of llama.cpp."""
        return self.native / "ggml" / "UPSTREAM.toml"

    @property
    def package(self) -> Path:
        """Where the extension goes."""
        return self.root / "src" / "olm" / "native"

    @property
    def lib(self) -> Path:
        """Where the libraries go."""
        return self.package / "lib"

    def lock(self, name: str) -> Path:
        """The lock file of that name."""
        return self.cache / "locks" / f"{name}.lock"


def digest_of(facts: Mapping[str, object]) -> str:
    """Make a cache key of JSON-able facts; the order of the mapping does not matter."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_SHORT]


def file_sha256(path: Path) -> str:
    """Hash a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_sha256(base: Path, files: Iterable[Path]) -> str:
    """Hash names (relative to base) and contents of files together, whatever order they come in."""
    total = hashlib.sha256()
    for path in sorted(set(files)):
        total.update(f"{path.relative_to(base).as_posix()}\0{file_sha256(path)}\n".encode())
    return total.hexdigest()


@contextlib.contextmanager
def locked(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold an exclusive lock between processes; the kernel frees it if we die. `on_wait` is called once if we must wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is not None:
                on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def replace_dir(new: Path, target: Path) -> None:
    """Put directory `new` in the place of `target`. Open files of the old one stay valid: nothing is overwritten in place."""
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _seal(directory: Path) -> None:
    files = sorted(p for p in directory.rglob("*") if p.is_file() and p.name != "entry.json")
    listing = {p.relative_to(directory).as_posix(): file_sha256(p) for p in files}
    (directory / "entry.json").write_text(json.dumps(listing, indent=1))


def _is_sound(directory: Path) -> bool:
    """Tell whether a stored directory still is what was stored: every file there, every hash right."""
    try:
        listing = json.loads((directory / "entry.json").read_text())
        return bool(listing) and all(
            file_sha256(directory / name) == sha for name, sha in listing.items()
        )
    except (OSError, ValueError, AttributeError):
        return False


def stored_entry(places: Places, name: str, make: Callable[[Path], None]) -> tuple[Path, bool]:
    """Return the cache's directory `name`, made by `make(empty directory)` if it is missing or damaged.

    Call it under the lock of that name. An interrupted `make` leaves nothing behind under the name.

    Returns:
        the directory, and whether it was there already.
    """
    target = places.cache / "store" / name
    if _is_sound(target):
        os.utime(target)  # the time of last use
        return target, True
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    try:
        make(fresh)
        _seal(fresh)
        fresh.chmod(0o755)
        replace_dir(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    prune(target.parent, name.partition("-")[0])
    return target, False


def prune(directory: Path, kind: str) -> None:
    """Remove the results of a kind that were used longest ago: every change of a source makes another one.

    Recent ones stay whatever their number, because another build may be about to copy them.
    """
    newest_first = sorted(
        directory.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    for path in newest_first[_KEPT:]:
        if time.time() - path.stat().st_mtime > _RECENT_S:
            shutil.rmtree(path, ignore_errors=True)
