"""Which proxy a request takes: Go's rules, which Ollama goes by."""

from __future__ import annotations

import pytest

from olm.errors import InvalidRequest
from olm.proxies import proxy_for

BOTH = {"HTTPS_PROXY": "http://secure:3128", "HTTP_PROXY": "http://plain:3128"}


@pytest.mark.parametrize(
    ("url", "environ", "proxy"),
    [
        ("https://a.example/x", {}, ""),
        ("https://a.example/x", BOTH, "http://secure:3128"),
        ("http://a.example/x", BOTH, "http://plain:3128"),
        ("https://a.example/x", {"https_proxy": "low:1"}, "http://low:1"),
        ("https://a.example/x", {"HTTPS_PROXY": "up:1", "https_proxy": "low:1"}, "http://up:1"),
        ("https://a.example/x", {"ALL_PROXY": "https://all:1"}, "https://all:1"),
        ("https://a.example/x", {"HTTPS_PROXY": "http://me:word@p:1"}, "http://me:word@p:1"),
        ("http://localhost:5000/x", BOTH, ""),
        ("http://127.0.0.9:5000/x", BOTH, ""),
        ("http://[::1]:5000/x", BOTH, ""),
    ],
)
def test_the_scheme_names_the_variable_and_this_machine_needs_none(
    url: str, environ: dict[str, str], proxy: str
) -> None:
    assert proxy_for(url, environ) == proxy


@pytest.mark.parametrize(
    ("rule", "host", "is_direct"),
    [
        ("*", "a.example", True),
        ("a.example", "a.example", True),
        ("a.example", "b.a.example", True),
        ("a.example", "ba.example", False),
        (".a.example", "b.a.example", True),
        (".a.example", "a.example", False),
        ("*.a.example", "b.a.example", True),
        ("A.Example", "a.example", True),
        ("other, a.example", "a.example", True),
        ("a.example:5000", "a.example:5000", True),
        ("a.example:5000", "a.example", False),
        ("a.example:443", "a.example", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "a.example", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:5000", "10.1.2.3:5000", True),
        ("10.1.2.3:5000", "10.1.2.3:5001", False),
        ("fd00::/8", "[fd12::1]", True),
        ("fd12::1", "[fd12::1]", True),
        ("1/2/3", "1.2.3.4", False),
        ("", "a.example", False),
        (",,", "a.example", False),
    ],
)
def test_no_proxy_excepts(rule: str, host: str, is_direct: bool) -> None:
    assert (proxy_for(f"https://{host}/x", {**BOTH, "NO_PROXY": rule}) == "") is is_direct


@pytest.mark.parametrize("value", ["socks5://p:1", "ftp://p", "http://"])
def test_a_proxy_of_another_kind_is_refused_without_its_password(value: str) -> None:
    with pytest.raises(InvalidRequest, match=r"cannot use the proxy .* of HTTPS_PROXY"):
        proxy_for("https://a.example", {"HTTPS_PROXY": value})
    with pytest.raises(InvalidRequest) as refused:
        proxy_for("https://a.example", {"HTTPS_PROXY": "socks5://me:secret@p:1"})

    assert "secret" not in str(refused.value)
