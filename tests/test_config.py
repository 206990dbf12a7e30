"""Settings from the environment: precedence, forms, errors, and the documents made from the table."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import pytest

from olm.config import Address, parse_host, read_settings
from olm.errors import InvalidRequest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1", "127.0.0.1", 11434),
        ("0.0.0.0:8080", "0.0.0.0", 8080),
        (":1234", "127.0.0.1", 1234),
        ("example", "example", 11434),
        ("http://example", "example", 80),
        ("https://example", "example", 443),
        ("https://example:99/path", "example", 99),
        ("::1", "::1", 11434),
        ("[::1]", "::1", 11434),
        ("[::1]:80", "::1", 80),
        ("1.2.3.4:notaport", "1.2.3.4", 11434),
        ("1.2.3.4:99999", "1.2.3.4", 11434),
    ],
)
def test_host_forms_of_ollama(text: str, host: str, port: int) -> None:
    """Every form of OLLAMA_HOST is read; an invalid port falls back to the default."""
    address = parse_host(text)

    assert (address.host, address.port) == (host, port)


def test_unix_socket_address() -> None:
    """`unix:/path` names a socket file."""
    assert parse_host("unix:/run/olm.sock").unix_path == "/run/olm.sock"


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (Address("0.0.0.0", 1), "http://127.0.0.1:1"),
        (Address("::", 1), "http://[::1]:1"),
        (Address("::1", 1), "http://[::1]:1"),
        (Address("h", 1, scheme="https"), "https://h:1"),
    ],
)
def test_client_url_of_an_address(address: Address, url: str) -> None:
    """A client reaches an unspecified address over loopback, and IPv6 in brackets."""
    assert address.url == url


def test_olm_wins_over_ollama() -> None:
    """Both prefixes are read; ours comes first; quotes and spaces are trimmed."""
    settings = read_settings(
        {"OLM_KEEP_ALIVE": " '10m' ", "OLLAMA_KEEP_ALIVE": "1m", "OLLAMA_MAX_QUEUE": "7"}
    )

    assert (settings.keep_alive_s, settings.max_queue) == (600.0, 7)


def test_our_own_variables_have_no_ollama_form() -> None:
    """A variable that Ollama does not know is not read under its prefix."""
    assert read_settings({"OLLAMA_DRAIN_TIMEOUT": "1s"}).drain_timeout_s == 30.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("-1", math.inf), ("-5m", math.inf), ("0", 0.0), ("90", 90.0), ("1h", 3600.0)],
)
def test_keep_alive_forms(text: str, seconds: float) -> None:
    """Bare numbers are seconds; anything negative is for ever."""
    assert read_settings({"OLM_KEEP_ALIVE": text}).keep_alive_s == seconds


def test_load_timeout_zero_is_for_ever() -> None:
    """Ollama's rule: no progress limit at zero."""
    assert read_settings({"OLM_LOAD_TIMEOUT": "0"}).load_timeout_s == math.inf


def test_models_live_under_home_unless_named() -> None:
    """OLM_HOME moves everything, OLLAMA_MODELS the models alone."""
    assert read_settings({"OLM_HOME": "/a"}).models == Path("/a/models")
    assert read_settings({"OLM_HOME": "/a", "OLLAMA_MODELS": "/b"}).models == Path("/b")


@pytest.mark.parametrize("name", ["OLM_MAX_QUEUE", "OLM_KEEP_ALIVE", "OLM_NUM_PARALLEL"])
def test_a_bad_value_names_its_variable(name: str) -> None:
    """Start-up fails with one clear line instead of a guess."""
    with pytest.raises(InvalidRequest, match=name):
        read_settings({name: "many"})


def test_configuration_document_is_current() -> None:
    """docs/configuration.md is what the table says."""
    script = runpy.run_path(str(ROOT / "scripts" / "write_config_docs.py"))

    assert (ROOT / "docs" / "configuration.md").read_text() == script["render"]()


def test_bounds_of_queues_and_of_patience_with_readers() -> None:
    """0 sets no bound of its own, and for times never."""
    plain = read_settings({})
    bounded = read_settings(
        {
            "OLM_MAX_QUEUE_PER_CLIENT": "5",
            "OLM_MAX_QUEUE_PER_MODEL": "7",
            "OLM_SLOW_READER": "0",
            "OLM_READER_TIMEOUT": "90s",
        }
    )

    assert (plain.max_queue_per_client, plain.max_queue_per_model) == (0, 0)
    assert (plain.slow_reader_s, plain.reader_timeout_s) == (60.0, 600.0)
    assert (bounded.max_queue_per_client, bounded.max_queue_per_model) == (5, 7)
    assert (bounded.slow_reader_s, bounded.reader_timeout_s) == (math.inf, 90.0)
