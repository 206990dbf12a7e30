"""Host and CORS rules, as tables."""

from __future__ import annotations

import pytest

from olm.api.guards import Guard, is_loopback
from olm.config import Address

HOST = "localhost:11434"


def make_guard(*origins: str, check_host: bool = True) -> Guard:
    return Guard(
        origins,
        check_host=check_host,
        hostname="Workbench",
        is_own_ip=lambda ip: ip == "203.0.113.7",
    )


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:11434", 0),
        ("LOCALHOST", 0),
        ("", 0),
        ("127.0.0.1:11434", 0),
        ("127.8.8.8", 0),
        ("[::1]:11434", 0),
        ("0.0.0.0", 0),
        ("192.168.1.20:80", 0),
        ("10.1.2.3", 0),
        ("203.0.113.7", 0),
        ("8.8.8.8", 403),
        ("[2001:4860:4860::8888]", 403),
        ("workbench:11434", 0),
        ("other", 403),
        ("olm.localhost", 0),
        ("olm.local", 0),
        ("host.docker.internal:11434", 0),
        ("evil.example.com", 403),
        ("localhost.evil.com", 403),
        ("local", 403),
        ("127.0.0.1.evil.com", 403),
        ("[::1", 403),
        ("a b", 403),
    ],
)
def test_host_must_be_local(host: str, status: int) -> None:
    assert make_guard().judge("GET", {}, host).status == status


def test_host_is_free_when_the_listener_is_not_loopback() -> None:
    guard = make_guard(check_host=False)

    assert guard.judge("GET", {}, "evil.example.com").status == 0
    assert guard.judge("OPTIONS", {}, "evil.example.com").status == 0  # then no route takes it: 405


def test_options_to_a_local_host_is_answered() -> None:
    assert make_guard().judge("OPTIONS", {}, HOST).status == 204


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost", True),
        ("https://localhost:3000", True),
        ("http://127.0.0.1:8080", True),
        ("http://0.0.0.0:1", True),
        ("HTTP://LOCALHOST:1", True),
        ("app://obsidian.md", True),
        ("file://", True),
        ("tauri://localhost", True),
        ("vscode-webview://abc", True),
        ("vscode-file://vscode-app", True),
        ("chrome-extension://abcdef", True),
        ("moz-extension://abcdef", True),
        ("https://chat.example.com", True),
        ("https://a.b.example.org", True),
        ("https://example.org", False),
        ("http://chat.example.com", False),
        ("https://evil.com", False),
        ("http://localhost.evil.com", False),
        ("http://localhostx:1", False),
        ("null", False),
    ],
)
def test_origins(origin: str, allowed: bool) -> None:
    guard = make_guard("https://chat.example.com", "https://*.example.org")

    verdict = guard.judge("GET", {b"origin": origin.encode()}, HOST)

    assert verdict.status == (0 if allowed else 403)
    headers = dict(verdict.headers)
    assert headers.get(b"access-control-allow-origin") == (origin.encode() if allowed else None)
    assert headers.get(b"vary") == (b"Origin" if allowed else None)


def test_the_same_origin_needs_no_cors() -> None:
    verdict = make_guard().judge("POST", {b"origin": b"http://olm.local:1"}, "olm.local:1")

    assert (verdict.status, verdict.headers) == (0, ())


def test_a_star_allows_every_origin_without_vary() -> None:
    verdict = make_guard("*").judge("GET", {b"origin": b"https://evil.com"}, HOST)

    assert verdict.status == 0
    assert verdict.headers == ((b"access-control-allow-origin", b"*"),)


def test_preflight_lists_methods_headers_and_the_private_network() -> None:
    headers = {
        b"origin": b"http://localhost:3000",
        b"access-control-request-method": b"POST",
        b"access-control-request-private-network": b"true",
    }

    verdict = make_guard().judge("OPTIONS", headers, HOST)

    found = dict(verdict.headers)
    assert verdict.status == 204
    assert found[b"access-control-allow-origin"] == b"http://localhost:3000"
    assert found[b"access-control-allow-methods"] == b"GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
    assert b"X-Stainless-Runtime-Version" in found[b"access-control-allow-headers"]
    for ours in (b"X-Api-Key", b"Anthropic-Version", b"Anthropic-Dangerous-Direct-Browser-Access"):
        assert ours in found[b"access-control-allow-headers"].split(b",")
    assert found[b"access-control-max-age"] == b"43200"
    assert found[b"access-control-allow-private-network"] == b"true"


def test_a_preflight_from_a_stranger_gets_nothing() -> None:
    verdict = make_guard().judge("OPTIONS", {b"origin": b"https://evil.com"}, HOST)

    assert (verdict.status, verdict.headers) == (403, ())


def test_a_local_page_cannot_use_a_strangers_name() -> None:
    """DNS rebinding: the browser thinks it is same-origin, so only the Host tells."""
    headers = {b"origin": b"http://rebound.example.com:11434"}

    assert make_guard().judge("POST", headers, "rebound.example.com:11434").status == 403


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        (Address("127.0.0.1", 1), True),
        (Address("::1", 1), True),
        (Address("localhost", 1), True),
        (Address("0.0.0.0", 1), False),
        (Address("::", 1), False),
        (Address("192.168.0.1", 1), False),
        (Address("example.com", 1), False),
        (Address("localhost", 0, unix_path="/x"), False),
    ],
)
def test_which_listeners_are_loopback(address: Address, loopback: bool) -> None:
    assert is_loopback(address) is loopback
