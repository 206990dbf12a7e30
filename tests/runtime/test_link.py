"""The framing between a process actor and its host, against an honest and a hostile other side."""

from __future__ import annotations

import socket

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from olm.actors.runtime.process import _frames as frames
from olm.actors.runtime.process._link import FrameTooLarge, Link, ProtocolError


def make_link(limit: int = 1000) -> tuple[Link[frames.FromChild], socket.socket]:
    ours, theirs = socket.socketpair()
    decoder = msgspec.msgpack.Decoder(frames.FromChild)
    return Link(ours, decoder, limit), theirs


def encode(frame: object) -> bytes:
    data = msgspec.msgpack.encode(frame)
    return len(data).to_bytes(4, "big") + data


FRAMES = [
    frames.Taken(3),
    frames.Value(7, msgspec.Raw(b"\x05")),
    frames.End(9, None),
    frames.End(9, frames.WireError("Busy", "later", {"retry_after_s": 3})),
    frames.Started(4, ["a:B"]),
    frames.Bye(finished=True),
]


@given(st.lists(st.integers(1, 100), max_size=10))
def test_frames_come_out_whole_however_they_are_cut(cuts: list[int]) -> None:
    data = b"".join(encode(frame) for frame in FRAMES)

    async def main() -> None:
        link, other = make_link()
        got: list[frames.FromChild] = []
        rest = data
        with other:
            for cut in [*cuts, len(data)]:
                other.sendall(rest[:cut])
                if rest[:cut]:
                    got += await link.read() or []
                rest = rest[cut:]
        assert got == FRAMES
        assert await link.read() is None
        link.close()

    trio.run(main)


@pytest.mark.parametrize(
    "data",
    [
        (2000).to_bytes(4, "big"),  # larger than the limit, said before it is sent
        (1).to_bytes(4, "big") + b"\xc1",  # no msgpack
        encode([99]),  # no such tag
        encode([]),
        encode([7, "three"]),  # a field of the wrong type
        encode({"a": 1}),
    ],
)
async def test_what_is_no_frame_is_a_protocol_error(data: bytes) -> None:
    link, other = make_link()
    with other:
        other.sendall(data)
        with pytest.raises(ProtocolError):
            await link.read()
    link.close()


async def test_frames_of_one_tick_go_out_with_one_send() -> None:
    link, other = make_link()
    with other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.write_forever)
            await trio.testing.wait_all_tasks_blocked()
            for frame in FRAMES:
                link.send(frame)
            await trio.testing.wait_all_tasks_blocked()
            assert other.recv(10_000) == b"".join(encode(frame) for frame in FRAMES)
            nursery.cancel_scope.cancel()
    link.close()


async def test_a_frame_over_the_limit_is_not_sent() -> None:
    link, other = make_link(limit=10)
    with other:
        with pytest.raises(FrameTooLarge):
            link.send(frames.Started(1, ["x" * 100]))
        with pytest.raises(TypeError):
            link.send(frames.Value(1, object()))
        link.send(frames.Pong())
        link.flush_nowait()
        assert other.recv(100) == encode(frames.Pong())
    link.close()


async def test_writing_waits_for_room_and_ends_when_the_other_side_is_gone() -> None:
    link, other = make_link(limit=10_000_000)
    link.send(frames.Started(1, ["x" * 5_000_000]))
    n_read = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.flush)
        nursery.start_soon(link.flush)
        await trio.testing.wait_all_tasks_blocked()
        other.setblocking(False)
        while n_read < 1_000_000:
            try:
                n_read += len(other.recv(65536))
            except BlockingIOError:
                await trio.testing.wait_all_tasks_blocked()
        other.close()
    assert link.is_broken
    link.send(frames.Pong())
    link.flush_nowait()
    link.close()


async def test_a_reset_is_the_end() -> None:
    link, other = make_link()
    link.send(frames.Pong())
    link.flush_nowait()
    other.close()  # with unread data: our side sees a reset
    assert await link.read() is None
    link.close()


def test_errors_cross_by_name() -> None:
    from olm.errors import Busy, MailboxFull

    error = frames.WireError.of(Busy("later", retry_after_s=3)).rebuild()
    assert type(error) is Busy
    assert error.details == {"retry_after_s": 3}
    assert type(frames.WireError.of(MailboxFull("full")).rebuild()) is MailboxFull
