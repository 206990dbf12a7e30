"""Importance matrices as llama.cpp writes them, new and old; and models in several parts."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from convert_kit import Shape, random_model, tensor_bytes

from olm.convert.gguf_source import GgufSource
from olm.convert.imatrix import read_imatrix
from olm.convert.lazy import constant
from olm.convert.metadata import Metadata
from olm.convert.model_file import ModelFile, OutTensor
from olm.convert.run import convert
from olm.convert.wire import Convert, Quantization
from olm.convert.writer import write_gguf
from olm.errors import CheckpointError, GgufError
from olm.gguf import read_header
from olm.native.quantize import CancelFlag

pytestmark = pytest.mark.native


def _gguf_imatrix(path: Path, **tensors: object) -> Path:
    meta = Metadata("")
    meta.text("general.type", "imatrix")
    meta.texts("imatrix.datasets", ["a.txt", "b.txt"])
    meta.u32("imatrix.chunk_count", 3)
    meta.u32("imatrix.chunk_size", 512)
    entries = [
        OutTensor(name.replace("__", "."), constant(np.asarray(values, np.float32)), "F32")
        for name, values in tensors.items()
    ]
    write_gguf(ModelFile("model", meta, entries), path)
    return path


def test_sums_are_divided_by_counts_for_each_expert(tmp_path: Path) -> None:
    """An expert that was never chosen has the same importance everywhere."""
    path = _gguf_imatrix(
        tmp_path / "im",
        a__weight__in_sum2=[[2, 4], [5, 7]],
        a__weight__counts=[[4], [0]],
    )

    found = read_imatrix(path)

    assert found.entries["a.weight"].tolist() == [0.5, 1, 1, 1]
    assert (found.name, found.dataset, found.n_chunks) == ("im", "a.txt", 3)


def test_the_old_format_is_read(tmp_path: Path) -> None:
    entry = struct.pack("<i", 8) + b"a.weight" + struct.pack("<ii2f", 4, 2, 2, 4)
    path = tmp_path / "im.dat"
    path.write_bytes(struct.pack("<i", 1) + entry + struct.pack("<ii", 7, 5) + b"a.txt")

    found = read_imatrix(path)

    assert found.entries["a.weight"].tolist() == [0.5, 1]
    assert (found.dataset, found.n_chunks) == ("a.txt", 7)


@pytest.mark.parametrize(
    "data", [b"", b"\1\0\0\0", struct.pack("<ii", 1, -1), struct.pack("<ii", 1, 1 << 30), b"\0" * 4]
)
def test_what_is_no_importance_matrix_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "im.dat"
    path.write_bytes(data)

    with pytest.raises(CheckpointError, match="importance matrix"):
        read_imatrix(path)


def test_infinities_are_refused(tmp_path: Path) -> None:
    entry = struct.pack("<i", 1) + b"a" + struct.pack("<ii", 1, 1)
    path = tmp_path / "im.dat"
    path.write_bytes(struct.pack("<i", 1) + entry + struct.pack("<f", float("inf")))

    with pytest.raises(CheckpointError, match="not finite"):
        read_imatrix(path)


def test_sums_without_counts_are_refused(tmp_path: Path) -> None:
    path = _gguf_imatrix(tmp_path / "im", a__weight__in_sum2=[[2, 4]])

    with pytest.raises(CheckpointError, match="do not belong together"):
        read_imatrix(path)


def test_an_importance_matrix_is_used_and_noted(tmp_path: Path) -> None:
    shape = Shape(n_layers=1)
    source, target, plain = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    write_gguf(random_model(shape), source)
    weights = np.linspace(0, 9, shape.n_embd)
    path = _gguf_imatrix(
        tmp_path / "im",
        blk__0__attn_q__weight__in_sum2=[weights],
        blk__0__attn_q__weight__counts=[[1]],
    )

    for out, imatrix in ((target, str(path)), (plain, "")):
        wanted = Quantization(file_type="Q4_0", imatrix=imatrix)
        request = Convert(target=str(out), ggufs=[str(source)], quantization=wanted)
        convert(request, lambda _: None, CancelFlag())

    with_it, without = tensor_bytes(target), tensor_bytes(plain)
    assert {name for name in with_it if with_it[name] != without[name]} == {"blk.0.attn_q.weight"}
    header = read_header(target)
    assert header.text("quantize.imatrix.file") == "im"
    assert header.integer("quantize.imatrix.entries_count") == 1


def _split(folder: Path, n_parts: int) -> list[Path]:
    """A model whose tensors lie in several files, as `llama-gguf-split` makes them."""
    file, paths = random_model(Shape(n_layers=2)), []
    for number in range(n_parts):
        meta = file.metadata.copy() if number == 0 else Metadata("llama")
        meta.u32("split.no", number)
        meta.u32("split.count", n_parts)
        meta.i32("split.tensors.count", len(file.tensors))
        paths.append(folder / f"part-{number}.gguf")
        write_gguf(ModelFile("model", meta, file.tensors[number::n_parts]), paths[-1])
    return paths


def test_parts_become_one_file(tmp_path: Path) -> None:
    paths, whole = _split(tmp_path, 3), tmp_path / "whole"
    write_gguf(random_model(Shape(n_layers=2)), whole)

    request = Convert(target=str(tmp_path / "out"), ggufs=[str(path) for path in paths])
    convert(request, lambda _: None, CancelFlag())

    assert tensor_bytes(tmp_path / "out") == tensor_bytes(whole)
    assert read_header(tmp_path / "out").values == read_header(whole).values


@pytest.mark.parametrize("order", [[0, 1], [1, 0, 2], [0, 1, 1], [0]])
def test_missing_or_misplaced_parts_are_refused(tmp_path: Path, order: list[int]) -> None:
    paths = _split(tmp_path, 3)

    with pytest.raises(GgufError, match="part"), GgufSource([paths[i] for i in order]):
        pass


def test_a_projector_is_copied_as_it_is(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    weights = OutTensor("v.a.weight", constant(np.ones((2, 256), np.float32)), "F16")
    write_gguf(ModelFile("projector", Metadata("clip"), [weights]), source)
    wanted = Quantization(file_type="Q4_0")

    convert(
        Convert(target=str(target), ggufs=[str(source)], quantization=wanted),
        lambda _: None,
        CancelFlag(),
    )

    assert target.read_bytes() == source.read_bytes()
