"""A real OCI registry, Debian's `docker-registry`, on loopback: plain, with TLS, with passwords, with tokens.

Tokens come from a small server of ours on a port of its own, as the distribution project's `spec/auth/token.md` has it.
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import attrs
import httpx2
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from kit.certificates import Files
from kit.daemon import wait_until

__all__ = ["LOGIN", "PROGRAM", "DockerRegistry", "Mode", "run_docker_registry"]

Mode = Literal["plain", "tls", "basic", "token"]
# Installed, or where scripts/setup.sh unpacks it for the tests.
PROGRAM = shutil.which("docker-registry") or shutil.which(
    "docker-registry", path=str(Path(sys.prefix) / "tools" / "usr" / "bin")
)
LOGIN = ("me", "pass:word")
BASIC = "Basic " + base64.b64encode(":".join(LOGIN).encode()).decode()
# bcrypt of the password, as `htpasswd -nbB me pass:word` writes it.
_HTPASSWD = "me:$2y$05$abcdefghijklmnopqrstuuDIEddBSuRWBBEY6g5zv60IAP5bSSfki\n"


@attrs.frozen
class DockerRegistry:
    """A running registry.

    Attributes:
        host: host and port.
        folder: where it keeps its blobs.
        realm: host and port of its token server; empty without one.
        scopes: what tokens were asked for.
    """

    host: str
    folder: Path
    realm: str = ""
    scopes: list[str] = attrs.field(factory=list)


@contextmanager
def run_docker_registry(folder: Path, mode: Mode, files: Files) -> Iterator[DockerRegistry]:
    """Run a registry with nothing in it while the block runs; `files` is its certificate, and signs its tokens."""
    assert PROGRAM is not None, "tests that need it are skipped without it"
    folder.mkdir(parents=True)
    host = f"127.0.0.1:{_free_port()}"
    with ExitStack() as stack:
        config: dict[str, object] = {
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
            "http": {"addr": host},
        }
        scopes: list[str] = []
        realm = ""
        if mode == "tls":
            tls = {"certificate": str(files.cert), "key": str(files.key)}
            config["http"] = {"addr": host, "tls": tls}
        if mode == "basic":
            (folder / "htpasswd").write_text(_HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "r", "path": str(folder / "htpasswd")}}
        if mode == "token":
            realm = stack.enter_context(_run_token_server(files, scopes))
            config["auth"] = {
                "token": {
                    "realm": f"http://{realm}/token",
                    "service": "reg",
                    "issuer": "olm-tests",
                    "rootcertbundle": str(files.cert),
                }
            }
        stack.enter_context(_run(folder, config))
        scheme = "https" if mode == "tls" else "http"
        wait_until(partial(_answers, f"{scheme}://{host}/v2/", files), what="docker-registry")
        yield DockerRegistry(host, folder, realm, scopes)


@contextmanager
def _run(folder: Path, config: dict[str, object]) -> Iterator[None]:
    path = folder / "config.yml"
    path.write_text(json.dumps(config))  # which is YAML
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(PROGRAM), "serve", str(path)], stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _answers(url: str, files: Files) -> bool:
    try:
        context = ssl.create_default_context(cafile=files.cert)
        return httpx2.get(url, verify=context).status_code in (200, 401)
    except httpx2.TransportError:
        return False


@contextmanager
def _run_token_server(files: Files, scopes: list[str]) -> Iterator[str]:
    handler = partial(_TokenHandler, files, scopes)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class _TokenHandler(BaseHTTPRequestHandler):
    """Gives a token for all that is asked for to whoever knows the password, and none to others."""

    def __init__(self, files: Files, scopes: list[str], *rest: object) -> None:
        self._files = files
        self._scopes = scopes
        super().__init__(*rest)  # type: ignore[arg-type]  # what the server hands to any handler

    def do_GET(self) -> None:
        if self.headers.get("authorization") != BASIC:
            self.send_response(401)
            self.end_headers()
            return
        query = parse_qs(urlsplit(self.path).query)
        self._scopes += query.get("scope", [])
        body = json.dumps({"token": _token(self._files, query)}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        """Be quiet."""


def _token(files: Files, query: dict[str, list[str]]) -> str:
    """A JSON web token as distribution wants it: signed by the key of a certificate that it carries along."""
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    certificate = "".join(files.cert.read_text().splitlines()[1:-1])
    access = []
    for scope in query.get("scope", []):
        kind, name, actions = scope.split(":")
        access.append({"type": kind, "name": name, "actions": actions.split(",")})
    now = int(time.time())
    claims = {
        "iss": "olm-tests",
        "sub": "me",
        "aud": query["service"][0],
        "exp": now + 300,
        "nbf": now - 10,
        "iat": now,
        "jti": str(time.monotonic_ns()),
        "access": access,
    }
    head = {"typ": "JWT", "alg": "ES256", "x5c": [certificate]}
    signed = f"{_encoded(json.dumps(head).encode())}.{_encoded(json.dumps(claims).encode())}"
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{_encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
