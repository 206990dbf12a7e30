"""A registry that is nothing but fast: manifests and blobs from a folder, whole or in ranges, by sendfile(2).

    python bench/file_registry.py FOLDER

`FOLDER/manifest.json` is the manifest of every name, `FOLDER/sha256:<hex>` are the blobs. A thread for each connection,
which stays open; the bytes never pass through Python. For benchmarks on loopback only: it trusts its clients.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path
from typing import Final

__all__ = ["main"]

_MAX_HEAD_BYTES: Final = 1 << 16


def _head(connection: socket.socket) -> bytes:
    """The head of the next request; empty at the end. A client here never sends the next one too early."""
    data = b""
    while b"\r\n\r\n" not in data and len(data) < _MAX_HEAD_BYTES:
        piece = connection.recv(_MAX_HEAD_BYTES)
        if not piece:
            return b""
        data += piece
    return data


def _range(head: bytes, size_bytes: int) -> tuple[int, int] | None:
    """The first byte and the end of a `Range: bytes=a-b` or `bytes=a-`."""
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"range: bytes="):
            first, _, last = line.partition(b"=")[2].partition(b"-")
            return int(first), int(last) + 1 if last else size_bytes
    return None


def _send(connection: socket.socket, path: Path, head: bytes) -> None:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        span = _range(head, size)
        at, end = span or (0, size)
        lines = [f"HTTP/1.1 {206 if span else 200} OK", f"Content-Length: {end - at}"]
        if span:
            lines.append(f"Content-Range: bytes {at}-{end - 1}/{size}")
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        while at < end:
            at += os.sendfile(connection.fileno(), file.fileno(), at, end - at)


def _serve(connection: socket.socket, folder: Path) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        with connection:
            while head := _head(connection):
                target = head.split(b" ", 2)[1].decode()
                name = "manifest.json" if "/manifests/" in target else target.rpartition("/")[2]
                path = folder / name
                if path.is_file():
                    _send(connection, path, head)
                else:
                    connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    except OSError:
        return  # the client has had enough


def main() -> None:
    """Serve until killed; the first line of output is the address."""
    folder = Path(sys.argv[1])
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        host, port = listener.getsockname()
        print(f"{host}:{port}", flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection, folder), daemon=True).start()


if __name__ == "__main__":
    main()
