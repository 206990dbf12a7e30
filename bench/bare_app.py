#!/usr/bin/env python3
"""The least that hypercorn can serve: one ASGI application with one answer, as a measure for what olm adds to it.

    python bench/bare_app.py 127.0.0.1:8000 trio

Run by web.py. The answer has the size of `/api/version`'s; hypercorn's options are its own defaults but for the number
of requests a connection may make, without which it closes each after 1,000.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from hypercorn.config import Config

__all__ = ["app", "main"]

_BODY: Final = b'{"version":"0.32.1"}'
_HEADERS: Final = [
    (b"content-type", b"application/json; charset=utf-8"),
    (b"content-length", str(len(_BODY)).encode()),
]

_Message = MutableMapping[str, Any]


async def app(
    scope: _Message,
    receive: Callable[[], Awaitable[_Message]],
    send: Callable[[_Message], Awaitable[None]],
) -> None:
    """Answer every HTTP request alike; accept the start and end of the server's life."""
    if scope["type"] == "lifespan":
        for _ in range(2):
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


def main() -> None:
    """Serve until SIGTERM."""
    config = Config()
    config.bind = [sys.argv[1]]
    config.keep_alive_max_requests = 1 << 62
    if sys.argv[2] == "trio":
        import trio
        from hypercorn.trio import serve as serve_trio

        trio.run(serve_trio, app, config)
    else:
        import asyncio

        from hypercorn.asyncio import serve as serve_asyncio

        asyncio.run(serve_asyncio(app, config))


if __name__ == "__main__":
    main()
