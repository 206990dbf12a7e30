"""https: the server's certificate, which can be read again while it runs, and the handshake of one connection.

Connections keep what they began with; new ones get what was read last. Requests are no business of this module.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Final

import trio

from olm.config import Settings
from olm.errors import InvalidRequest, OlmError
from olm.log import get_logger

__all__ = ["Certificates", "NotTls", "certificates_of", "handshake"]

HANDSHAKE_TIMEOUT_S: Final = 10.0
"""From the connection to the end of the handshake; over the slowest lines it takes two or three seconds."""

_HANDSHAKE_RECORD: Final = b"\x16"
"""First byte of every TLS client (RFC 8446 §5.1); no HTTP method begins so."""

_log = get_logger("tls")


class NotTls(Exception):
    """The client speaks something else, which most likely is http."""


class Certificates:
    """The certificate of a server.

    Args:
        cert: PEM, the server's own first, then those between it and the authority.
        key: PEM, without a password.

    Attributes:
        context: for new connections.

    Raises:
        OlmError: a file is missing or damaged, or the two do not belong together.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._cert = cert
        self._key = key
        self.context = _load(cert, key)

    def reload(self) -> None:
        """Read the files again; bad ones change nothing and are logged."""
        try:
            self.context = _load(self._cert, self._key)
        except OlmError as exc:
            _log.error("the certificate stays as it was: %s", exc)
            return
        _log.info("certificate read: %s", self._cert)


def certificates_of(settings: Settings) -> Certificates | None:
    """Read the certificate that the settings name; None for a server without TLS.

    Raises:
        OlmError: see `Certificates`; or one of the two files is not named; or the address says https and none is.
    """
    cert, key = settings.tls_cert, settings.tls_key
    if cert is not None and key is not None:
        return Certificates(cert, key)
    if cert is not None or key is not None:
        raise InvalidRequest("TLS needs both OLM_TLS_CERT and OLM_TLS_KEY")
    if settings.address.scheme == "https":
        raise InvalidRequest(
            "OLM_HOST says https: name a certificate in OLM_TLS_CERT and OLM_TLS_KEY"
        )
    return None


async def handshake(
    stream: trio.SocketStream, context: ssl.SSLContext
) -> trio.SSLStream[trio.SocketStream]:
    """Begin TLS on a new connection.

    Raises:
        NotTls: nothing has been read or written, so the client can be told in its own language.
        trio.BrokenResourceError: the handshake failed or the client left. trio.TooSlowError: it took too long.
    """
    with trio.fail_after(HANDSHAKE_TIMEOUT_S):
        first = await _peek(stream)
        if first not in (_HANDSHAKE_RECORD, b""):
            raise NotTls
        tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        await tls.do_handshake()
        return tls


async def _peek(stream: trio.SocketStream) -> bytes:
    """Look at the first byte and leave it there."""
    try:
        return await stream.socket.recv(1, socket.MSG_PEEK)
    except OSError as exc:
        raise trio.BrokenResourceError from exc


def _load(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a password of our own OpenSSL would ask for one on the terminal.
        context.load_cert_chain(cert, key, password="")
    except OSError as exc:  # what OpenSSL says is one too
        reason = exc.strerror or str(exc)
        raise InvalidRequest(
            f"cannot use the certificate {cert} with the key {key}: {reason}"
        ) from exc
    return context
