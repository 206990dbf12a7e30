"""How many clients there may be, who is turned away, and what an open listener logs."""

from __future__ import annotations

import logging
import resource
import socket
from pathlib import Path

import attrs
import pytest
import trio

from kit.fake_olm import FakeOlm
from kit.live_http import open_live_server, read_all
from kit.memory_http import settings_for_tests
from olm.api import connection, limits
from olm.api.app import create_app
from olm.api.limits import Crowd, client_of, crowd_of
from olm.api.serve import _warn_if_open
from olm.api.sockets import Listeners

VERSION = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ("local", "local"),
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_which_connections_are_one_clients(peer: str, client: str) -> None:
    assert client_of(peer) == client


def test_one_client_cannot_take_every_place() -> None:
    crowd = Crowd(max_all=10, max_each=2)

    assert [crowd.enter("2001:db8::1"), crowd.enter("2001:db8::2")] == [True, True]
    assert not crowd.enter("2001:db8::3")
    assert crowd.enter("203.0.113.9")
    crowd.leave("2001:db8::1")
    assert crowd.enter("2001:db8::3")


@pytest.mark.parametrize("peer", ["local", "127.0.0.1", "::1"])
def test_this_machine_is_bounded_by_the_whole_only(peer: str) -> None:
    crowd = Crowd(max_all=3, max_each=1)

    assert [crowd.enter(peer) for _ in range(4)] == [True, True, True, False]


def test_who_left_is_forgotten() -> None:
    crowd = Crowd(max_all=1000, max_each=1)

    for i in range(1000):
        assert crowd.enter(f"203.0.113.{i}")
        crowd.leave(f"203.0.113.{i}")

    assert not crowd._n_each


@pytest.mark.parametrize(
    ("n_files", "n_connections"),
    [(1024, 1024 - 256), (100, 64), (1 << 20, 8192), (resource.RLIM_INFINITY, 8192)],
)
def test_files_are_kept_for_other_things(
    n_files: int, n_connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits.resource, "getrlimit", lambda _which: (n_files, n_files))

    crowd = crowd_of(settings_for_tests())

    assert sum(crowd.enter("local") for _ in range(9000)) == n_connections


async def test_one_too_many_is_told_to_come_again() -> None:
    async with open_live_server(crowd=Crowd(max_all=2, max_each=2)) as server:
        held = [await server.connect() for _ in range(2)]
        await trio.testing.wait_all_tasks_blocked()
        refused = await server.exchange(VERSION)
        await held[0].aclose()
        await trio.testing.wait_all_tasks_blocked()
        served = await server.exchange(VERSION)
        await held[1].aclose()

    head, _, body = refused.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in head
    assert b"too many connections" in body
    assert served.startswith(b"HTTP/1.1 200")


async def test_a_flood_is_not_answered_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_LINGERING", 2)
    async with open_live_server(crowd=Crowd(max_all=0, max_each=0)) as server:
        clients = [await server.connect() for _ in range(5)]
        await trio.testing.wait_all_tasks_blocked()
        answers = []
        for client in clients:
            await client.send_eof()
            answers.append(await read_all(client))
            await client.aclose()

    assert sum(answer.startswith(b"HTTP/1.1 503") for answer in answers) == 2
    assert answers.count(b"") == 3


async def test_who_connects_and_says_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.05)
    async with open_live_server() as server, await server.connect() as stream:
        assert await read_all(stream) == b""


async def test_a_connection_may_be_idle_between_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.02)
    async with open_live_server() as server, await server.connect() as stream:
        await stream.send_all(VERSION.replace(b"Connection: close\r\n", b""))
        first = bytes(await stream.receive_some())
        with trio.move_on_after(0.06) as waited:
            await stream.receive_some()
        await stream.send_all(VERSION)
        second = await read_all(stream)

    assert waited.cancelled_caught
    assert first.startswith(b"HTTP/1.1 200")
    assert second.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("host", "require_keys", "warns"),
    [("0.0.0.0", False, True), ("127.0.0.1", False, False), ("0.0.0.0", True, False)],
)
def test_an_open_server_says_so(
    host: str, require_keys: bool, warns: bool, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    settings = attrs.evolve(
        settings_for_tests(), api_keys=tmp_path / "keys.json", require_keys=require_keys
    )
    api = create_app(FakeOlm().clients, settings)
    with socket.socket() as bound, caplog.at_level(logging.WARNING):
        bound.bind((host, 0))  # and never listening
        _warn_if_open(api, Listeners([bound], ["http://somewhere:1"]))

    assert ("http://somewhere:1 is open to everybody" in caplog.text) is warns
