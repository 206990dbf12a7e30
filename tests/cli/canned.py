"""A small HTTP server that speaks canned Ollama answers over loopback: the other side of the CLI tests."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import attrs

__all__ = ["Canned", "Json", "Run", "Seen", "handler"]

Json = dict[str, object]


@attrs.define
class Seen:
    """One request the server got."""

    method: str
    path: str
    body: bytes

    @property
    def json(self) -> Json:
        value: object = json.loads(self.body) if self.body else {}
        assert isinstance(value, dict)
        return value


@attrs.define
class Canned:
    """A server with answers by (method, path): a status and an object, or a list of lines to stream.

    `product` is what its Server header says. A line of `None` in a stream holds it open until the client goes.
    """

    port: int = 0
    answers: dict[tuple[str, str], tuple[int, object]] = attrs.field(factory=dict)
    seen: list[Seen] = attrs.field(factory=list)
    product: str = ""
    holding: threading.Event = attrs.field(factory=threading.Event)
    gone: threading.Event = attrs.field(factory=threading.Event)

    def on(self, method: str, path: str, answer: object, status: int = 200) -> None:
        self.answers[method, path] = (status, answer)

    def bodies(self, path: str) -> list[Json]:
        return [seen.json for seen in self.seen if seen.path == path]


def handler(canned: Canned) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            canned.seen.append(Seen(self.command, self.path, body))
            status, answer = canned.answers.get(
                (self.command, self.path), (404, {"error": f"no answer for {self.path}"})
            )
            self.close_connection = True
            if isinstance(answer, list):
                self._stream(status, answer)
                return
            raw = b"" if answer is None else json.dumps(answer).encode()
            self.send_response_only(status)
            if canned.product:
                self.send_header("Server", canned.product)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(raw)

        def _stream(self, status: int, lines: list[object]) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/x-ndjson")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for line in lines:
                if line is None:
                    self._hold()
                    return
                raw = json.dumps(line).encode() + b"\n"
                try:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
                except OSError:
                    canned.gone.set()
                    return
            self.wfile.write(b"0\r\n\r\n")

        def _hold(self) -> None:
            """Wait for the client to close its end, as one does that stops an answer."""
            canned.holding.set()
            if self.rfile.read(1) == b"":
                canned.gone.set()

        do_GET = do_POST = do_HEAD = do_DELETE = _answer  # noqa: N815

    return Handler


Run = Callable[..., "subprocess.CompletedProcess[str]"]
