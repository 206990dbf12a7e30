"""The one place where olm makes an HTTP client for going out, and where that client's errors become olm's.

The library is imported when the first client is made. Proxies come from the usual environment variables
(`olm.proxies`), certificates from the system or from SSL_CERT_FILE and SSL_CERT_DIR.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

import trio

from olm.errors import InvalidRequest, OlmError

if TYPE_CHECKING:
    import ssl

    import httpx2

__all__ = ["ConnectionBroke", "make_blocking_client", "open_client", "outbound_errors"]

_CONNECT_S: Final = 30.0
_MAX_CONNECTIONS: Final = 64
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
"""What OpenSSL, of several versions, calls an answer in plain HTTP."""


class ConnectionBroke(OlmError):
    """A server could not be reached, which `is_unreached` in the details says, or its answer did not come to an end."""


@asynccontextmanager
async def open_client(user_agent: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Open a client. It follows no redirects, asks for no compression and bounds no read: callers do.

    Reading the system's certificates takes tens of milliseconds, so that happens in a thread.

    Raises:
        InvalidRequest: the certificates that the environment names cannot be read.
    """
    client = await trio.to_thread.run_sync(_make, user_agent)
    try:
        async with client:
            yield client
    finally:
        with trio.move_on_after(5, shield=True):
            await client.aclose()


def _make(user_agent: str) -> httpx2.AsyncClient:
    import httpx2

    from olm.outbound_routes import Routes

    _quieten()
    return httpx2.AsyncClient(
        headers=_headers(user_agent),
        timeout=httpx2.Timeout(None, connect=_CONNECT_S),
        transport=Routes(_certificates(), httpx2.Limits(max_connections=_MAX_CONNECTIONS)),
        follow_redirects=False,
        trust_env=False,  # what the environment says is read here and in Routes
    )


def make_blocking_client(user_agent: str) -> httpx2.Client:
    """Make the same client for threads; several may use it at once. Blocking; the caller closes it."""
    import httpx2

    from olm.outbound_routes import BlockingRoutes

    _quieten()
    return httpx2.Client(
        headers=_headers(user_agent),
        timeout=httpx2.Timeout(None, connect=_CONNECT_S),
        transport=BlockingRoutes(_certificates(), httpx2.Limits(max_connections=_MAX_CONNECTIONS)),
        follow_redirects=False,
        trust_env=False,
    )


def _certificates() -> ssl.SSLContext:
    import httpx2

    try:
        return httpx2.create_ssl_context()
    except OSError as exc:  # the errors of ssl are among them
        named = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR") or "the system"
        reason = exc.strerror or str(exc)
        raise InvalidRequest(
            f"cannot read the certificates of {named}: {reason}", status=500
        ) from exc


def _headers(user_agent: str) -> dict[str, str]:
    return {"User-Agent": user_agent, "Accept-Encoding": "identity"}


def _quieten() -> None:
    """The library logs a line for each request, with addresses that may hold signatures."""
    logging.getLogger("httpx2").setLevel(logging.WARNING)


@contextmanager
def outbound_errors(what: str) -> Iterator[None]:
    """Turn the library's errors into ConnectionBroke that says what was being asked ("GET https://…: …")."""
    import httpx2

    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as exc:
        message = f"{what}: {_reason(exc)}"
        if isinstance(exc, httpx2.ConnectError | httpx2.ConnectTimeout):
            raise ConnectionBroke(message, is_unreached=True) from exc
        raise ConnectionBroke(message) from exc


def _reason(exc: BaseException) -> str:
    """The words of an error, or of those behind it: what the system and TLS say is plainer than what the library does."""
    import socket
    import ssl

    text = ""
    for inner in _chain(exc):
        if isinstance(inner, ssl.SSLCertVerificationError):
            return f"the server's certificate is not trusted: {inner.verify_message}"
        if isinstance(inner, ssl.SSLError) and inner.reason in _NO_TLS:
            return "the server does not speak TLS; --insecure goes there without"
        if isinstance(inner, OSError) and inner.errno and not isinstance(inner, ssl.SSLError):
            is_name = isinstance(inner, socket.gaierror)
            return str(inner.strerror if is_name else os.strerror(inner.errno)).lower()
        text = text or str(inner)
    return text or type(exc).__name__


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """An error and what is behind it; of several addresses that were tried, the last one's."""
    inner: BaseException | None = exc
    while inner is not None:
        yield inner
        inner = inner.__cause__ or inner.__context__
        if isinstance(inner, BaseExceptionGroup):
            inner = inner.exceptions[-1]
