"""https: certificates from files, new ones for new connections, and clients that speak something else."""

from __future__ import annotations

import json
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from kit.certificates import Files, make_certificate
from kit.fake_olm import FakeOlm, Until, answer
from kit.live_http import LiveServer, open_live_server, read_all
from kit.memory_http import settings_for_tests
from olm.api import connection, tls
from olm.api.tls import Certificates, certificates_of
from olm.chat.types import Done, Piece
from olm.config import Address
from olm.errors import OlmError

CHAT = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "x"}]}).encode()
VERSION = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
POST = (
    b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    % len(CHAT)
    + CHAT
)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_certificate(tmp_path_factory.mktemp("first"), "first")


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_certificate(tmp_path_factory.mktemp("second"), "second")


def certificates(files: Files) -> Certificates:
    return Certificates(files.cert, files.key)


@asynccontextmanager
async def connect(
    server: LiveServer, trusted: Files
) -> AsyncIterator[trio.SSLStream[trio.SocketStream]]:
    context = ssl.create_default_context(cafile=str(trusted.cert))
    async with await server.connect() as bare:
        stream = trio.SSLStream(bare, context, server_hostname="localhost", https_compatible=True)
        with trio.fail_after(5):
            await stream.do_handshake()
        yield stream


async def ask(server: LiveServer, trusted: Files, request: bytes) -> bytes:
    async with connect(server, trusted) as stream:
        await stream.send_all(request)
        return await read(stream)


async def read(stream: trio.SSLStream[trio.SocketStream]) -> bytes:
    data = bytearray()
    with trio.fail_after(5):
        try:
            while chunk := await stream.receive_some():
                data += chunk
        except trio.BrokenResourceError:
            pass  # closed without saying goodbye, as https may
    return bytes(data)


async def test_requests_and_streams_over_tls(first: Files) -> None:
    olm = FakeOlm()
    olm.models.script = [*[Piece(content=f"{i} ") for i in range(500)], Done("stop")]
    async with open_live_server(olm, certificates=certificates(first)) as server:
        version = await ask(server, first, VERSION)
        streamed = await ask(server, first, POST)

    assert version.startswith(b"HTTP/1.1 200")
    assert streamed.count(b'"done":false') == 500
    assert streamed.endswith(b"0\r\n\r\n")


async def test_a_new_certificate_is_for_new_connections(
    first: Files, second: Files, tmp_path: Path
) -> None:
    live = Files(tmp_path / "live.crt", tmp_path / "live.key")
    shutil.copy(first.cert, live.cert)
    shutil.copy(first.key, live.key)
    shown = certificates(live)
    olm = FakeOlm()
    gate = trio.Event()
    olm.models.script = [Piece(content="a"), Until(gate), *answer("b")]
    async with (
        open_live_server(olm, certificates=shown) as server,
        connect(server, first) as old,
    ):
        await old.send_all(POST)
        begun = bytes(await old.receive_some())
        shutil.copy(second.cert, live.cert)
        shutil.copy(second.key, live.key)
        shown.reload()
        answered = await ask(server, second, VERSION)
        with pytest.raises(trio.BrokenResourceError):
            await ask(server, first, VERSION)
        gate.set()
        rest = await read(old)

    assert answered.startswith(b"HTTP/1.1 200")
    assert b'"done":true' in begun + rest


async def test_a_bad_new_certificate_changes_nothing(
    first: Files, second: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live = Files(tmp_path / "live.crt", tmp_path / "live.key")
    shutil.copy(first.cert, live.cert)
    shutil.copy(first.key, live.key)
    shown = certificates(live)
    shutil.copy(second.cert, live.cert)  # and the key of the first
    async with open_live_server(certificates=shown) as server:
        shown.reload()
        assert (await ask(server, first, VERSION)).startswith(b"HTTP/1.1 200")

    assert "stays as it was" in caplog.text


async def test_http_to_the_port_of_https_is_told_so(first: Files) -> None:
    async with open_live_server(certificates=certificates(first)) as server:
        answered = await server.exchange(VERSION)

    head, _, body = answered.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body) == {
        "error": "this server speaks https: use a URL that begins with https://"
    }


@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x00\x05hello"])
async def test_handshakes_that_do_not_come_end(
    first: Files, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_TIMEOUT_S", 0.05)
    async with open_live_server(certificates=certificates(first)) as server:
        stream = await server.connect()
        if sent:
            await stream.send_all(sent)
        rest = await read_all(stream)
        await stream.aclose()
        answered = await ask(server, first, VERSION)

    assert not rest.startswith(b"HTTP/")
    assert answered.startswith(b"HTTP/1.1 200")


async def test_slow_heads_are_cut_off_under_tls_too(
    first: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.05)
    async with open_live_server(certificates=certificates(first)) as server:
        rest = await ask(server, first, b"GET / HT")

    assert rest == b""


async def test_a_client_that_stops_reading_under_tls_holds_up_nothing(first: Files) -> None:
    olm = FakeOlm()
    olm.models.script = [*[Piece(content="x" * 500)] * 100_000, Done("stop")]
    async with (
        open_live_server(olm, certificates=certificates(first)) as server,
        connect(server, first) as stalled,
    ):
        await stalled.send_all(POST)
        await stalled.receive_some(1)
        answered = await ask(server, first, VERSION)
        with trio.fail_after(5):
            await stalled.transport_stream.aclose()
            await olm.models.all_ended.wait()

    assert answered.startswith(b"HTTP/1.1 200")


async def test_urls_say_https_and_unix_sockets_stay_plain(first: Files, tmp_path: Path) -> None:
    path = str(tmp_path / "olm.sock")
    async with (
        open_live_server(
            address=Address("localhost", 0, unix_path=path), certificates=certificates(first)
        ),
        await trio.open_unix_socket(path) as stream,
    ):
        await stream.send_all(VERSION)
        answered = await read_all(stream)

    assert answered.startswith(b"HTTP/1.1 200")


def test_files_that_cannot_be_used_are_one_clear_line(
    first: Files, second: Files, tmp_path: Path
) -> None:
    with pytest.raises(OlmError, match="No such file"):
        Certificates(tmp_path / "no.crt", first.key)
    with pytest.raises(OlmError, match="cannot use the certificate"):
        Certificates(first.cert, second.key)
    with pytest.raises(OlmError, match="cannot use the certificate"):
        Certificates(first.key, first.key)


def test_half_a_configuration_is_refused(first: Files) -> None:
    base = settings_for_tests()

    assert certificates_of(base) is None
    with pytest.raises(OlmError, match="both OLM_TLS_CERT and OLM_TLS_KEY"):
        certificates_of(attrs.evolve(base, tls_cert=first.cert))
    with pytest.raises(OlmError, match="says https"):
        certificates_of(attrs.evolve(base, address=Address("127.0.0.1", 1, scheme="https")))
