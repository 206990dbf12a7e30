"""One repository of a registry, asked over HTTP: its manifest, and any bytes of its blobs.

Follows redirects itself, so that a token goes to nobody but the registry. Which bytes to ask for, when to try again and
where they go is the caller's business.
"""

from __future__ import annotations

import platform
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import attrs
import msgspec
import trio

from olm import __version__
from olm.errors import InvalidRequest
from olm.outbound import ConnectionBroke, open_client, outbound_errors
from olm.registry.auth import Identity, parse_challenge, token_url
from olm.registry.errors import RangesIgnored, RegistryError, TryAgain
from olm.store.names import Digest, ModelName

if TYPE_CHECKING:
    import httpx2

__all__ = ["USER_AGENT", "Place", "Registry", "base_url", "failure_of", "open_registry"]

_OLLAMA: Final = "0.33.0"
"""Registries compare it: ollama.com refuses models that need a newer one."""
USER_AGENT: Final = (
    f"ollama/{_OLLAMA} ({platform.machine()} {platform.system().lower()}) olm/{__version__}"
)
_ACCEPT: Final = "application/vnd.docker.distribution.manifest.v2+json"
_MAX_MANIFEST_BYTES: Final = 4 << 20
_MAX_ERROR_BYTES: Final = 4096
_MAX_REDIRECTS: Final = 10
_MAX_RETRY_AFTER_S: Final = 60.0
_ANSWER_S: Final = 60.0
"""How long a registry may take for the head of an answer, and for a manifest or a token as a whole."""
_MAY_PASS: Final = frozenset((408, 425, 429, 500, 502, 503, 504))


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""


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
        home: olm's home, where its key is; read at the first challenge only.
    """
    async with open_client(USER_AGENT) as client:
        yield Registry(client, base, home)


class Registry:
    """One repository. Its tasks share one token and, for each blob, the address that redirects led to."""

    def __init__(self, client: httpx2.AsyncClient, base: str, home: Path) -> None:
        self._client = client
        self._base = base
        self._home = home
        self._token = ""
        self._signing_in = trio.Lock()
        self._direct: dict[Digest, str] = {}

    async def manifest(self, tag: str) -> bytes:
        """Fetch a manifest, as the registry wrote it.

        Raises:
            RegistryError: `file does not exist`, `unauthorized: access denied`, `<status>: <body>`, or no answer.
        """
        url = f"{self._base}/manifests/{tag}"
        with trio.move_on_after(_ANSWER_S):
            async with self._open(url, {"Accept": _ACCEPT}) as answer:
                return await _read(answer, _MAX_MANIFEST_BYTES)
        raise TryAgain(f"GET {url}: no answer within {_ANSWER_S:.0f} s")

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
        first = f"{self._base}/blobs/{digest}"
        url = self._direct.get(digest, first)
        headers = {} if span is None else {"Range": f"bytes={span[0]}-{span[1] - 1}"}
        try:
            async with self._open(url, headers) as answer:
                if span is not None and answer.status_code != 206:
                    raise RangesIgnored(f"{urlsplit(url).netloc} sends whole files only")
                if span is not None and not _starts_at(answer, span[0]):
                    raise RegistryError(f"GET {url}: other bytes than those asked for")
                if (final := str(answer.url)) != first:
                    self._direct[digest] = final
                async with _pieces(answer) as pieces:
                    yield pieces
        except RegistryError as exc:
            if "http_status" in exc.details:
                self._direct.pop(digest, None)  # its signature may have expired: ask again
            raise

    async def locate(self, digest: Digest) -> Place:
        """Find out where a blob's bytes are, signing in and following redirects; its first byte is asked for.

        For those who then ask there themselves (`olm.registry.fetch`). Raises TryAgain, RegistryError.
        """
        url = self._direct.get(digest, f"{self._base}/blobs/{digest}")
        try:
            async with self._open(url, {"Range": "bytes=0-0"}) as answer:
                found, has_ranges = str(answer.url), answer.status_code == 206
        except RegistryError:
            self.forget(digest)
            raise
        self._direct[digest] = found
        is_elsewhere = not _same_origin(found, self._base)
        token = "" if is_elsewhere else self._token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return Place(found, headers, has_ranges, is_elsewhere)

    def forget(self, digest: Digest) -> None:
        """Ask the registry again next time: the address it redirected to may have expired."""
        self._direct.pop(digest, None)

    @asynccontextmanager
    async def _open(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[httpx2.Response]:
        """Send a GET, sign in if asked to, follow redirects, and refuse what is no success."""
        n_redirects, signed_in = 0, False
        while True:
            token = self._token if _same_origin(url, self._base) else ""
            sent = {**headers, **({"Authorization": f"Bearer {token}"} if token else {})}
            answer = await self._send(url, sent)
            try:
                if answer.is_redirect and "location" in answer.headers:
                    n_redirects += 1
                    if n_redirects > _MAX_REDIRECTS:
                        raise RegistryError(f"GET {url}: more than {_MAX_REDIRECTS} redirects")
                    url = _redirected(answer)
                    continue
                if answer.status_code == 401 and _same_origin(url, self._base):
                    if signed_in:
                        raise RegistryError("unauthorized: access denied")
                    signed_in = True
                    await self._sign_in(answer, token)
                    continue
                if not answer.is_success:
                    raise await _failure(answer, elsewhere=not _same_origin(url, self._base))
                yield answer
                return
            finally:
                with trio.move_on_after(1, shield=True), outbound_errors("close"):
                    await answer.aclose()

    async def _send(self, url: str, headers: Mapping[str, str]) -> httpx2.Response:
        what = f"GET {_shown(url)}"
        try:
            with outbound_errors(what), trio.move_on_after(_ANSWER_S):
                request = self._client.build_request("GET", url, headers=dict(headers))
                return await self._client.send(request, stream=True)
        except ConnectionBroke as exc:
            raise TryAgain(exc.message) from exc
        raise TryAgain(f"{what}: no answer within {_ANSWER_S:.0f} s")

    async def _sign_in(self, refused: httpx2.Response, used: str) -> None:
        """Get a token, unless another task has got one since the refused request was sent."""
        challenge = parse_challenge(refused.headers.get("www-authenticate", ""))
        if challenge is None:
            raise RegistryError("unauthorized: access denied")
        async with self._signing_in:
            if self._token != used:
                return
            identity = await trio.to_thread.run_sync(Identity.load, self._home)
            nonce = secrets.token_bytes(16)
            url = token_url(challenge, str(refused.url), now_s=int(time.time()), nonce=nonce)
            answer = await self._send(url, {"Authorization": identity.authorization("GET", url)})
            try:
                if not answer.is_success:
                    raise await _failure(answer)
                data = await _read(answer, _MAX_MANIFEST_BYTES)
            finally:
                with trio.move_on_after(1, shield=True):
                    await answer.aclose()
            try:
                token = msgspec.json.decode(data, type=_Token)
            except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
                raise RegistryError(f"the registry's token cannot be read: {exc}") from exc
            self._token = token.token or token.access_token


class _Pieces:
    """The body of an answer, as it comes in."""

    def __init__(self, answer: httpx2.Response) -> None:
        self._what = f"GET {_shown(str(answer.url))}"
        self._raw = answer.aiter_raw()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            with outbound_errors(self._what):
                return await self._raw.__anext__()
        except ConnectionBroke as exc:
            raise TryAgain(exc.message) from exc

    async def end(self) -> None:
        """Let the library's nested generators end by themselves: one that is only dropped makes trio complain."""
        with trio.CancelScope(shield=True) as scope, suppress(TryAgain):
            scope.cancel("the rest is not wanted")
            async for _ in self:
                pass


