"""Requests to one repository of a registry: signed in, redirected, and refused in one form. What is asked is the caller's.

Follows redirects itself, so that a token goes to nobody but the registry.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import attrs
import msgspec
import trio

from olm.outbound import ConnectionBroke, outbound_errors
from olm.registry.auth import (
    Challenge,
    Identity,
    choose_proof,
    parse_challenge,
    signing_stamp,
    token_url,
)
from olm.registry.credentials import read_credentials
from olm.registry.errors import RegistryError, TryAgain

if TYPE_CHECKING:
    import httpx2

__all__ = [
    "Ask",
    "Body",
    "Session",
    "failure_of",
    "pieces_of",
    "read",
    "redirected",
    "same_origin",
    "shown",
]

_MAX_TOKEN_BYTES: Final = 1 << 20
_MAX_ERROR_BYTES: Final = 4096
_MAX_REDIRECTS: Final = 10
_MAX_RETRY_AFTER_S: Final = 60.0
_ANSWER_S: Final = 60.0
"""How long a registry may take for the head of an answer, and for a token as a whole."""
_MAY_PASS: Final = frozenset((408, 425, 429, 500, 502, 503, 504))
_REFUSED: Final = frozenset((400, 401, 403))

Body = Callable[[], AsyncIterable[bytes]]
"""Begins a body anew for each time it is sent: a 401 makes that twice."""


@attrs.frozen
class Ask:
    """A request. With a `body` its length belongs into the headers; `answer_s` bounds the time until the answer begins."""

    method: str
    url: str
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes | Body | None = None
    answer_s: float = _ANSWER_S

    @property
    def what(self) -> str:
        """The request in an error's words."""
        return f"{self.method} {shown(self.url)}"


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""


