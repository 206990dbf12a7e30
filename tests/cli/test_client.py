"""The HTTP client against a real server on loopback and on a unix socket: errors, streams, uploads, addresses."""

from __future__ import annotations

import io
import os
import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.canned import Canned
from olm.cli.client import Client, Endpoint, ServerUnreachable, endpoint_from_environment
from olm.cli.http1 import ProtocolError
from olm.config import read_settings
from olm.errors import Busy, InvalidRequest, NotFound, NotYetSupported, OlmError

_HOSTS = st.sampled_from(
    ["127.0.0.1", "0.0.0.0", "Box", "a-b.local", "h", "-", "", "[::1]", "::1", "x y"]
)
_PORTS = st.sampled_from(["", ":1", ":8080", ":65535", ":65536", ":0", ":abc", ":+5", ": 7"])


def client_of(server: Canned) -> Client:
    return Client(Endpoint(port=server.port))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, InvalidRequest), (404, NotFound), (501, NotYetSupported), (503, Busy), (500, OlmError)],
)
def test_an_error_status_raises_the_servers_words(
    server: Canned, status: int, kind: type[OlmError]
) -> None:
    server.on("POST", "/api/show", {"error": "model 'x' not found"}, status)

    with pytest.raises(kind) as caught:
        client_of(server).call("POST", "/api/show", {"model": "x"})

    assert str(caught.value) == "model 'x' not found"
    assert caught.value.http_status == status


def test_an_error_line_in_a_stream_raises_after_what_came_before(server: Canned) -> None:
    server.on("POST", "/api/create", [{"status": "parsing GGUF"}, {"error": "unknown type"}])

    got = []
    with pytest.raises(OlmError, match="unknown type"):
        got.extend(client_of(server).stream("POST", "/api/create", {}))

    assert got == [{"status": "parsing GGUF"}]


def test_requests_carry_json_with_its_length(server: Canned) -> None:
    server.on("POST", "/api/copy", None)

    assert client_of(server).call("POST", "/api/copy", {"source": "ä", "destination": "b"}) == {}
    assert server.seen[0].json == {"source": "ä", "destination": "b"}


def test_closing_a_stream_closes_the_connection(server: Canned) -> None:
    server.on("POST", "/api/generate", [{"response": "a"}, None])

    with closing(client_of(server).stream("POST", "/api/generate", {})) as events:
        assert next(events) == {"response": "a"}

    assert server.gone.wait(5)


def test_nobody_at_the_address_says_how_to_start_a_server() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        with pytest.raises(ServerUnreachable, match="run 'olm serve' to start it"):
            Client(Endpoint(port=held.getsockname()[1])).call("GET", "/api/tags")


def test_an_answer_that_is_not_json_says_so(server: Canned) -> None:
    server.on("GET", "/api/tags", [1])

    with pytest.raises(ProtocolError, match="not an object"):
        client_of(server).call("GET", "/api/tags")


@pytest.mark.parametrize(("status", "there"), [(200, True), (404, False)])
def test_a_blob_is_asked_for_with_head(server: Canned, status: int, there: bool) -> None:
    server.on("HEAD", "/api/blobs/sha256:ab", None, status)

    assert client_of(server).exists("/api/blobs/sha256:ab") is there


def test_an_upload_sends_the_whole_file_and_tells_how_far_it_is(server: Canned) -> None:
    server.on("POST", "/api/blobs/sha256:ab", None, 201)
    content = os.urandom(3_000_000)
    sent: list[int] = []

    client_of(server).upload("/api/blobs/sha256:ab", io.BytesIO(content), len(content), sent.append)

    assert server.seen[0].body == content
    assert sent[-1] == len(content)
    assert sent == sorted(sent)


def test_an_upload_of_a_file_that_shrank_fails(server: Canned) -> None:
    with pytest.raises(OlmError, match="became shorter"):
        client_of(server).upload("/api/blobs/sha256:ab", io.BytesIO(b"abc"), 10, lambda _: None)


def test_a_refused_upload_gives_the_servers_reason() -> None:
    """The server answers and closes before it has read everything, as for a full disk."""
    size_bytes = 64 << 20  # more than any socket buffer holds, so that sending fails on the way
    reason = b'{"error":"no space left on device"}'
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(100)
                peer.sendall(
                    b"HTTP/1.1 507 X\r\nContent-Length: %d\r\n\r\n%s" % (len(reason), reason)
                )

        thread = threading.Thread(target=refuse)
        thread.start()
        try:
            with pytest.raises(OlmError, match="no space left"):
                Client(Endpoint(port=listener.getsockname()[1])).upload(
                    "/x", io.BytesIO(bytes(size_bytes)), size_bytes, lambda _: None
                )
        finally:
            thread.join()


def test_unix_sockets_work(tmp_path: Path) -> None:
    path = str(tmp_path / "olm.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(1000)
                peer.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"models":[]}')

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            assert Client(Endpoint(unix_path=path)).call("GET", "/api/tags") == {"models": []}
        finally:
            thread.join()


@given(_HOSTS, _PORTS, st.sampled_from(["", "http://", "https://", '"']))
def test_addresses_are_read_as_the_settings_read_them(host: str, port: str, scheme: str) -> None:
    """The short cut for plain values never disagrees with `olm.config`."""
    value = f"{scheme}{host}{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OLLAMA_HOST", raising=False)
        patch.setenv("OLM_HOST", value)
        address = read_settings({"OLM_HOST": value}).address

        endpoint = endpoint_from_environment()

    expected = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(
        address.host, address.host
    )
    assert (endpoint.host.lower(), endpoint.tls) == (expected.lower(), address.scheme == "https")
    assert endpoint.port == address.port


def test_the_defaults_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OLM_HOST", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)
    address = read_settings({}).address

    assert endpoint_from_environment() == Endpoint(address.host, address.port)


def test_olm_host_wins_over_ollama_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "a:1")
    assert endpoint_from_environment() == Endpoint("a", 1)

    monkeypatch.setenv("OLM_HOST", "unix:/run/olm.sock")
    assert endpoint_from_environment() == Endpoint(unix_path="/run/olm.sock")
