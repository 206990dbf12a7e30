"""The transports under olm's outgoing HTTP clients: each request goes straight or through the proxy that is its own.

Imports the HTTP library, so only `olm.outbound` imports this, and late.
"""

from __future__ import annotations

import os
import ssl
import threading

import attrs
import httpx2

from olm.proxies import proxy_for

__all__ = ["BlockingRoutes", "Routes"]


@attrs.frozen
class _Settings:
    context: ssl.SSLContext
    limits: httpx2.Limits


def _proxy_of(request: httpx2.Request) -> str:
    return proxy_for(str(request.url), os.environ)


class Routes(httpx2.AsyncBaseTransport):
    """Connections kept by way: none, or one proxy. The environment is read for each request."""

    def __init__(self, context: ssl.SSLContext, limits: httpx2.Limits) -> None:
        self._settings = _Settings(context, limits)
        self._ways: dict[str, httpx2.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request on its way. Raises InvalidRequest for a proxy that cannot be used, and the library's errors."""
        proxy = _proxy_of(request)
        if proxy not in self._ways:
            self._ways[proxy] = httpx2.AsyncHTTPTransport(
                verify=self._settings.context,
                limits=self._settings.limits,
                proxy=httpx2.Proxy(proxy) if proxy else None,
            )
        return await self._ways[proxy].handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        for way in self._ways.values():
            await way.aclose()


class BlockingRoutes(httpx2.BaseTransport):
    """The same for threads."""

    def __init__(self, context: ssl.SSLContext, limits: httpx2.Limits) -> None:
        self._settings = _Settings(context, limits)
        self._ways: dict[str, httpx2.HTTPTransport] = {}
        self._lock = threading.Lock()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """See `Routes.handle_async_request`."""
        proxy = _proxy_of(request)
        with self._lock:
            if proxy not in self._ways:
                self._ways[proxy] = httpx2.HTTPTransport(
                    verify=self._settings.context,
                    limits=self._settings.limits,
                    proxy=httpx2.Proxy(proxy) if proxy else None,
                )
            way = self._ways[proxy]
        return way.handle_request(request)

    def close(self) -> None:
        """Close all connections."""
        for way in self._ways.values():
            way.close()
