"""Listening sockets of our own making: TCP over IPv4 and IPv6, unix sockets, and those systemd hands over.

hypercorn would unlink a unix socket that a live server owns, and leaves its own behind; we ask first and clean up.
Nothing is served here.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import attrs

from olm.config import Address
from olm.errors import OlmError

__all__ = ["Listeners", "open_listeners"]

BACKLOG: Final = 2048
UNIX_MODE: Final = 0o600
"""Only the user who runs the daemon."""
STALL_MS: Final = 60_000
"""A client that takes nothing for so long is gone: the kernel ends the connection (TCP_USER_TIMEOUT)."""
KEEPALIVE_S: Final = 15
"""Idle time before the kernel asks whether the client's machine is still there (Go's default)."""


@attrs.frozen
class Listeners:
    """Bound, listening sockets.

    Attributes:
        urls: where each can be reached, e.g. `http://127.0.0.1:11434`, `unix:/run/olm.sock`.
        inherited: they belong to the service manager, which keeps them open for our successor.
    """

    sockets: Sequence[socket.socket]
    urls: Sequence[str]
    inherited: bool = False

    @property
    def is_exposed(self) -> bool:
        """Whether other machines may reach one of them."""
        return any(
            sock.family != socket.AF_UNIX
            and not ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback
            for sock in self.sockets
        )


@contextmanager
def open_listeners(
    address: Address, *, fds: Sequence[int] = (), unix_mode: int = UNIX_MODE, tls: bool = False
) -> Iterator[Listeners]:
    """Bind and listen; closes the sockets, and removes a unix socket, at the end of the block.

    Args:
        fds: listening sockets from socket activation; when there are any, `address` is not bound.
        unix_mode: permissions of a unix socket: who may connect.
        tls: TCP sockets will speak https, so their URLs say so.

    Raises:
        OlmError: one line saying what cannot be bound and why.
    """
    with ExitStack() as stack:
        if fds:
            sockets = [_adopt(fd) for fd in fds]
        elif address.unix_path is not None:
            sockets = [_bind_unix(Path(address.unix_path), unix_mode, stack)]
        else:
            sockets = [_bind_tcp(address)]
        for sock in sockets:
            stack.callback(sock.close)
        yield Listeners(
            sockets,
            [_url(sock, "https" if tls else "http") for sock in sockets],
            inherited=bool(fds),
        )


def _adopt(fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        _tune(sock)
    return sock


def _bind_tcp(address: Address) -> socket.socket:
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            address.host or "0.0.0.0",
            address.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )[0]
    except OSError as exc:
        raise OlmError(f"cannot listen on {address.host}: {exc.strerror or exc}") from exc
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # As in Go, `::` takes IPv4 clients too.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        _tune(sock)
        sock.bind(where)
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        raise _listen_error(f"{address.host}:{address.port}", exc) from exc
    return sock


def _listen_error(where: str, exc: OSError) -> OlmError:
    if exc.errno == errno.EADDRINUSE:
        return OlmError(
            f"cannot listen on {where}: address already in use (is olm or ollama running there already?)"
        )
    return OlmError(f"cannot listen on {where}: {exc.strerror}")


def _tune(sock: socket.socket) -> None:
    """Set options that accepted sockets inherit (on Linux)."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_USER_TIMEOUT", STALL_MS),
        ("TCP_KEEPIDLE", KEEPALIVE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_S),
    ):
        option = getattr(socket, name, None)  # not on every platform
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _bind_unix(path: Path, mode: int, stack: ExitStack) -> socket.socket:
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # Bound under a mask: between bind and chmod nobody else may connect.
        before = os.umask(0o777 & ~mode)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        raise _listen_error(f"unix:{path}", exc) from exc
    stack.callback(_unlink_own, path, path.stat().st_ino)
    return sock


def _remove_stale(path: Path) -> None:
    """Remove the socket of a server that is gone. Raises OlmError when it lives, or the path is something else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as exc:
        raise _listen_error(f"unix:{path}", exc) from exc
    if not stat.S_ISSOCK(mode):
        raise OlmError(f"cannot listen on unix:{path}: there is a file that is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as exc:
            raise _listen_error(f"unix:{path}", exc) from exc
    raise _listen_error(f"unix:{path}", OSError(errno.EADDRINUSE, "in use"))


def _unlink_own(path: Path, inode: int) -> None:
    """Remove our socket, unless another server has put its own there."""
    try:
        if path.lstat().st_ino == inode:
            path.unlink()
    except OSError:
        pass  # somebody removed it already; there is nothing left to clean


def _url(sock: socket.socket, scheme: str) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    host, port = name[0], name[1]
    return f"{scheme}://{f'[{host}]' if sock.family == socket.AF_INET6 else host}:{port}"
