"""The requests of an upload, as registries want them: begin or mount, a chunk, how far it came, the end.

When to send which, and what to do when one fails, is `olm.actors.sending`'s. The protocol is the OCI distribution
specification's (chunked upload), with what Ollama's registry does besides: it sends chunks elsewhere (spec/ollama §7.3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode, urlsplit

import attrs

from olm.errors import InvalidName
from olm.registry.client import Registry
from olm.registry.errors import RegistryError
from olm.registry.session import Ask, Body, redirected
from olm.store.names import Digest, ModelName

if TYPE_CHECKING:
    import httpx2

__all__ = ["Detour", "Spot", "Uploads", "mount_source", "received_bytes"]

_OCTETS: Final = {"Content-Type": "application/octet-stream"}


@attrs.frozen
class Spot:
    """Where an upload goes on, and how many bytes of it the registry says it has; None when it does not say."""

    url: str
    n_bytes: int | None = None


@attrs.frozen
class Detour:
    """The chunk is wanted at `target`, by PUT and without a token; the upload then goes on at `url`."""

    url: str
    target: str


@attrs.frozen
class Uploads:
    """The uploads of one repository. All methods raise TryAgain and RegistryError."""

    registry: Registry

    async def begin(self, digest: Digest, source: str) -> Spot | None:
        """Begin an upload; None when the registry took the blob from its repository `source` instead."""
        url = f"{self.registry.base}/blobs/uploads/"
        if source:
            fields = {"mount": str(digest), "from": source}
            try:
                return await self._post(f"{url}?{urlencode(fields)}")
            except RegistryError as exc:
                # One may push here and yet not read there.
                if exc.details.get("http_status") not in (401, 403, 404):
                    raise
        return await self._post(url)

    async def _post(self, url: str) -> Spot | None:
        ask = Ask("POST", url, {"Content-Length": "0"})
        async with self.registry.session.open(ask) as answer:
            if answer.status_code == 201:
                return None
            if answer.is_redirect:
                raise RegistryError(f"{ask.what}: {answer.status_code}: redirected")
            place = _location(answer)
            if not place:
                raise RegistryError(f"{ask.what}: the registry names no place for the upload")
            return Spot(place, 0)

    async def status(self, url: str) -> Spot:
        """Ask how far an upload came."""
        async with self.registry.session.open(Ask("GET", url)) as answer:
            n_bytes = received_bytes(answer.headers.get("range", ""))
            return Spot(_location(answer) or url, n_bytes or 0)

    async def send(self, url: str, span: tuple[int, int], body: Body) -> Spot | Detour:
        """Send the bytes of a span. The caller bounds the time."""
        headers = {
            **_OCTETS,
            "Content-Length": str(span[1] - span[0]),
            "Content-Range": f"{span[0]}-{span[1] - 1}",
            "X-Redirect-Uploads": "1",
        }
        async with self.registry.session.open(Ask("PATCH", url, headers, body, math.inf)) as answer:
            if answer.is_redirect:
                return Detour(
                    _location(answer, "docker-upload-location") or url, redirected(answer)
                )
            return Spot(_location(answer) or url, received_bytes(answer.headers.get("range", "")))

    async def put(self, detour: Detour, size_bytes: int, body: Body) -> None:
        """Bring a chunk to where the registry wants it. The caller bounds the time."""
        headers = {**_OCTETS, "Content-Length": str(size_bytes)}
        ask = Ask("PUT", detour.target, headers, body, math.inf)
        async with self.registry.session.open(ask) as answer:
            if answer.is_redirect:
                raise RegistryError(f"{ask.what}: {answer.status_code}: redirected")

    async def finish(self, url: str, digest: Digest, etag: str, answer_s: float) -> None:
        """End an upload: the registry compares the digest and has the blob from then on."""
        fields = {"digest": str(digest), **({"etag": etag} if etag else {})}
        address = f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(fields)}"
        headers = {**_OCTETS, "Content-Length": "0"}
        ask = Ask("PUT", address, headers, b"", answer_s)
        async with self.registry.session.open(ask) as answer:
            if answer.is_redirect:
                raise RegistryError(f"{ask.what}: {answer.status_code}: redirected")


def received_bytes(header: str) -> int | None:
    """How many bytes the `Range` of an answer speaks of; None when it says nothing that makes sense.

    It names the last byte, so nothing at all cannot be said; registries write `0-0` for it, as they do for one byte.
    """
    first, dash, last = header.strip().removeprefix("bytes=").partition("-")
    if not dash or first != "0" or not (last.isascii() and last.isdigit()):
        return None
    return int(last) + 1 if int(last) else 0


def mount_source(from_: str, target: ModelName) -> str:
    """The repository that a layer's `from` names, where it is one of the same registry and not the target; else empty."""
    if not from_:
        return ""
    try:
        source = ModelName.parse(from_)
    except InvalidName:
        return ""
    (host, *repository), (its_host, *its_repository) = source.folded[:3], target.folded[:3]
    if host != its_host or repository == its_repository:
        return ""
    return f"{source.namespace}/{source.model}"


def _location(answer: httpx2.Response, *names: str) -> str:
    """The place that an answer names; empty for none. TLS is kept where a registry behind a proxy forgets that it has it."""
    headers: Mapping[str, str] = answer.headers
    for name in names or ("docker-upload-location", "location"):
        if text := headers.get(name):
            url = answer.url.join(text)
            if url.scheme == "http" and answer.url.scheme == "https":
                if url.host != answer.url.host:
                    raise RegistryError(
                        f"{answer.url.host} wants the upload at a place without TLS"
                    )
                url = url.copy_with(scheme="https")
            return str(url)
    return ""
