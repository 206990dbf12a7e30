"""Vectors in Go's float32 form."""

from __future__ import annotations

import json
import struct
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olm.api.floats import float32_row
from olm.errors import InvalidRequest


def test_writes_the_shortest_digits() -> None:
    values = array("f", [0.01, -0.0017, 1.0, 0.0, 0.1, 16777216.0, 3.4e38, 1e-7, 1.5e-6, 1e21])

    row = float32_row(values)

    assert row == b"[0.01,-0.0017,1,0,0.1,16777216,3.4e+38,1e-7,0.0000015,1e+21]"


@settings(deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=20))
def test_reads_back_as_the_same_float32(values: list[float]) -> None:
    read = json.loads(float32_row(values), parse_int=float)

    assert [struct.pack("f", value) for value in read] == [struct.pack("f", v) for v in values]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_refuses_what_is_no_number(bad: float) -> None:
    with pytest.raises(InvalidRequest, match="embedding contains NaN or Inf values"):
        float32_row([0.5, bad])
