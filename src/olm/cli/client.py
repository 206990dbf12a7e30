"""The synchronous HTTP client of the daemon: JSON requests, NDJSON streams, blob uploads. The only module that talks HTTP.

Every failure is an `OlmError` with the server's own words, or `ServerUnreachable`. Ctrl-C anywhere raises
KeyboardInterrupt and closes the connection, which is how the server learns to stop. No printing here.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import IO, Final, NamedTuple

from olm import __version__
from olm.cli.http1 import (
    ProtocolError,
    ResponseHead,
    body_pieces,
    lines,
    read_head,
    request_head,
)
from olm.cli.wire import Json
from olm.errors import Busy, InvalidRequest, NotFound, NotYetSupported, OlmError

__all__ = ["Client", "Endpoint", "ServerUnreachable", "endpoint_from_environment"]

PRODUCT: Final = "olm/"
UPLOAD_PIECE: Final = 1 << 20
KEY_VARIABLE: Final = "OLM_API_KEY"
CA_VARIABLE: Final = "OLM_TLS_CA"
HOST_VARIABLES: Final = ("OLM_HOST", "OLLAMA_HOST")
_LOCAL: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_ERRORS: Final[dict[int, type[OlmError]]] = {
    400: InvalidRequest,
    404: NotFound,
    501: NotYetSupported,
    503: Busy,
}


class ServerUnreachable(OlmError):
    """Nothing answers at the server's address."""

    status = 503


class Endpoint(NamedTuple):  # not attrs: its import is a fifth of the start-up budget
    """Where the server is: a TCP address, or a unix socket when `unix_path` is set."""

    host: str = "127.0.0.1"
    port: int = 11434
    unix_path: str | None = None
    tls: bool = False


def endpoint_from_environment() -> Endpoint:
    """Read the server's address from OLM_HOST or OLLAMA_HOST.

    `olm.config` owns the rules, and importing it costs half of what `olm --version` may take. So the two cases that
    nearly always hold are answered here, nothing set and a plain `host:port`; a test holds them to its answers.
    """
    values = [value for name in HOST_VARIABLES if (value := os.environ.get(name, "").strip())]
    endpoint = _plain_endpoint(values[0]) if values else Endpoint()
    if endpoint is not None:
        return endpoint
    from olm.config import read_settings

    address = read_settings(
        {name: os.environ[name] for name in HOST_VARIABLES if name in os.environ}
    ).address
    if address.unix_path:
        return Endpoint(unix_path=address.unix_path)
    host, _, port = address.url.partition("://")[2].rpartition(":")
    return Endpoint(host.strip("[]"), int(port), tls=address.scheme == "https")