@asynccontextmanager
async def _pieces(answer: httpx2.Response) -> AsyncIterator[AsyncIterator[bytes]]:
    pieces = _Pieces(answer)
    try:
        yield pieces
    finally:
        await pieces.end()


async def _read(answer: httpx2.Response, limit_bytes: int) -> bytes:
    data = await _read_some(answer, limit_bytes + 1)
    if len(data) > limit_bytes:
        raise RegistryError(f"GET {answer.url}: an answer of more than {limit_bytes} bytes")
    return data


async def _read_some(answer: httpx2.Response, limit_bytes: int) -> bytes:
    data = bytearray()
    async with _pieces(answer) as pieces:
        async for piece in pieces:
            data += piece
            if len(data) >= limit_bytes:
                break
    return bytes(data[:limit_bytes])


async def _failure(answer: httpx2.Response, *, elsewhere: bool = False) -> RegistryError:
    """The error of an answer that is no success, in Ollama's words; `elsewhere` a new redirect may help."""
    body = await _read_some(answer, _MAX_ERROR_BYTES)
    return failure_of(answer.status_code, answer.headers, body, elsewhere=elsewhere)


def failure_of(
    status: int, headers: Mapping[str, str], body: bytes, *, elsewhere: bool
) -> RegistryError:
    """Make the error of an answer that is no success, of its status, headers and the beginning of its body."""
    if status == 404 and not elsewhere:
        return RegistryError("file does not exist", http_status=status)
    message = f"{status}: {body[:_MAX_ERROR_BYTES].decode(errors='replace').strip()}"
    if status not in _MAY_PASS and not elsewhere:
        return RegistryError(message, http_status=status)
    retry_after_s = _retry_after_s(headers.get("retry-after", ""))
    return TryAgain(message, http_status=status, retry_after_s=retry_after_s)


def _retry_after_s(text: str) -> float:
    """Seconds, or a date, as RFC 9110 §10.2.3 has it; 0 when there is none that can be read."""
    try:
        wait_s = (
            float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
        )
    except (ValueError, TypeError):
        return 0.0
    return min(max(wait_s, 0.0), _MAX_RETRY_AFTER_S)


def _starts_at(answer: httpx2.Response, start: int) -> bool:
    return bool(answer.headers.get("content-range", "").startswith(f"bytes {start}-"))


def _redirected(answer: httpx2.Response) -> str:
    with outbound_errors("redirect"):
        url = answer.url.join(answer.headers["location"])
    if answer.url.scheme == "https" and url.scheme != "https":
        raise RegistryError(f"{answer.url.host} redirects to a place without TLS")
    return str(url)


def _same_origin(url: str, other: str) -> bool:
    return urlsplit(url)[:2] == urlsplit(other)[:2]


def _shown(url: str) -> str:
    """An address without its query, which may hold a signature."""
    return url.partition("?")[0]
