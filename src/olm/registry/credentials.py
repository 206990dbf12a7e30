"""Names and passwords for registries, from files as `docker login` writes them. Blocking; nothing is cached.

Read anew at every challenge, so that a login takes effect at once. Who is sent what is decided in `olm.registry.auth`.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs
import msgspec

from olm.log import get_logger
from olm.registry.errors import RegistryError

__all__ = ["Credentials", "Login", "read_credentials"]

OWN_FILE: Final = "registry-auth.json"
"""In olm's home; looked into before Docker's own file."""
_MAX_FILE_BYTES: Final = 1 << 20
_DOCKER_HUB: Final = "index.docker.io"
_DOCKER_HUB_HOSTS: Final = frozenset({"docker.io", "registry-1.docker.io"})
_log = get_logger("registry")


@attrs.frozen
class Login:
    """What one host is told; nothing at all when the name is empty."""

    username: str = ""
    password: str = attrs.field(default="", repr=False)

    @property
    def authorization(self) -> str:
        """The header of RFC 7617; empty for a host that is trusted but told nothing."""
        if not self.username:
            return ""
        return f"Basic {base64.b64encode(f'{self.username}:{self.password}'.encode()).decode()}"


@attrs.frozen
class Credentials:
    """Logins by host and port, in lower case."""

    logins: Mapping[str, Login] = attrs.field(factory=dict)

    def find(self, host: str) -> Login | None:
        """The login of a host (with its port, where it has one); None where nobody named it."""
        return self.logins.get(_plain(host))


class _Entry(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""


class _File(msgspec.Struct):
    auths: dict[str, _Entry] = msgspec.field(default_factory=dict)


def read_credentials(home: Path, environ: Mapping[str, str] = os.environ) -> Credentials:
    """Read `registry-auth.json` in olm's home, then Docker's `config.json` (in DOCKER_CONFIG or ~/.docker).

    The first file that names a host counts. Programs that keep passwords elsewhere (`credsStore`) are not run.

    Raises:
        RegistryError: a file is there and is not of that form.
    """
    logins: dict[str, Login] = {}
    for path in _files(home, environ):
        data = _read(path)
        if data is None:
            continue
        for host, login in _decode(data, path).items():
            logins.setdefault(host, login)
    return Credentials(logins)


def _files(home: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    yield home / OWN_FILE
    if folder := environ.get("DOCKER_CONFIG"):
        yield Path(folder) / "config.json"
    elif user := environ.get("HOME"):
        yield Path(user) / ".docker" / "config.json"


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        # A service often cannot look into its user's folders; what it may read has to do.
        _log.warning("cannot read %s: %s", path, os.strerror(exc.errno or 0).lower())
        return None


def _decode(data: bytes, path: Path) -> dict[str, Login]:
    try:
        file = msgspec.json.decode(data, type=_File)
        return {_plain(host): _login(entry) for host, entry in file.auths.items()}
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        # The text of the error could hold a piece of a password.
        raise RegistryError(f"cannot use the logins in {path}: not the form of docker's") from exc


def _login(entry: _Entry) -> Login:
    if not entry.auth:
        return Login(entry.username, entry.password)
    try:
        name, _, password = base64.b64decode(entry.auth, validate=True).decode().partition(":")
    except binascii.Error as exc:
        raise ValueError("no base64") from exc
    return Login(name, password.rstrip("\0"))


def _plain(host: str) -> str:
    """A key of `auths` as host and port: without scheme and path; Docker Hub has several names."""
    netloc = host.partition("://")[2] if "://" in host else host
    plain = netloc.partition("/")[0].lower()
    return _DOCKER_HUB if plain in _DOCKER_HUB_HOSTS else plain
