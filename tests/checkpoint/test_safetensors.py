"""The safetensors reader: every type of element, rows as views, and every lie a header can tell."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from checkpoint.conftest import MapBytes
from checkpoint.made import WIDTHS, safetensors, safetensors_of
from olm.checkpoint import DTYPES
from olm.checkpoint.mapped import FlatTensor
from olm.checkpoint.safetensors import read_safetensors
from olm.errors import CheckpointError

ReadBytes = Callable[[bytes], Sequence[FlatTensor]]


@pytest.fixture
def read(map_bytes: MapBytes) -> ReadBytes:
    return lambda data: read_safetensors(map_bytes("a.safetensors", data))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pad", [8, 1])
def test_reads_rows_of_every_type(read: ReadBytes, dtype: str, pad: int) -> None:
    data = bytes(range(6 * WIDTHS[dtype]))
    (one,) = read(safetensors({"x" * pad: (dtype, [3, 2], data)}, pad))

    rows = one.read(1, 3)

    assert (one.shape, one.dtype, rows.shape) == ((3, 2), dtype, (2, 2))
    assert rows.dtype == DTYPES[dtype]
    assert rows.tobytes() == data[2 * WIDTHS[dtype] :]


def test_aligned_rows_are_views_that_cannot_be_written(read: ReadBytes) -> None:
    (one,) = read(safetensors({"x": ("F32", [2, 2], bytes(16))}))

    rows = one.read(0, 2)

    assert rows.base is not None
    assert not rows.flags.owndata
    assert not rows.flags.writeable


@pytest.mark.parametrize(
    ("shape", "rows", "row"),
    [([], 1, 1), ([4], 1, 4), ([2, 2], 2, 2), ([2, 1, 2], 2, 2), ([2, 2, 1], 4, 1)],
)
def test_a_tensor_is_a_matrix_of_its_last_dimension(
    read: ReadBytes, shape: list[int], rows: int, row: int
) -> None:
    data = np.arange(rows * row, dtype="<i4")
    (one,) = read(safetensors({"x": ("I32", shape, data.tobytes())}))

    assert np.array_equal(one.read(0, rows), data.reshape(rows, row))


@pytest.mark.parametrize("shape", [[0], [0, 5], [5, 0]])
def test_empty_tensors_have_empty_rows(read: ReadBytes, shape: list[int]) -> None:
    n_rows = shape[0] if len(shape) == 2 else 1
    (one,) = read(safetensors({"x": ("F32", shape, b"")}))

    assert one.read(0, n_rows).shape == (n_rows, shape[-1])


def test_tensors_come_in_the_order_of_their_offsets(read: ReadBytes) -> None:
    header = {
        "b": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]},
        "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
    }

    assert [one.name for one in read(safetensors_of(header, b"abc"))] == ["a", "b"]


def test_views_outlive_the_file(map_bytes: MapBytes) -> None:
    file = map_bytes("a", safetensors({"x": ("U8", [4], b"abcd")}))
    (one,) = read_safetensors(file)
    rows = one.read(0, 1)

    file.close()

    assert rows.tobytes() == b"abcd"


def test_a_file_that_shrinks_is_an_error_not_a_crash(tmp_path: Path, map_bytes: MapBytes) -> None:
    (one,) = read_safetensors(map_bytes("a", safetensors({"x": ("U8", [9000], bytes(9000))})))

    with (tmp_path / "a").open("r+b") as file:
        file.truncate(100)

    with pytest.raises(CheckpointError, match="has become shorter"):
        one.read(0, 1)


def entry(
    begin: object = 0, end: object = 4, dtype: object = "F32", shape: object = (1,)
) -> object:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


DEEP = b'{"x":' + b"[" * 100_000
LIES = {
    "empty file": (b"", "is truncated: 0 bytes"),
    "seven bytes": (bytes(7), "is truncated: 7 bytes"),
    "huge header": (struct.pack("<Q", 1 << 62), f"would have {1 << 62} bytes"),
    "header beyond the end": (struct.pack("<Q", 50) + b"{}", "ends inside its header"),
    "not JSON": (safetensors_of(b"{nonsense"), "is not valid JSON"),
    "not an object": (safetensors_of(b"[1]"), "no JSON object"),
    "not UTF-8": (safetensors_of(b'{"\xff":1}'), "not text in UTF-8"),
    "deep": (safetensors_of(DEEP), "nested too deep"),
    "many values": (safetensors_of(b"{" + b"," * (9 << 20)), "more than 8388608 values"),
    "NaN": (safetensors_of(b'{"x":NaN}'), "NaN is not a number"),
    "long number": (safetensors_of(b'{"x":' + b"9" * 9999 + b"}"), "is not valid JSON"),
    "a name twice": (
        safetensors_of(
            b'{"x":%s,"x":%s}' % (json.dumps(entry()).encode(), json.dumps(entry(4, 8)).encode()),
            bytes(8),
        ),
        "the name 'x' appears twice",
    ),
    "a key twice": (
        safetensors_of(b'{"x":{"dtype":"U8","dtype":"F32","shape":[],"data_offsets":[0,4]}}'),
        "'dtype' appears twice",
    ),
    "no entry": (safetensors_of({"x": 1}), "'x': its entry in the header is malformed"),
    "no dtype": (safetensors_of({"x": {"shape": [], "data_offsets": [0, 1]}}), "'x': its entry"),
    "negative": (safetensors_of({"x": entry(-4, 0)}), "'x': its entry"),
    "fraction": (safetensors_of({"x": entry(0, 4.0)}), "'x': its entry"),
    "true": (safetensors_of({"x": entry(False, 4, "F32", [True])}, bytes(4)), "'x': its entry"),
    "three offsets": (
        safetensors_of({"x": {"dtype": "U8", "shape": [], "data_offsets": [0, 1, 2]}}),
        "'x': its entry",
    ),
    "huge dimension": (safetensors_of({"x": entry(0, 0, "F32", [1 << 63, 0])}), "'x': its entry"),
    "many dimensions": (safetensors_of({"x": entry(0, 4, "F32", [1] * 17)}), "17 dimensions"),
    "huge product": (safetensors_of({"x": entry(0, 4, "F32", [1 << 62, 1 << 62])}), "too large"),
    "many empty rows": (safetensors_of({"x": entry(0, 0, "F32", [1 << 60, 0])}), "too large"),
    "unknown type": (
        safetensors_of({"x": entry(0, 8, "C64")}, bytes(8)),
        "'x': elements of the type 'C64' are not supported",
    ),
    "wrong size": (
        safetensors_of({"x": entry(0, 8)}, bytes(8)),
        r"'x': F32 of shape \[1\] takes 4 bytes, its offsets 0 to 8",
    ),
    "backwards": (safetensors_of({"x": entry(4, 0)}, bytes(4)), "its offsets 4 to 0"),
    "overlap": (
        safetensors_of({"x": entry(), "y": entry(2, 6)}, bytes(6)),
        "tensors 'x' and 'y' overlap",
    ),
    "gap": (
        safetensors_of({"x": entry(), "y": entry(5, 9)}, bytes(9)),
        "tensor 'y': 1 bytes before it belong to no tensor",
    ),
    "gap at the front": (safetensors_of({"x": entry(4, 8)}, bytes(8)), "'x': 4 bytes before it"),
    "truncated": (
        safetensors_of({"x": entry(), "y": entry(4, 8)}, bytes(7)),
        "is truncated: tensor 'y' ends at byte 8 of the data, which has 7",
    ),
    "bytes left over": (safetensors_of({"x": entry()}, bytes(9)), "5 bytes at its end"),
    "empty name": (safetensors_of({"": entry()}, bytes(4)), "cannot be a tensor's name"),
    "line end in a name": (safetensors_of({"a\nb": entry()}, bytes(4)), "cannot be a tensor's"),
    "half a character": (safetensors_of(b'{"\\ud800":1}'), r"'\\ud800' cannot be"),
    "long name": (safetensors_of({"x" * 2000: entry()}, bytes(4)), "cannot be a tensor's name"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_an_error_that_names_file_and_tensor(read: ReadBytes, lie: str) -> None:
    data, message = LIES[lie]

    with pytest.raises(CheckpointError, match=message) as caught:
        read(data)
    assert caught.value.message.startswith("a.safetensors: ")
    assert len(caught.value.message) < 500
