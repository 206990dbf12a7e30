"""The text stage: whole UTF-8, and stop strings that never leak a part of themselves."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from olm.native.lib import lib, take_text

pytestmark = pytest.mark.native


class Result(msgspec.Struct):
    """`stop`: the place of the stop string that was complete, -1 for none."""

    pieces: list[str]
    stopped: bool
    stop: int


def stage(chunks: list[bytes], stop: list[str]) -> Result:
    request = {"stop": stop, "chunks": [chunk.hex() for chunk in chunks]}
    answer = take_text(lambda out: lib.olm_test_text(msgspec.json.encode(request), out))
    return msgspec.json.decode(answer, type=Result)


def run(chunks: list[bytes], stop: list[str]) -> tuple[list[str], bool]:
    result = stage(chunks, stop)
    assert result.stopped == (result.stop >= 0)
    return result.pieces, result.stopped


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(ends)]


def expected(data: bytes, stops: list[str]) -> tuple[str, bool]:
    """Feed byte by byte: the stop that is complete first ends it; of two, the one that began earlier."""
    patterns = [stop.encode() for stop in stops if stop]
    for end in range(1, len(data) + 1):
        starts = [end - len(p) for p in patterns if data[:end].endswith(p)]
        if starts:
            return data[: min(starts)].decode("utf-8", "replace"), True
    return data.decode("utf-8", "replace"), False


small = st.text(alphabet="abé€😀", max_size=12)
stop_lists = st.lists(st.text(alphabet="abé€😀", max_size=4), max_size=3)
places = st.lists(st.integers(0, 100), max_size=8)


@given(small, stop_lists, places)
@example("abcd", ["bcd", "c"], [1, 2, 3])
@example("aab", ["ab"], [1, 2])
def test_stops_do_not_depend_on_how_the_bytes_are_cut(
    text: str, stops: list[str], at: list[int]
) -> None:
    pieces, stopped = run(cut(text.encode(), at), stops)

    assert ("".join(pieces), stopped) == expected(text.encode(), stops)


@given(st.binary(max_size=24), places)
@example(b"\xe2\x82A", [2])
@example(b"\xf0\x9f\x98", [1])
@example(b"\xed\xa0\x80\xc0\xaf", [1, 2, 3])
def test_bytes_that_are_no_text_become_replacement_characters(data: bytes, at: list[int]) -> None:
    pieces, _ = run(cut(data, at), [])

    assert "".join(pieces) == data.decode("utf-8", "replace")


@given(small, st.lists(st.text(alphabet="abé€😀", min_size=1, max_size=4), min_size=1, max_size=3))
@example("aa", ["ab"])
def test_what_is_shown_is_never_taken_back_by_a_stop(text: str, stops: list[str]) -> None:
    data = text.encode()
    pieces, _ = run([data], stops)
    shown = "".join(pieces[:-1])

    for stop in (stop.encode() for stop in stops):
        for n in range(len(stop)):
            if data.endswith(stop[:n]):
                assert expected(data + stop[n:], stops)[0].startswith(shown)


def test_a_character_is_held_until_it_is_whole() -> None:
    pieces, _ = run([b"\xf0\x9f", b"\x98", b"\x80!"], [])

    assert pieces == ["", "", "😀!", ""]


def test_what_began_like_a_stop_comes_out_at_the_end() -> None:
    pieces, stopped = run([b"one EN", b"D"], ["ENDING"])

    assert (pieces, stopped) == (["one ", "", "END"], False)


def test_an_empty_stop_stops_nothing() -> None:
    assert run([b"text"], [""]) == (["text", ""], False)


@pytest.mark.parametrize(
    ("stops", "place"),
    [
        (["END", "two"], 1),
        (["", "two", "END"], 1),
        (["o", "two"], 1),  # both are complete at once: the longer one, which began earlier
        (["two", "two"], 0),
        (["tw", "two"], 0),
        (["three"], -1),
    ],
)
@given(at=places)
def test_the_stop_string_that_ended_it_is_told(stops: list[str], place: int, at: list[int]) -> None:
    assert stage(cut(b"ne two END", at), stops).stop == place
