"""Which proxy a request goes through, by HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY. Pure.

The rules are those of Go's `golang.org/x/net/http/httpproxy`, which Ollama goes by, so that one environment does for
both; the HTTP library's own know no networks in NO_PROXY and would send requests to this machine through the proxy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from olm.errors import InvalidRequest

__all__ = ["proxy_for"]

_PORTS: Final = {"http": 80, "https": 443}
_KINDS: Final = ("http", "https")


def proxy_for(url: str, environ: Mapping[str, str]) -> str:
    """Give the address of the proxy for a request to `url`; empty for none.

    Raises:
        InvalidRequest: the variable names no proxy of a kind that olm can use.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    for name in (f"{parts.scheme.upper()}_PROXY", "ALL_PROXY"):
        value = (environ.get(name) or environ.get(name.lower()) or "").strip()
        if value:
            break
    else:
        return ""
    exceptions = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    if _is_here(host) or _is_excepted(host, parts.port or _PORTS[parts.scheme], exceptions):
        return ""
    proxy = value if "://" in value else f"http://{value}"
    kind = urlsplit(proxy)
    if kind.scheme not in _KINDS or not kind.hostname:
        shown = proxy.rpartition("@")[2]  # a password is for nobody's eyes
        raise InvalidRequest(
            f"cannot use the proxy {shown!r} of {name}: http:// or https:// is wanted"
        )
    return proxy


def _is_here(host: str) -> bool:
    address = _address(host)
    return host.lower() == "localhost" or (address is not None and address.is_loopback)


def _is_excepted(host: str, port: int, exceptions: str) -> bool:
    return any(_matches(rule.strip().lower(), host.lower(), port) for rule in exceptions.split(","))


def _matches(rule: str, host: str, port: int) -> bool:
    """One entry of NO_PROXY: `*`, a network, an address, `.domain` below it, `domain` with all below; a port narrows it."""
    if rule == "*":
        return True
    address = _address(host)
    if "/" in rule:
        try:
            return address is not None and address in ipaddress.ip_network(rule, strict=False)
        except ValueError:
            return False
    if _address(rule) is None:
        rule, colon, wanted = rule.rpartition(":") if ":" in rule else (rule, "", "")
        if colon and wanted != str(port):
            return False
    if not rule:
        return False
    named = _address(rule.strip("[]"))
    if named is not None:
        return named == address
    domain = rule.removeprefix("*")
    return host.endswith(domain if domain.startswith(".") else f".{domain}") or host == domain


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