class Session:
    """The requests of one repository; they share what they are signed in with.

    Attributes:
        has_answered: whether the registry has ever said anything.
    """

    def __init__(self, client: httpx2.AsyncClient, base: str, home: Path) -> None:
        self._client = client
        self._base = base
        self._home = home
        self._authorization = ""
        self._scopes: dict[str, None] = {}
        self._signing_in = trio.Lock()
        self.has_answered = False

    def authorization_for(self, url: str) -> str:
        """The header to send along to an address; empty for other hosts than the registry's, or when there is none."""
        return self._authorization if same_origin(url, self._base) else ""

    @asynccontextmanager
    async def open(self, ask: Ask) -> AsyncIterator[httpx2.Response]:
        """Send a request; gives its answer when that is a success, or a redirect of something else than GET and HEAD.

        Raises:
            TryAgain: what may pass: no connection, no answer in time, an overloaded server.
            RegistryError: `file does not exist`, `unauthorized: access denied`, `<status>: <body>`.
        """
        n_redirects, signed_in = 0, False
        while True:
            used = self.authorization_for(ask.url)
            answer = await self._send(ask, {"Authorization": used} if used else {})
            try:
                if answer.is_redirect and "location" in answer.headers:
                    if ask.method not in ("GET", "HEAD"):
                        yield answer
                        return
                    n_redirects += 1
                    if n_redirects > _MAX_REDIRECTS:
                        raise RegistryError(f"{ask.what}: more than {_MAX_REDIRECTS} redirects")
                    ask = attrs.evolve(ask, url=redirected(answer))
                    continue
                if answer.status_code == 401 and same_origin(ask.url, self._base):
                    if signed_in:
                        raise RegistryError("unauthorized: access denied", http_status=401)
                    signed_in = True
                    await self._sign_in(answer, used)
                    continue
                if not answer.is_success:
                    raise await _failure(answer, elsewhere=not same_origin(ask.url, self._base))
                yield answer
                return
            finally:
                with trio.move_on_after(1, shield=True), outbound_errors("close"):
                    await answer.aclose()

    async def _send(self, ask: Ask, more: Mapping[str, str]) -> httpx2.Response:
        body = ask.body() if callable(ask.body) else ask.body
        try:
            with outbound_errors(ask.what), trio.move_on_after(ask.answer_s):
                request = self._client.build_request(
                    ask.method, ask.url, headers={**ask.headers, **more}, content=body
                )
                answer = await self._client.send(request, stream=True)
                self.has_answered = True
                return answer
        except ConnectionBroke as exc:
            raise TryAgain(exc.message, **exc.details) from exc
        raise TryAgain(f"{ask.what}: no answer within {ask.answer_s:.0f} s")

    async def _sign_in(self, refused: httpx2.Response, used: str) -> None:
        """Get what opens the door, unless another task has got it since the refused request was sent."""
        challenge = parse_challenge(", ".join(refused.headers.get_list("www-authenticate")))
        if challenge is None:
            raise RegistryError("unauthorized: access denied", http_status=401)
        async with self._signing_in:
            if self._authorization == used:
                self._authorization = await self._prove(challenge, str(refused.url))

    async def _prove(self, challenge: Challenge, origin: str) -> str:
        """The Authorization header that answers a challenge."""
        logins = await trio.to_thread.run_sync(read_credentials, self._home)
        if challenge.scheme == "basic":
            login = logins.find(urlsplit(origin).netloc)
            if login is None or not login.authorization:
                raise RegistryError("unauthorized: access denied", http_status=401)
            return login.authorization
        # A registry names the scope that one request needs. A push needs several; asking for all that were ever named keeps
        # tasks from taking each other's token away.
        self._scopes.update(dict.fromkeys(challenge.scope.split(" ")))
        proof, authorization = choose_proof(challenge, origin, logins)
        if proof == "login":
            return await self._token(token_url(challenge, self._scopes), authorization)
        identity = await trio.to_thread.run_sync(Identity.load, self._home)
        stamp = signing_stamp(int(time.time()), secrets.token_bytes(16))
        url = token_url(challenge, self._scopes, stamp=stamp)
        try:
            return await self._token(url, identity.authorization("GET", url))
        except RegistryError as exc:
            if exc.details.get("http_status") not in _REFUSED:
                raise
            refusal = exc
        try:
            # Other registries than Ollama's know no such signatures, and give tokens for public models to anybody.
            return await self._token(token_url(challenge, self._scopes), "")
        except RegistryError:
            raise RegistryError(refusal.message, **refusal.details) from refusal

    async def _token(self, url: str, authorization: str) -> str:
        headers = {"Authorization": authorization} if authorization else {}
        with trio.move_on_after(_ANSWER_S):
            answer = await self._send(Ask("GET", url), headers)
            try:
                if not answer.is_success:
                    raise await _failure(answer)
                data = await read(answer, _MAX_TOKEN_BYTES)
            finally:
                with trio.move_on_after(1, shield=True):
                    await answer.aclose()
            try:
                token = msgspec.json.decode(data, type=_Token)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
                raise RegistryError(f"the registry's token cannot be read: {exc}") from exc
            return f"Bearer {token.token or token.access_token}"
        raise TryAgain(f"GET {shown(url)}: no answer within {_ANSWER_S:.0f} s")


class _Pieces:
    """The body of an answer, as it comes in."""

    def __init__(self, answer: httpx2.Response) -> None:
        self._what = f"{answer.request.method} {shown(str(answer.url))}"
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
async def pieces_of(answer: httpx2.Response) -> AsyncIterator[AsyncIterator[bytes]]:
    """Give the body of an answer, as it comes in; raises TryAgain in between."""
    pieces = _Pieces(answer)
    try:
        yield pieces
    finally:
        await pieces.end()


async def read(answer: httpx2.Response, limit_bytes: int) -> bytes:
    """Read a small body whole. Raises TryAgain, RegistryError when it is larger."""
    data = await _read_some(answer, limit_bytes + 1)
    if len(data) > limit_bytes:
        raise RegistryError(f"GET {answer.url}: an answer of more than {limit_bytes} bytes")
    return data


async def _read_some(answer: httpx2.Response, limit_bytes: int) -> bytes:
    data = bytearray()
    async with pieces_of(answer) as pieces:
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


def redirected(answer: httpx2.Response) -> str:
    """Where a redirect leads. Raises RegistryError when it leaves TLS."""
    with outbound_errors("redirect"):
        url = answer.url.join(answer.headers["location"])
    if answer.url.scheme == "https" and url.scheme != "https":
        raise RegistryError(f"{answer.url.host} redirects to a place without TLS")
    return str(url)


def same_origin(url: str, other: str) -> bool:
    """Whether two addresses have scheme, host and port in common."""
    return urlsplit(url)[:2] == urlsplit(other)[:2]


def shown(url: str) -> str:
    """An address without its query, which may hold a signature."""
    return url.partition("?")[0]