def _plain_endpoint(value: str) -> Endpoint | None:
    host, _, port = value.partition(":")
    is_name = host.replace(".", "").replace("-", "").isalnum() and host.isascii()
    if not (is_name and port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        return None
    return Endpoint("127.0.0.1" if host == "0.0.0.0" else host.lower(), int(port))


class Client:
    """One server. Each call opens its own connection, so a client holds nothing between calls.

    Args:
        endpoint: where the server is; by default what the environment says.
        patience_s: how long connecting and each read may take; None waits for ever, as loading a model may take
            minutes.
    """

    def __init__(
        self, endpoint: Endpoint | None = None, *, patience_s: float | None = None
    ) -> None:
        self.endpoint = endpoint or endpoint_from_environment()
        self._patience_s = patience_s
        self._api_key = _api_key()

    @property
    def where(self) -> str:
        """The server's address as people read it."""
        at = self.endpoint
        if at.unix_path:
            return f"unix:{at.unix_path}"
        host = f"[{at.host}]" if ":" in at.host else at.host
        return f"{'https' if at.tls else 'http'}://{host}:{at.port}"

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine, so that paths mean the same to both."""
        return bool(self.endpoint.unix_path) or self.endpoint.host in _LOCAL

    def call(self, method: str, path: str, body: Json | None = None) -> Json:
        """Send a request and decode its JSON object; an empty body decodes to an empty object.

        Raises:
            OlmError: the server answered with an error (its class follows the status, its text is the server's).
            ServerUnreachable: nobody answers.
        """
        with self._exchange(method, path, body) as (head, pieces):
            return _decode(b"".join(pieces), head)

    def stream(
        self, method: str, path: str, body: Json | None = None
    ) -> Generator[Json, None, None]:
        """Send a request and yield the objects of its NDJSON answer as they come.

        Close the generator (`contextlib.closing`) to stop early: that closes the connection, and the server stops.

        Raises:
            OlmError: an error status, or an `error` line in the stream.
        """
        with self._exchange(method, path, body) as (head, pieces):
            for line in lines(pieces):
                event = _decode(line, head)
                if "error" in event:
                    raise OlmError(_error_text(event["error"]) or "the server reports an error")
                yield event

    def server_version(self) -> str:
        """The version of the server: olm's own out of the `Server` header, else what /api/version says.

        olm answers /api/version with the version of Ollama whose behaviour it has, since Ollama's clients compare it.

        Raises:
            OlmError: nobody answers, or with an error.
        """
        with self._exchange("GET", "/api/version", None) as (head, pieces):
            product = head.headers.get("server", "").partition(" ")[0]
            if product.startswith(PRODUCT):
                return product.removeprefix(PRODUCT)
            version = _decode(b"".join(pieces), head).get("version")
            return version if isinstance(version, str) else ""

    def exists(self, path: str) -> bool:
        """Ask with HEAD whether something is there.

        Raises:
            OlmError: another answer than 200 or 404.
        """
        try:
            with self._exchange("HEAD", path, None):
                return True
        except NotFound:
            return False

    def upload(
        self, path: str, file: IO[bytes], size_bytes: int, on_sent: Callable[[int], None]
    ) -> None:
        """POST a file's content, telling `on_sent` the bytes sent so far.

        Raises:
            OlmError: the server refused it; its text says why (digest mismatch, disk full).
        """
        with self._exchange("POST", path, _Upload(file, size_bytes, on_sent)) as (_, pieces):
            for _piece in pieces:
                pass

    def download(self, path: str, body: Json) -> Generator[bytes, None, None]:
        """POST a request and yield the pieces of an answer that is no JSON.

        Raises:
            OlmError: an error status, or the answer was cut off.
        """
        with self._exchange("POST", path, body) as (_, pieces):
            yield from pieces

    def send_pieces(self, path: str, content_type: str, pieces: Iterator[bytes]) -> None:
        """POST a body whose length is not known before its end.

        Raises:
            OlmError: the server refused it.
        """
        with self._exchange("POST", path, _Pieces(content_type, pieces)) as (_, answer):
            for _piece in answer:
                pass

    @contextmanager
    def _exchange(
        self, method: str, path: str, body: Json | _Upload | _Pieces | None
    ) -> Iterator[tuple[ResponseHead, Iterator[bytes]]]:
        try:
            with self._connect() as sock, sock.makefile("rb") as file:
                self._send(sock, method, path, body)
                head = read_head(file)
                pieces = body_pieces(file, head, method=method)
                if head.status >= 400:
                    raise _status_error(head, b"".join(pieces))
                yield head, pieces
        except OSError as exc:
            raise ProtocolError(
                f"the connection to the olm server broke: {exc.strerror or exc}"
            ) from exc

    def _connect(self) -> socket.socket:
        where = self.endpoint
        try:
            if where.unix_path:
                sock = socket.socket(socket.AF_UNIX)
                try:
                    sock.settimeout(self._patience_s)
                    sock.connect(where.unix_path)
                except BaseException:
                    sock.close()
                    raise
                return sock
            sock = socket.create_connection((where.host, where.port), self._patience_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if where.tls:
                return _begin_tls(sock, where.host)
        except _NotTrusted as exc:
            raise ServerUnreachable(str(exc)) from exc
        except (OSError, UnicodeError) as exc:  # the latter for names that cannot be in the DNS
            raise ServerUnreachable(
                "could not connect to an olm server, run 'olm serve' to start it"
            ) from exc
        return sock

    def _send(
        self, sock: socket.socket, method: str, path: str, body: Json | _Upload | _Pieces | None
    ) -> None:
        host = self.endpoint.host
        if self.endpoint.unix_path:
            authority = "localhost"
        else:
            authority = f"{f'[{host}]' if ':' in host else host}:{self.endpoint.port}"
        headers = {
            "Host": authority,
            "User-Agent": f"{PRODUCT}{__version__}",
            "Accept": "application/x-ndjson, application/json",
            "Connection": "close",
        }
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        if isinstance(body, _Upload):
            headers |= {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(body.size_bytes),
            }
            sock.sendall(request_head(method, path, headers))
            body.send(sock)
            return
        if isinstance(body, _Pieces):
            headers |= {"Content-Type": body.content_type, "Transfer-Encoding": "chunked"}
            sock.sendall(request_head(method, path, headers))
            body.send(sock)
            return
        payload = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
        if payload:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(payload))}
        sock.sendall(request_head(method, path, headers) + payload)


class _NotTrusted(Exception):
    """TLS failed for a reason that the user can do something about."""


def _begin_tls(sock: socket.socket, host: str) -> socket.socket:
    import ssl  # 15 ms that plain http need not pay

    try:
        context = ssl.create_default_context(cafile=os.environ.get(CA_VARIABLE, "").strip() or None)
    except OSError as exc:
        sock.close()
        raise _NotTrusted(f"{CA_VARIABLE}: cannot read certificates: {exc}") from exc
    try:
        return context.wrap_socket(sock, server_hostname=host)
    except ssl.SSLCertVerificationError as exc:
        raise _NotTrusted(
            f"the certificate of {host} is not trusted: {exc.verify_message}; name those to trust in {CA_VARIABLE}"
        ) from exc


def _api_key() -> str:
    """The key of OLM_API_KEY. Not OLLAMA_API_KEY: that one is for a cloud, and no other server's business."""
    key = os.environ.get(KEY_VARIABLE, "").strip().strip("\"'").strip()
    if not (key.isascii() and key.isprintable()):
        raise InvalidRequest(f"{KEY_VARIABLE} is not a key: it has characters that no key has")
    return key


class _Upload(NamedTuple):
    file: IO[bytes]
    size_bytes: int
    on_sent: Callable[[int], None]

    def send(self, sock: socket.socket) -> None:
        """Send exactly the announced bytes; a server that answers early with an error ends the sending."""
        sent = 0
        while sent < self.size_bytes:
            piece = self.file.read(min(UPLOAD_PIECE, self.size_bytes - sent))
            if not piece:
                raise OlmError("the file became shorter while it was uploaded")
            try:
                sock.sendall(piece)
            except (BrokenPipeError, ConnectionResetError):
                return  # the server has said no before the end; its answer is still to be read
            sent += len(piece)
            self.on_sent(sent)


class _Pieces(NamedTuple):
    content_type: str
    pieces: Iterator[bytes]

    def send(self, sock: socket.socket) -> None:
        """Send them as chunks; a server that answers early with an error ends the sending."""
        try:
            for piece in self.pieces:
                sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            sock.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            return


def _decode(raw: bytes, head: ResponseHead) -> Json:
    if not raw.strip():
        return {}
    try:
        value: object = json.loads(raw)
    except ValueError as exc:
        kind = head.headers.get("content-type", "no content type")
        raise ProtocolError(
            f"the server answered with something that is not JSON ({kind}); is it an olm server?"
        ) from exc
    if not isinstance(value, dict):
        raise ProtocolError(
            "the server answered with JSON that is not an object; is it an olm server?"
        )
    return value


def _error_text(error: object) -> str:
    """Ollama's errors are strings; the OpenAI dialect's are objects with a message."""
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) else ""


def _status_error(head: ResponseHead, raw: bytes) -> OlmError:
    try:
        body: object = json.loads(raw)
    except ValueError:
        body = None
    message = _error_text(body.get("error")) if isinstance(body, dict) else ""
    if not message:
        message = raw.decode("utf-8", "replace").strip() or f"{head.status} {head.reason}".strip()
    kind = _ERRORS.get(head.status, OlmError)
    return kind(message, status=head.status)
