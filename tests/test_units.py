"""Units: Go durations, keep-alives, sizes, ages and stamps as Ollama writes them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olm.errors import InvalidRequest
from olm.units import (
    format_duration,
    human_bytes,
    human_number,
    human_time,
    parse_bytes,
    parse_duration,
    parse_keep_alive,
    rfc3339,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h30m", 5400),
        ("-1m", -60),
        ("0", 0),
        ("+5s", 5),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("100ms", 0.1),
        ("2us", 2e-6),
        ("1ns", 1e-9),
        ("3µs", 3e-6),
    ],
)
def test_go_durations(text: str, seconds: float) -> None:
    """Every unit, sign and fraction that Go's ParseDuration knows."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("5", 'time: missing unit in duration "5"'),
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        ("5x", 'time: unknown unit "x" in duration "5x"'),
        ("h", 'time: invalid duration "h"'),
        ("99999999999h", 'time: invalid duration "99999999999h"'),
    ],
)
def test_bad_durations_in_gos_words(text: str, words: str) -> None:
    """Clients show these texts, so they are Go's."""
    with pytest.raises(InvalidRequest) as caught:
        parse_duration(text)

    assert str(caught.value) == words


@given(st.integers(0, 10**15))
def test_durations_survive_a_round_trip(microseconds: int) -> None:
    """What is written is read back."""
    assert parse_duration(format_duration(microseconds / 1e6)) == pytest.approx(
        microseconds / 1e6, abs=1e-6
    )


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (5, 5.0),
        (0, 0.0),
        (1.5, 1.5),
        (-1, math.inf),
        ("-1m", math.inf),
        ("10m", 600.0),
        ("0", 0.0),
    ],
)
def test_keep_alive_forms(value: object, seconds: float | None) -> None:
    """Numbers are seconds, strings durations, negative is for ever, absent is None."""
    assert parse_keep_alive(value) == seconds


@pytest.mark.parametrize(
    ("value", "words"), [(True, "bool"), ([1], "[]interface {}"), ({}, "map[string]interface {}")]
)
def test_keep_alive_of_another_type_is_named_as_go_does(value: object, words: str) -> None:
    """The text quotes the Go type."""
    with pytest.raises(InvalidRequest, match="Unsupported type: '") as caught:
        parse_keep_alive(value)

    assert str(caught.value) == f"Unsupported type: '{words}'"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (300, "5m0s"),
        (3600, "1h0m0s"),
        (1.5, "1.5s"),
        (0.25, "250ms"),
        (0, "0s"),
        (-60, "-1m0s"),
        (2e-6, "2µs"),
    ],
)
def test_durations_are_written_as_go_does(seconds: float, text: str) -> None:
    """Duration.String, unit by unit."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (1500, "1.5 KB"),
        (12_345, "12 KB"),
        (4_700_000_000, "4.7 GB"),
        (2 * 10**12, "2 TB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    """Decimal units, a fraction only below ten."""
    assert human_bytes(size) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (7_000_000_000, "7B"),
        (1_200_000_000, "1.2B"),
        (2_361_408, "2.36M"),
        (500_500_000, "500.50M"),
        (1_000, "1K"),
        (12, "12"),
    ],
)
def test_parameter_counts(count: int, text: str) -> None:
    """As `parameter_size` shows them."""
    assert human_number(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-0.5, "Less than a second ago"),
        (-30, "30 seconds ago"),
        (-61, "About a minute ago"),
        (240, "4 minutes from now"),
        (-3700, "About an hour ago"),
        (-3 * 86400, "3 days ago"),
        (-15 * 86400, "2 weeks ago"),
        (-100 * 86400, "3 months ago"),
        (-800 * 86400, "2 years ago"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    """Ages and times to come in words."""
    assert human_time(seconds) == text


def test_stamps_are_rfc3339_with_nanoseconds() -> None:
    """UTC with Z, trailing zeros dropped, as Go's RFC3339Nano."""
    assert rfc3339(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456789Z"
    assert rfc3339(1_700_000_000_500_000_000) == "2023-11-14T22:13:20.5Z"
    assert rfc3339(1_700_000_000_000_000_000) == "2023-11-14T22:13:20Z"


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1500", 1500), ("10MB", 10_000_000), ("1.5 GiB", 1_610_612_736), ("2k", 2000)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1XB", "MB", "1e9"])
def test_bad_sizes_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid size"):
        parse_bytes(text)
