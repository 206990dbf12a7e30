"""Who may talk to the daemon from a browser: the Host rule against DNS rebinding, and CORS. Pure.

Source of the rules: Ollama's allowedHostsMiddleware and its use of gin-contrib/cors (spec/ollama §1.1, commit
fb30760). Beyond it: the private-network preflight of browsers is answered for allowed origins (spec/security T15).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

import attrs

from olm.config import Address

__all__ = ["Guard", "Verdict", "is_loopback"]

_LOCAL_SUFFIXES: Final = (".localhost", ".local", ".internal")
_METHODS: Final = b"GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
_STAINLESS: Final = (
    "Arch",
    "Async",
    "Custom-Poll-Interval",
    "Helper-Method",
    "Lang",
    "Os",
    "Package-Version",
    "Poll-Helper",
    "Retry-Count",
    "Runtime",
    "Runtime-Version",
    "Timeout",
)
_OURS: Final = (
    "X-Api-Key",
    "Anthropic-Version",
    "Anthropic-Beta",
    "Anthropic-Dangerous-Direct-Browser-Access",
    "X-Request-Id",
)
"""Beyond Ollama's: what Anthropic's SDK sends from a browser, and our request ids."""
_ALLOWED_HEADERS: Final = ",".join(
    (
        "Authorization",
        "Content-Type",
        "User-Agent",
        "Accept",
        "X-Requested-With",
        "Openai-Beta",
        *(f"X-Stainless-{name}" for name in _STAINLESS),
        *_OURS,
    )
).encode()
_MAX_AGE_S: Final = b"43200"
_EXTENSIONS: Final = (
    "chrome-extension://",
    "safari-extension://",
    "moz-extension://",
    "ms-browser-extension://",
)


def is_loopback(address: Address) -> bool:
    """Whether an address is reachable from this machine only, over TCP."""
    if address.unix_path is not None:
        return False
    if address.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return False


def _default_origins() -> list[str]:
    origins = []
    for host in ("localhost", "127.0.0.1", "0.0.0.0"):
        for scheme in ("http", "https"):
            origins += [f"{scheme}://{host}", f"{scheme}://{host}:*"]
    return [*origins, "app://*", "file://*", "tauri://*", "vscode-webview://*", "vscode-file://*"]


@attrs.frozen
class Verdict:
    """What the guard says of one request.

    Attributes:
        status: 0 to let it through, else answer with this status and no body.
        headers: to add to the answer, whatever it is.
    """

    status: int = 0
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Guard:
    """The rules of one server.

    Args:
        origins: further allowed origins, `*` as a wildcard.
        check_host: the listener is bound to a loopback address, so the Host must be local.
        hostname: this machine's name.
        is_own_ip: says whether an IP address belongs to this machine.
    """

    def __init__(
        self,
        origins: Iterable[str] = (),
        *,
        check_host: bool,
        hostname: str | None = None,
        is_own_ip: Callable[[str], bool] | None = None,
    ) -> None:
        patterns = [*origins, *_default_origins()]
        self._any_origin = "*" in patterns
        self._origins = re.compile("|".join(_wildcard(pattern) for pattern in patterns))
        self._check_host = check_host
        self._hostname = (hostname or socket.gethostname()).lower()
        self._is_own_ip = is_own_ip or _is_own_ip

    def judge(self, method: str, headers: Mapping[bytes, bytes], host: str) -> Verdict:
        """Decide on a request by its method, its headers (lower-case names) and its Host with port."""
        cors = self._cors(method, headers, host)
        if cors.status:
            return cors
        if self._check_host and not self.is_allowed_host(_strip_port(host)):
            return Verdict(403, cors.headers)
        if self._check_host and method == "OPTIONS":
            return Verdict(204, cors.headers)
        return cors

    def _cors(self, method: str, headers: Mapping[bytes, bytes], host: str) -> Verdict:
        origin = headers.get(b"origin", b"").decode("latin1")
        if not origin or origin in (f"http://{host}", f"https://{host}"):
            return Verdict()
        if not self.is_allowed_origin(origin):
            return Verdict(403)
        allowed = (
            b"access-control-allow-origin",
            b"*" if self._any_origin else origin.encode("latin1"),
        )
        if method != "OPTIONS":
            vary = () if self._any_origin else ((b"vary", b"Origin"),)
            return Verdict(0, (allowed, *vary))
        extra = [
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", _ALLOWED_HEADERS),
            (b"access-control-max-age", _MAX_AGE_S),
        ]
        if headers.get(b"access-control-request-private-network") == b"true":
            extra.append((b"access-control-allow-private-network", b"true"))
        if not self._any_origin:
            extra.append(
                (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
            )
        return Verdict(204, (allowed, *extra))

    def is_allowed_origin(self, origin: str) -> bool:
        """Whether pages of an origin may call this server."""
        if self._any_origin or origin.startswith(_EXTENSIONS):
            return True
        return self._origins.fullmatch(origin.lower()) is not None

    def names_us(self, host: str) -> bool:
        """Whether a Host, port and all, passes `is_allowed_host`; asked on every listener, checked or not."""
        return self.is_allowed_host(_strip_port(host))

    def is_allowed_host(self, host: str) -> bool:
        """Whether a Host without port names this machine and nothing a stranger's DNS could have pointed here."""
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            name = host.lower()
            return name in ("", "localhost", self._hostname) or name.endswith(_LOCAL_SUFFIXES)
        return ip.is_loopback or ip.is_private or ip.is_unspecified or self._is_own_ip(host)


def _wildcard(pattern: str) -> str:
    return ".*".join(re.escape(part) for part in pattern.lower().split("*"))


def _strip_port(host: str) -> str:
    if not host:
        return ""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return "\0"  # no name at all: never allowed


def _is_own_ip(ip: str) -> bool:
    """Only an address of this machine can be bound; nothing is sent."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((ip, 0))
    except OSError:
        return False
    return True
