"""One repository of a registry: its manifests, and any bytes of its blobs.

Which bytes to ask for, when to try again and where they go is the caller's business; requests themselves are
`olm.registry.session`'s, uploads `olm.registry.upload`'s.
"""

from __future__ import annotations

import platform
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import attrs
import trio

from olm import __version__
from olm.errors import InvalidRequest
from olm.outbound import open_client
from olm.registry.errors import RangesIgnored, RegistryError, TryAgain
from olm.registry.session import Ask, Session, failure_of, pieces_of, read, same_origin
from olm.store.manifests import MANIFEST_TYPE
from olm.store.names import Digest, ModelName

if TYPE_CHECKING:
    import httpx2

__all__ = [
    "USER_AGENT",
    "Place",
    "Registry",
    "base_url",
    "failure_of",
    "open_registry",
]

_OLLAMA: Final = "0.33.0"
"""Registries compare it: ollama.com refuses models that need a newer one."""
USER_AGENT: Final = (
    f"ollama/{_OLLAMA} ({platform.machine()} {platform.system().lower()}) olm/{__version__}"
)
_ACCEPT: Final = f"{MANIFEST_TYPE}, application/vnd.oci.image.manifest.v1+json"
"""Ollama asks for the first alone; other tools, and registries that convert, have the second."""
_MAX_MANIFEST_BYTES: Final = 4 << 20
_MANIFEST_S: Final = 60.0


@attrs.frozen
class Place:
    """Where the bytes of a blob are, after redirects, and what to send along; whether parts can be had.

    `is_elsewhere`: another host than the registry's, so a refusal may only mean that its address has expired.
    """

    url: str
    headers: Mapping[str, str]
    has_ranges: bool
    is_elsewhere: bool


def base_url(name: ModelName, *, insecure: bool) -> str:
    """The address of a model's repository. Raises InvalidRequest (`insecure protocol http`)."""
    if name.scheme == "http" and not insecure:
        raise InvalidRequest("insecure protocol http", status=500)
    scheme = "http" if insecure else "https"
    return f"{scheme}://{name.host}/v2/{name.namespace}/{name.model}"


@asynccontextmanager
async def open_registry(base: str, home: Path) -> AsyncIterator[Registry]:
    """Open a repository.

    Args:
        base: from `base_url`.
        home: olm's home, where its key and its logins are; read at a challenge only.
    """
    async with open_client(USER_AGENT) as client:
        yield Registry(client, base, home)


class Registry:
    """One repository. Its tasks share one sign-in and, for each blob, the address that redirects led to."""

    def __init__(self, client: httpx2.AsyncClient, base: str, home: Path) -> None:
        self.base = base
        self.session = Session(client, base, home)
        self._direct: dict[Digest, str] = {}

    async def manifest(self, tag: str) -> bytes:
        """Fetch a manifest, as the registry wrote it.

        Raises:
            RegistryError: `file does not exist`, `unauthorized: access denied`, `<status>: <body>`, or no answer.
        """
        ask = Ask("GET", f"{self.base}/manifests/{tag}", {"Accept": _ACCEPT})
        with trio.move_on_after(_MANIFEST_S):
            async with self.session.open(ask) as answer:
                return await read(answer, _MAX_MANIFEST_BYTES)
        raise TryAgain(f"{ask.what}: no answer within {_MANIFEST_S:.0f} s")

    async def put_manifest(self, tag: str, data: bytes, media_type: str) -> None:
        """Publish a manifest whose blobs are all there. Raises TryAgain, RegistryError."""
        ask = Ask("PUT", f"{self.base}/manifests/{tag}", {"Content-Type": media_type}, data)
        async with self.session.open(ask) as answer:
            if answer.is_redirect:
                raise RegistryError(f"{ask.what}: {answer.status_code}: redirected")

    async def has_blob(self, digest: Digest, size_bytes: int) -> bool:
        """Whether the repository has a blob, of this size where the registry tells it. Raises TryAgain, RegistryError."""
        try:
            async with self.session.open(Ask("HEAD", f"{self.base}/blobs/{digest}")) as answer:
                told = answer.headers.get("content-length", "")
                return not told.isdigit() or int(told) == size_bytes
        except RegistryError as exc:
            if exc.details.get("http_status") == 404:
                return False
            raise

    @asynccontextmanager
    async def blob(
        self, digest: Digest, span: tuple[int, int] | None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Ask for a span of a blob, or for all of it; gives the pieces as they come in.

        Raises:
            RangesIgnored: the server answers with the whole blob.
            TryAgain: the server has trouble, or the address that it redirected to is no longer good.
            RegistryError: anything else but bytes.
        """
        first = f"{self.base}/blobs/{digest}"
        url = self._direct.get(digest, first)
        headers = {} if span is None else {"Range": f"bytes={span[0]}-{span[1] - 1}"}
        try:
            async with self.session.open(Ask("GET", url, headers)) as answer:
                if span is not None and answer.status_code != 206:
                    raise RangesIgnored(f"{urlsplit(url).netloc} sends whole files only")
                if span is not None and not _starts_at(answer, span[0]):
                    raise RegistryError(f"GET {url}: other bytes than those asked for")
                if (final := str(answer.url)) != first:
                    self._direct[digest] = final
                async with pieces_of(answer) as pieces:
                    yield pieces
        except RegistryError as exc:
            if "http_status" in exc.details:
                self._direct.pop(digest, None)  # its signature may have expired: ask again
            raise

    async def locate(self, digest: Digest) -> Place:
        """Find out where a blob's bytes are, signing in and following redirects; its first byte is asked for.

        For those who then ask there themselves (`olm.registry.fetch`). Raises TryAgain, RegistryError.
        """
        url = self._direct.get(digest, f"{self.base}/blobs/{digest}")
        try:
            async with self.session.open(Ask("GET", url, {"Range": "bytes=0-0"})) as answer:
                found, has_ranges = str(answer.url), answer.status_code == 206
        except RegistryError:
            self.forget(digest)
            raise
        self._direct[digest] = found
        authorization = self.session.authorization_for(found)
        headers = {"Authorization": authorization} if authorization else {}
        return Place(found, headers, has_ranges, not same_origin(found, self.base))

    def forget(self, digest: Digest) -> None:
        """Ask the registry again next time: the address it redirected to may have expired."""
        self._direct.pop(digest, None)


def _starts_at(answer: httpx2.Response, start: int) -> bool:
    return bool(answer.headers.get("content-range", "").startswith(f"bytes {start}-"))
