"""API keys: how they are made, kept in a file as hashes, and found again. Which key may do what is in `auth`.

A key is `olm-` and 256 random bits. The file has its SHA-256, not a slow hash such as scrypt: those protect what people
choose and attackers can guess, and nobody guesses 256 bits; a slow hash would only let strangers burn our processor
with wrong keys. Comparing takes the same time whether a key is nearly right or not (`hmac.compare_digest`).
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec

from olm.errors import InvalidRequest, NotFound, OlmError
from olm.log import get_logger
from olm.store.disk import disk_errors, write_durably

__all__ = ["PREFIX", "SCOPES", "Key", "Keyring", "Scope", "add_key", "read_keys", "remove_key"]

Scope = Literal["infer", "manage", "metrics"]

SCOPES: Final[tuple[Scope, ...]] = ("infer", "manage", "metrics")
PREFIX: Final = "olm-"
"""Lets people and secret scanners see what it is."""

KEY_BYTES: Final = 32
MAX_FILE_BYTES: Final = 1 << 20
"""Some four thousand keys; more is another file by mistake."""
CHECK_S: Final = 1.0
"""How often at most the file is looked at for changes; a look costs 2 µs."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_RESERVED: Final = frozenset({"local"})
"""How clients on a unix socket are called in the log and in queues."""

_log = get_logger("keys")


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key as the file has it.

    Attributes:
        name: who it was made for; names the client in the log and in the queues.
        sha256: of the key's bytes, 64 hex digits.
        created_at: RFC 3339, for people.
    """

    name: str
    sha256: str
    scopes: tuple[Scope, ...]
    created_at: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[Key]
    version: Literal[1] = 1


class Keyring:
    """The keys a running server knows. Used from one thread.

    Args:
        path: the file; None or a missing one is a server without keys.

    Raises:
        OlmError: the file cannot be read, or others than its owner can write it.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._looked_s = float("-inf")
        self._seen = _signature(path)
        self._keys: Sequence[Key] | None = None if path is None else read_keys(path)

    @property
    def exists(self) -> bool:
        """Whether there is a file, if only an empty one: then nobody elsewhere is served without a key."""
        return self._keys is not None

    def find(self, secret: bytes) -> Key | None:
        """Find the key that a client presents; every key is compared, so that time tells nothing."""
        digest = hashlib.sha256(secret).hexdigest()
        found = None
        for key in self._keys or ():
            if hmac.compare_digest(digest, key.sha256):
                found = key
        return found

    def refresh(self, now_s: float) -> None:
        """Read the file again if it has changed. At most one look a `CHECK_S`; never raises.

        Local files of this size take microseconds, so this is done in the loop.
        """
        if self._path is None or now_s - self._looked_s < CHECK_S:
            return
        self._looked_s = now_s
        if _signature(self._path) != self._seen:
            self.reload()

    def reload(self) -> None:
        """Read the file again. A bad one, or one that has gone, changes nothing: an accident must not open the server."""
        if self._path is None:
            return
        self._seen = _signature(self._path)
        try:
            keys = read_keys(self._path)
        except OlmError as exc:
            _log.error("the API keys stay as they were: %s", exc)
            return
        if keys is None:
            if self._keys is not None:
                _log.warning("%s has gone; its keys hold until the next start", self._path)
            return
        self._keys = keys
        _log.info("API keys read: %d", len(keys))


def read_keys(path: Path) -> Sequence[Key] | None:
    """Read the file of keys; None when there is none.

    Raises:
        OlmError: not a file, too large, writable by others, or not what `add_key` writes.
    """
    with disk_errors(f"read the API keys in {path}"):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            _check_file(path, status)
            data = file.read(MAX_FILE_BYTES)
    try:
        keys = msgspec.json.decode(data, type=_File).keys
    except ValueError as exc:
        raise InvalidRequest(f"{path} is not a file of API keys: {exc}") from exc
    for key in keys:
        if not re.fullmatch("[0-9a-f]{64}", key.sha256):
            raise InvalidRequest(f"{path}: the hash of key {key.name!r} is not 64 hex digits")
        _check_name(key.name)
    return keys


def add_key(path: Path, name: str, scopes: Collection[Scope], *, created_at: str) -> str:
    """Make a key, write its hash to the file, and return the key, which is nowhere else.

    Raises:
        OlmError: a bad or taken name, no scopes, or a file that cannot be read or written.
    """
    _check_name(name)
    if not scopes:
        raise InvalidRequest(f"a key needs a scope: {', '.join(SCOPES)}")
    secret = PREFIX + secrets.token_urlsafe(KEY_BYTES)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    ordered = tuple(scope for scope in SCOPES if scope in scopes)
    with _changing(path) as keys:
        if any(key.name == name for key in keys):
            raise InvalidRequest(f"there is a key named {name!r} already; remove it first")
        keys.append(Key(name, digest, ordered, created_at))
    return secret


def remove_key(path: Path, name: str) -> int:
    """Take a key out of the file; returns how many are left.

    Raises:
        NotFound: no key of this name. OlmError: the file cannot be read or written.
    """
    with _changing(path) as keys:
        left = [key for key in keys if key.name != name]
        if len(left) == len(keys):
            raise NotFound(f"there is no key named {name!r}")
        keys[:] = left
    return len(left)


@contextmanager
def _changing(path: Path) -> Iterator[list[Key]]:
    """Lend the list of keys and write it back; others who change it wait, those who read see the old or the new."""
    with disk_errors(f"write the API keys to {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            keys = list(read_keys(path) or ())
            yield keys
            data = msgspec.json.format(msgspec.json.encode(_File(keys)), indent=2)
            write_durably(path, data + b"\n", mode=0o600)
        finally:
            os.close(folder)


def _check_name(name: str) -> None:
    # No dots or colons: a key's name never looks like an address, beside which it stands in logs and queues.
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise InvalidRequest(
            f"cannot name a key {name!r}: up to 64 letters, digits, - and _, a letter first"
        )


def _check_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise InvalidRequest(f"{path} is not a file")
    if status.st_size > MAX_FILE_BYTES:
        raise InvalidRequest(f"{path} is too large to be a file of API keys")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidRequest(f"{path} can be written by others than its owner: chmod go-w it")


def _signature(path: Path | None) -> tuple[int, int, int] | None:
    """What changes when the file does; None when there is none."""
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
