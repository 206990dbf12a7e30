"""Bits into numbers: every element type, 8-bit floats with their scales, MXFP4 in ggml's order."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
from numpy.typing import NDArray

from olm.convert.lazy import constant, n_rows
from olm.convert.values import mxfp4, row_bytes, scaled, to_f32
from olm.errors import CheckpointError

pytestmark = pytest.mark.native


@attrs.frozen
class Held:
    values: NDArray[Any]
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self.values.reshape(-1, self.shape[-1])[start:stop]


@pytest.mark.parametrize(
    ("dtype", "bits", "value"),
    [
        ("BF16", 0x3FC0, 1.5),
        ("F16", 0x3E00, 1.5),
        ("F8_E4M3", 0x00, 0.0),
        ("F8_E4M3", 0x38, 1.0),
        ("F8_E4M3", 0xB8, -1.0),
        ("F8_E4M3", 0x01, 2.0**-9),
        ("F8_E4M3", 0x7E, 448.0),
        ("F8_E4M3", 0x7F, np.nan),
        ("F8_E5M2", 0x3C, 1.0),
        ("F8_E5M2", 0x7B, 57344.0),
        ("F8_E5M2", 0x7C, np.inf),
        ("F8_E8M0", 127, 1.0),
        ("F8_E8M0", 0, 2.0**-127),
    ],
)
def test_elements_are_what_the_formats_say(dtype: str, bits: int, value: float) -> None:
    """OCP 8-bit floating point specification 1.0, OCP microscaling 1.0."""
    carrier = {"BF16": np.uint16, "F16": np.uint16}.get(dtype, np.uint8)
    rows = np.full((1, 3), bits, dtype=carrier)

    found = to_f32(rows.view(np.float16) if dtype == "F16" else rows, dtype, 3)

    np.testing.assert_array_equal(found, np.full((1, 3), value, np.float32))


def test_wide_integers_are_no_floats() -> None:
    with pytest.raises(CheckpointError, match="I64"):
        to_f32(np.zeros((1, 1), np.int64), "I64", 1)


def test_block_types_are_unpacked_by_the_engine() -> None:
    block = np.zeros((1, 34), np.uint8)
    block[0, :2] = np.frombuffer(np.float16(0.5).tobytes(), np.uint8)
    block[0, 2:] = np.arange(32)

    np.testing.assert_array_equal(to_f32(block, "Q8_0", 32), [np.arange(32) * np.float32(0.5)])


def _scaled_by_numpy(
    weight: NDArray[Any], scale: NDArray[Any], block: tuple[int, int]
) -> NDArray[Any]:
    wide = np.repeat(np.repeat(scale, block[0], axis=-2), block[1], axis=-1)
    return np.asarray(weight * wide[..., : weight.shape[-2], : weight.shape[-1]])


@pytest.mark.parametrize(
    ("shape", "scales", "block"),
    [
        ((10, 12), (3, 2), (4, 8)),
        ((8, 16), (2, 2), (4, 8)),
        ((3, 10, 12), (3, 3, 2), (4, 8)),
        ((10, 12), (1, 1), (10, 12)),
        ((10, 12), (10, 1), (1, 12)),
        ((3, 10, 12), (3, 1, 1), (10, 12)),
    ],
)
def test_scales_belong_to_blocks(
    shape: tuple[int, ...], scales: tuple[int, ...], block: tuple[int, int]
) -> None:
    rng = np.random.default_rng(1)
    weight, scale = rng.random(shape, np.float32), rng.random(scales, np.float32)
    wanted = _scaled_by_numpy(weight, scale, block).reshape(-1, shape[-1])

    reader = scaled(constant(weight), constant(scale), block if scales[-1] > 1 else None)

    for start in range(n_rows(reader)):
        np.testing.assert_array_equal(reader.read(start, n_rows(reader)), wanted[start:])


@pytest.mark.parametrize("scale", [np.float32(2), np.array([2], np.float32)])
@pytest.mark.parametrize("shape", [(4, 6), (2, 4, 6)])
def test_one_scale_is_for_all(scale: NDArray[Any], shape: tuple[int, ...]) -> None:
    weight = np.ones(shape, np.float32)

    reader = scaled(constant(weight), constant(np.asarray(scale)))

    np.testing.assert_array_equal(reader.read(1, 4), np.full((3, 6), 2, np.float32))


def test_scales_of_another_shape_are_refused() -> None:
    with pytest.raises(CheckpointError, match="do not fit"):
        scaled(constant(np.ones((8, 8))), constant(np.ones((3, 2))), (4, 4))


@pytest.mark.parametrize("is_flat", [True, False])
def test_mxfp4_keeps_its_values(*, is_flat: bool) -> None:
    """Element 2j is in the low half of byte j there, element j in that of byte j here."""
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 16, (2, 3, 2, 32), dtype=np.uint8)
    scales = rng.integers(120, 130, (2, 3, 2), dtype=np.uint8)
    blocks = codes[..., 0::2] | codes[..., 1::2] << 4
    table = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
    wanted = table[codes] * np.exp2(scales.astype(np.float32) - 127)[..., None]

    reader = mxfp4(Held(blocks.reshape(2, 3, -1) if is_flat else blocks, "U8"), Held(scales, "U8"))

    assert (reader.shape, reader.dtype) == ((2, 3, 64), "MXFP4")
    rows = to_f32(reader.read(1, 5), "MXFP4", 64)
    np.testing.assert_array_equal(rows, wanted.reshape(6, 64)[1:5])


def test_rows_that_are_no_blocks_have_no_size() -> None:
    assert row_bytes("Q8_0", 64) == 68
    with pytest.raises(CheckpointError, match="not a multiple"):
        row_bytes("Q8_0", 33)
