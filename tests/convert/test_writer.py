"""Files are whole and right, or there is an error that names the tensor; threads and sizes make no difference."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from convert_kit import Shape, random_model, tensor_bytes

from olm.checkpoint.types import RowReader
from olm.convert import writer
from olm.convert.lazy import constant
from olm.convert.metadata import Metadata
from olm.convert.model_file import ModelFile, OutTensor
from olm.convert.writer import gguf_size, write_gguf
from olm.errors import CheckpointError, DiskFull
from olm.gguf import Array, read_header
from olm.native.lib import Cancelled
from olm.native.quantize import CancelFlag

pytestmark = pytest.mark.native


def _file(*tensors: OutTensor) -> ModelFile:
    return ModelFile("model", Metadata("llama"), tensors)


def _tensor(values: object, type_name: str = "F32", name: str = "a.weight") -> OutTensor:
    return OutTensor(name, constant(np.asarray(values, np.float32)), type_name)


def test_metadata_keeps_types_order_and_bytes(tmp_path: Path) -> None:
    meta = Metadata("llama")
    meta.text("general.name", "näme")
    meta.u32(".block_count", 3)
    meta.f32(".eps", 1e-5)
    meta.flag(".flag", value=True)
    meta.texts("tokens", ["a", b"\xff", ""])
    meta.i32s("types", [-1, 2])
    meta.f32s("scores", [0.5])
    meta.flags("flags", [True, False])
    meta.u8s("map", b"\x01\x02")
    meta.text("general.name", "again")

    write_gguf(ModelFile("model", meta, ()), tmp_path / "a")

    assert list(read_header(tmp_path / "a", arrays=True).values.items()) == [
        ("general.architecture", "llama"),
        ("general.name", "again"),
        ("llama.block_count", 3),
        ("llama.eps", 1e-5),
        ("llama.flag", True),
        ("tokens", Array(3, ["a", "\ufffd", ""])),
        ("types", Array(2, (-1, 2))),
        ("scores", Array(1, (0.5,))),
        ("flags", Array(2, (True, False))),
        ("map", Array(2, (1, 2))),
    ]


def test_threads_and_chunks_make_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = random_model(Shape(n_layers=3))
    write_gguf(file, tmp_path / "one", n_threads=1)
    monkeypatch.setattr(writer, "_CHUNK", 300)

    written = write_gguf(file, tmp_path / "many", n_threads=7, digest=True)

    data = (tmp_path / "many").read_bytes()
    assert data == (tmp_path / "one").read_bytes()
    assert written == writer.Written(gguf_size(file), hashlib.sha256(data).hexdigest())


def test_progress_ends_with_everything(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    write_gguf(random_model(Shape()), tmp_path / "a", progress=lambda *at: told.append(at))

    assert told == sorted(told)
    size = (tmp_path / "a").stat().st_size
    assert {total for _, total in told} == {size}
    assert told[-1] == (size, size)


@pytest.mark.parametrize(
    ("values", "type_name", "words"),
    [
        ([[1, np.nan]], "F32", "1 values are NaN or infinite"),
        ([[np.inf, 1]], "BF16", "1 values are NaN or infinite"),
        ([[1, 70000]], "F16", "values up to 70000 are beyond F16's range; choose BF16 or F32"),
        ([[np.nan] * 32], "Q8_0", "32 values are NaN or infinite"),
        ([[1.0] * 31], "Q8_0", "not a multiple of Q8_0's 32"),
        ([], "F32", r"no tensors of \(0,\)"),
        (np.zeros((1, 1, 1, 1, 1)), "F32", "no tensors of"),
    ],
)
def test_what_a_file_cannot_hold_is_refused(
    tmp_path: Path, values: object, type_name: str, words: str
) -> None:
    with pytest.raises(CheckpointError, match=f"tensor 'a.weight': .*{words}"):
        write_gguf(_file(_tensor(values, type_name)), tmp_path / "a")


@pytest.mark.parametrize("length", [1, 7, 8, 37, 4096])
def test_16_bit_floats_are_rounded_as_numpy_rounds(tmp_path: Path, length: int) -> None:
    """To nearest, ties to even, subnormals kept: with vector instructions and without."""
    bits = np.random.default_rng(length).integers(0, 1 << 32, (3, length), dtype=np.uint32)
    values = bits.view(np.float32)
    values[~(np.abs(values) < 65504)] = 65504 - 16  # a tie
    values[0, :1] = 2.0**-24 * 1.5

    write_gguf(_file(_tensor(values, "F16")), tmp_path / "a")

    data = tensor_bytes(tmp_path / "a")["a.weight"][1]
    assert data == values.astype(np.float16).tobytes()


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="more than 63 bytes"):
        write_gguf(_file(_tensor([1], name="a" * 64)), tmp_path / "a")


def test_the_first_failure_ends_all_threads(tmp_path: Path) -> None:
    class Broken:
        shape: Sequence[int] = (1000, 4096)
        dtype = "F32"
        n_reads = 0

        def read(self, start: int, stop: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
            Broken.n_reads += 1
            raise CheckpointError("the file is gone")

    reader: RowReader = Broken()  # type: ignore[assignment]  # a sequence serves as shape

    with pytest.raises(CheckpointError, match="tensor 'a': the file is gone"):
        write_gguf(_file(OutTensor("a", reader, "F32")), tmp_path / "a", n_threads=2)

    assert Broken.n_reads <= 2


def test_a_cancelled_file_is_not_written_to_its_end(tmp_path: Path) -> None:
    flag = CancelFlag()
    flag.set()

    with pytest.raises(Cancelled):
        write_gguf(random_model(Shape()), tmp_path / "a", cancel=flag)


def test_a_full_disk_is_known_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "posix_fallocate", full)

    with pytest.raises(DiskFull, match=r"no space left on device: 399 KB needed, .* free"):
        write_gguf(random_model(Shape()), tmp_path / "a")
