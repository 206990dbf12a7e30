"""Proving to a registry who one is: the challenge, the signed token request, and the key in olm's home.

As Ollama does it (`server/auth.go`, `auth/auth.go`; spec/ollama §7.1). Pure but for `Identity.load`. Nothing here sends.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode, urlsplit

import attrs

from olm.registry.errors import RegistryError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["Challenge", "Identity", "parse_challenge", "token_url"]

_FIELD: Final = re.compile(r'(\w+)="([^"]*)"')
_EMPTY_HASH: Final = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()
_KEY_FILE: Final = "id_ed25519"


@attrs.frozen
class Challenge:
    """What a 401 asks for."""

    realm: str
    service: str = ""
    scope: str = ""


def parse_challenge(header: str) -> Challenge | None:
    """Read `WWW-Authenticate: Bearer realm="…",service="…",scope="…"`; None when it is no such challenge."""
    scheme, _, rest = header.partition(" ")
    fields: Mapping[str, str] = dict(_FIELD.findall(rest))
    if scheme.lower() != "bearer" or not fields.get("realm"):
        return None
    return Challenge(fields["realm"], fields.get("service", ""), fields.get("scope", ""))


def token_url(challenge: Challenge, origin: str, *, now_s: int, nonce: bytes) -> str:
    """Make the address of the token request.

    Args:
        origin: the address that was refused; the realm must be on its host, or a registry could have us sign for others.
        now_s: seconds since 1970.
        nonce: 16 random bytes.

    Raises:
        RegistryError: the realm is on another host.
    """
    realm, original = urlsplit(challenge.realm).netloc, urlsplit(origin).netloc
    if realm != original:
        raise RegistryError(f'realm host "{realm}" does not match original host "{original}"')
    query = [
        ("service", challenge.service),
        *(("scope", scope) for scope in challenge.scope.split(" ")),
        ("ts", str(now_s)),
        ("nonce", base64.urlsafe_b64encode(nonce).rstrip(b"=").decode()),
    ]
    # Go writes a query in the order of its keys. The registry signs what it gets, so any order does.
    return f"{challenge.realm}{'&' if '?' in challenge.realm else '?'}{urlencode(sorted(query))}"


@attrs.frozen
class Identity:
    """The ed25519 key of this installation."""

    _key: Ed25519PrivateKey
    public: str
    """The base64 body of the OpenSSH public key."""

    @classmethod
    def load(cls, home: Path) -> Identity:
        """Read `id_ed25519` in olm's home; make it, and `id_ed25519.pub`, if it is not there. Blocking.

        Raises:
            RegistryError: it cannot be read or written, or is no ed25519 key.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization as forms
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        path = home / _KEY_FILE
        try:
            if not path.exists():
                _make_key(path)
            key = forms.load_ssh_private_key(path.read_bytes(), None)
        except OSError as exc:
            reason = os.strerror(exc.errno or 0).lower()
            raise RegistryError(f"cannot use the key {path}: {reason}") from exc
        except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
            raise RegistryError(f"cannot use the key {path}: {exc}") from exc
        if not isinstance(key, Ed25519PrivateKey):
            raise RegistryError(f"cannot use the key {path}: it is no ed25519 key")
        line = key.public_key().public_bytes(forms.Encoding.OpenSSH, forms.PublicFormat.OpenSSH)
        return cls(key, line.split()[1].decode())

    def authorization(self, method: str, url: str) -> str:
        """The `Authorization` header of a token request without a body."""
        signature = self._key.sign(f"{method},{url},{_EMPTY_HASH}".encode())
        return f"{self.public}:{base64.b64encode(signature).decode()}"


def _make_key(path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        forms.Encoding.PEM, forms.PrivateFormat.OpenSSH, forms.NoEncryption()
    )
    public = key.public_key().public_bytes(forms.Encoding.OpenSSH, forms.PublicFormat.OpenSSH)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temp = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(private)
        file.flush()
        os.fsync(file.fileno())
    # Linked, not renamed: of two that make a key at once, the second takes the first one's.
    with suppress(FileExistsError):
        os.link(temp, path)
        path.with_name(f"{path.name}.pub").write_bytes(public + b"\n")
    temp.unlink()
