"""Proving to a registry who one is: the challenge, the signed token request, and the key in olm's home.

As Ollama does it (`server/auth.go`, `auth/auth.go`; spec/ollama §7.1), and as the distribution project has it for others
(its `spec/auth/token.md`). Pure but for `Identity.load`. Nothing here sends; that is `olm.registry.session`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlencode, urlsplit

import attrs

from olm.registry.credentials import Credentials
from olm.registry.errors import RegistryError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = [
    "Challenge",
    "Identity",
    "choose_proof",
    "parse_challenge",
    "signing_stamp",
    "token_url",
]

_FIELD: Final = re.compile(r'(\w+)="([^"]*)"')
_SCHEME: Final = re.compile(r"(?:^|,)\s*(bearer|basic)(?:\s|$)", re.IGNORECASE)
_EMPTY_HASH: Final = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()
_KEY_FILE: Final = "id_ed25519"

Proof = Literal["signature", "login"]
"""How a token is asked for: by a signature of olm's key, or by a name and password (or nothing) as Docker does."""


@attrs.frozen
class Challenge:
    """What a 401 asks for. `realm` is an address when `scheme` is bearer, and any text when it is basic."""

    realm: str
    service: str = ""
    scope: str = ""
    scheme: Literal["bearer", "basic"] = "bearer"


def parse_challenge(header: str) -> Challenge | None:
    """Read `WWW-Authenticate: Bearer realm="…",service="…",scope="…"` or `Basic realm="…"`; None when it is neither.

    Of several challenges, the first Bearer counts: whoever offers tokens means them to be used.
    """
    found: Challenge | None = None
    marks = list(_SCHEME.finditer(header))
    ends = [mark.start() for mark in marks[1:]] + [len(header)]
    for mark, end in zip(
        marks, ends, strict=False
    ):  # without a mark there is an end, and nothing before it
        rest = header[mark.end() : end]
        fields: Mapping[str, str] = dict(_FIELD.findall(rest))
        realm = fields.get("realm", "")
        if mark.group(1).lower() == "basic":
            found = found or Challenge(realm, scheme="basic")
        elif realm:
            return Challenge(realm, fields.get("service", ""), fields.get("scope", ""))
    return found


def choose_proof(challenge: Challenge, origin: str, logins: Credentials) -> tuple[Proof, str]:
    """Decide what is sent to the server that gives out tokens: how, and the Authorization header for a login.

    Whoever has a name and password for a host has them sent to that host (and port) and no other. The key signs for
    the registry itself only, as Ollama has it. So a registry that has its tokens given out elsewhere needs that place to be
    named among the logins, `{}` being enough; else it could have us ask any address of our network for a token.

    Args:
        origin: the address that was refused.

    Raises:
        RegistryError: the realm is on another host that nobody named, or has no TLS where the registry has.
    """
    realm, original = urlsplit(challenge.realm), urlsplit(origin)
    if realm.scheme not in ("http", "https") or (original.scheme, realm.scheme) == (
        "https",
        "http",
    ):
        raise RegistryError(
            f'the registry wants its tokens fetched from "{challenge.realm}", without TLS'
        )
    login = logins.find(realm.netloc)
    if realm.netloc != original.netloc:
        if login is None:
            raise RegistryError(
                f'realm host "{realm.netloc}" does not match original host "{original.netloc}"'
                f" (to allow it, name {realm.netloc} among the logins; see docs/store.md)"
            )
        return "login", login.authorization
    return ("signature", "") if login is None else ("login", login.authorization)


def token_url(
    challenge: Challenge, scopes: Iterable[str], *, stamp: Sequence[tuple[str, str]] = ()
) -> str:
    """Make the address of the token request.

    Args:
        scopes: one field each.
        stamp: further fields, see `signing_stamp`.
    """
    query = [("service", challenge.service), *(("scope", scope) for scope in scopes), *stamp]
    # Go writes a query in the order of its keys. The registry signs what it gets, so any order does.
    return f"{challenge.realm}{'&' if '?' in challenge.realm else '?'}{urlencode(sorted(query))}"


def signing_stamp(now_s: int, nonce: bytes) -> Sequence[tuple[str, str]]:
    """The fields that make a signature one of its own: seconds since 1970, and 16 random bytes."""
    encoded = base64.urlsafe_b64encode(nonce).rstrip(b"=").decode()
    return [("ts", str(now_s)), ("nonce", encoded)]


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
