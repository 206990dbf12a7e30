"""PyTorch files: those that PyTorch wrote, element by element, and those that nobody should have written."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from checkpoint.conftest import MapBytes, OpenBytes
from checkpoint.made import DATA, global_, hostile_pickles, legacy, short, tensor, torch_zip, zipped
from olm.checkpoint import OpenCheckpoint, open_files
from olm.checkpoint.zip_directory import read_directory
from olm.errors import CheckpointError

EXPECTED: Mapping[str, Mapping[str, Mapping[str, object]]] = json.loads(
    (DATA / "expected.json").read_text()
)
LoadTorch = Callable[[bytes], OpenCheckpoint]
SIX = np.arange(6, dtype="<f4").tobytes()


@pytest.fixture
def load(open_bytes: OpenBytes) -> LoadTorch:
    return lambda data: open_bytes({"pytorch_model.bin": data})


@pytest.mark.parametrize("name", EXPECTED)
def test_reads_what_pytorch_wrote(name: str) -> None:
    with open_files({"pytorch_model.bin": DATA / name}) as checkpoint:
        found = {
            tensor.name: {
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "hex": tensor.read(0, int(np.prod(tensor.shape[:-1]))).tobytes().hex(),
            }
            for tensor in checkpoint.tensors.values()
        }

    assert found == EXPECTED[name]


@pytest.mark.parametrize("name", ["zip.bin", "legacy.bin"])
def test_rows_in_pieces_are_the_rows(name: str) -> None:
    with open_files({"pytorch_model.bin": DATA / name}) as checkpoint:
        for one in checkpoint.tensors.values():
            n_rows = int(np.prod(one.shape[:-1]))
            pieces = [one.read(at, at + 1) for at in range(n_rows)]

            assert b"".join(piece.tobytes() for piece in pieces) == one.read(0, n_rows).tobytes()


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("whole_model.pt", "torch.nn.modules.container.Sequential"),
        ("complex.pt", "torch.ComplexFloatStorage"),
        ("sparse.pt", "torch._utils._rebuild_sparse_tensor"),
        ("unsigned.pt", "torch.uint16"),
        ("meta.pt", "torch._utils._rebuild_meta_tensor_no_storage"),
    ],
)
def test_what_is_not_plain_weights_is_refused_by_name(name: str, refused: str) -> None:
    with pytest.raises(CheckpointError, match=f"refers to {refused}, which is refused"):
        open_files({"pytorch_model.bin": DATA / name})


@pytest.mark.parametrize("name", hostile_pickles(""))
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_hostile_files_are_refused_and_nothing_runs(
    load: LoadTorch, tmp_path: Path, name: str, form: str
) -> None:
    evidence = tmp_path / "it ran"
    data, refused = hostile_pickles(f"touch '{evidence}'")[name]

    with pytest.raises(CheckpointError, match=f"refers to {refused}, which is refused"):
        load((torch_zip if form == "zip" else legacy)(data, {"0": SIX}))
    assert not evidence.exists()


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model", "module"])
def test_weights_are_found_where_trainers_put_them(load: LoadTorch, wrapper: str) -> None:
    inner = b"}" + short("w") + tensor([2, 3], [3, 1]) + b"s"
    outer = b"\x80\x02}(" + short("step") + b"K\x07" + short(wrapper) + inner + b"u."

    assert list(load(torch_zip(outer, {"0": SIX})).tensors) == ["w"]


def test_a_storage_may_be_a_window_of_another(load: LoadTorch) -> None:
    view = b"(" + short("1") + b"K\x02K\x04t"
    file = legacy({"w": tensor([2], [1], offset=1, view=view)}, {"0": SIX})

    assert load(file).tensors["w"].read(0, 1).tolist() == [[3.0, 4.0]]


def test_tied_tensors_share_their_bytes() -> None:
    with open_files({"pytorch_model.bin": DATA / "zip.bin"}) as checkpoint:
        tied, row = (checkpoint.tensors[name] for name in ("tied", "row"))

        assert np.shares_memory(tied.read(2, 3), row.read(0, 1))
        assert not np.shares_memory(tied.read(1, 2), row.read(0, 1))


GOOD = {"w": tensor([2, 3], [3, 1])}
ONE = {"0": SIX}
WHOLE = torch_zip(GOOD, ONE)
W = r"pytorch_model\.bin: tensor 'w': "
BAD = {
    "text": (b"hello", "is not a PyTorch file"),
    "tar": (bytes(257) + b"ustar" + bytes(300), "is a tar archive of PyTorch before 0.1.10"),
    "truncated zip": (WHOLE[:-30], "is truncated: the end of the zip archive is missing"),
    "half a zip": (WHOLE[: len(WHOLE) // 2], "the end of the zip archive is missing"),
    "some zip": (zipped({"a.txt": b"x"}), "no data.pkl in it"),
    "deeper": (zipped({"a/b/data.pkl": b"N."}), "no data.pkl in it"),
    "big-endian": (torch_zip(GOOD, ONE, byteorder=b"big"), "saved on a big-endian machine"),
    "no dictionary": (torch_zip(b"]]a.", ONE), "is no dictionary of tensors"),
    "a tensor alone": (torch_zip(b"\x80\x02" + tensor([6], [1]) + b".", ONE), "is no dictionary"),
    "no tensors": (
        torch_zip(b"}(" + short("lr") + b"K\x01K\x05Nu.", ONE),
        r"holds no tensors by name, only \['lr', '5'\]",
    ),
    "wrapped in itself": (
        torch_zip(b"}q\0" + short("model") + b"h\0s.", ONE),
        "is no dictionary of tensors",
    ),
    "numbers as names": (
        torch_zip(b"\x80\x02}K\x01" + tensor([6], [1]) + b"s.", ONE),
        "holds tensors that have no names",
    ),
    "a bad name": (torch_zip({"a\nb": tensor([6], [1])}, ONE), "cannot be a tensor's name"),
    "no storage": (torch_zip(GOOD, {}), W + "its storage '0' is missing"),
    "short storage": (
        torch_zip(GOOD, {"0": SIX[:-1]}),
        W + "needs 24 bytes of its storage, which has 23",
    ),
    "beyond the storage": (
        torch_zip({"w": tensor([2, 3], [3, 1], offset=1)}, ONE),
        W + "needs 28 bytes",
    ),
    "wide strides": (torch_zip({"w": tensor([2, 3], [4, 1])}, ONE), W + "needs 28 bytes"),
    "huge strides": (torch_zip({"w": tensor([2, 2], [1 << 62, 1])}, ONE), W + "needs"),
    "negative stride": (torch_zip({"w": tensor([2], [-1])}, ONE), "a tensor of impossible shape"),
    "negative offset": (
        torch_zip({"w": tensor([2], [1], offset=-1)}, ONE),
        "a tensor of impossible shape",
    ),
    "strides are missing": (torch_zip({"w": tensor([2, 3], [1])}, ONE), "impossible shape"),
    "huge shape": (torch_zip({"w": tensor([1 << 62, 1 << 62], [0, 0])}, ONE), W + "its shape"),
    "17 dimensions": (torch_zip({"w": tensor([1] * 17, [1] * 17)}, ONE), W + "has 17 dimensions"),
    "empty rows": (torch_zip({"w": tensor([1 << 60, 0], [0, 0])}, ONE), W + "its shape"),
    "a tensor from nothing": (
        torch_zip({"w": tensor([1 << 20, 1 << 20], [0, 0])}, ONE),
        f"its tensors claim {1 << 42} bytes, the file has",
    ),
    "untyped storage": (
        torch_zip({"w": tensor([6], [1], kind="torch.storage.UntypedStorage")}, ONE),
        "_rebuild_tensor with other arguments",
    ),
    "negative storage": (torch_zip({"w": tensor([1], [1], n_elements=-1)}, ONE), "no storage"),
    "pickle, not torch's": (b"\x80\x02N.", "is a pickle, but not PyTorch's"),
    "wrong magic": (legacy(GOOD, ONE, magic=7), "is a pickle, but not PyTorch's"),
    "wrong version": (legacy(GOOD, ONE, version=1002), "PyTorch format that is not known"),
    "nested version": (legacy(GOOD, ONE, version=[[1]]), "PyTorch format that is not known"),
    "big-endian legacy": (legacy(GOOD, ONE, little_endian=False), "a big-endian machine"),
    "truncated legacy": (legacy(GOOD, ONE)[:-1], W + "its storage '0' is missing"),
    "legacy without storages": (legacy(GOOD, ONE)[:-32], W + "its storage '0' is missing"),
    "legacy without end": (legacy(GOOD, ONE)[:60], "is truncated: it ends inside its pickle"),
    "unknown storage": (legacy(GOOD, {"7": SIX}), "the list of its storages is malformed"),
    "negative length": (
        legacy(GOOD, ONE)[:-32] + struct.pack("<q", -6) + SIX,
        "the storage '0' is malformed",
    ),
    "two types of one storage": (
        legacy({**GOOD, "x": tensor([2], [1], kind="torch.LongStorage")}, ONE),
        "the storage '0' has elements of two types",
    ),
    "view beyond its storage": (
        legacy({"w": tensor([1], [1], view=b"(" + short("1") + b"K\x05K\x02t")}, ONE),
        "a persistent id that is no storage",
    ),
    "a class as a module": (
        torch_zip(b"\x80\x02" + global_("torch.Tensor") + b".", ONE),
        "is no dictionary of tensors",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_an_error_that_names_file_and_tensor(load: LoadTorch, case: str) -> None:
    data, message = BAD[case]

    with pytest.raises(CheckpointError, match=message) as caught:
        load(data)
    assert caught.value.message.startswith("pytorch_model.bin: ")
    assert len(caught.value.message) < 500


# --- the zip archive itself


def patched(old: bytes, new: bytes, data: bytes = WHOLE, count: int = -1) -> bytes:
    assert old in data
    return data.replace(old, new, count)


def in_directory(
    at: int, raw: bytes, entry: bytes = b"archive/data/0", data: bytes = WHOLE
) -> bytes:
    """Overwrite bytes of an entry in the directory, `at` from its begin."""
    begin = data.rindex(entry) - 46 + at
    return data[:begin] + raw + data[begin + len(raw) :]


def in_end(at: int, raw: bytes, data: bytes = WHOLE) -> bytes:
    """Overwrite bytes of the record at the end."""
    begin = len(data) - 22 + at
    return data[:begin] + raw + data[begin + len(raw) :]


def twice() -> bytes:
    """An archive that lists two entries under one name."""
    return patched(b"archive/data/9", b"archive/data/0", torch_zip(GOOD, {"0": SIX, "9": SIX}))


FULL = b"\xff" * 4
DAMAGED = {
    "compressed": (
        zipped({"archive/data.pkl": b"N" * 99 + b"."}, zipfile.ZIP_DEFLATED),
        "the entry 'archive/data.pkl' is compressed",
    ),
    "lies about packing": (in_directory(20, b"\1"), "'archive/data/0' is compressed"),
    "encrypted": (in_directory(8, b"\1"), "the entry 'archive/data/0' is encrypted"),
    "twice": (twice(), "the entry 'archive/data/0' is there twice"),
    "climbing": (patched(b"archive/data/0", b"archive/../da"[:13] + b"0"), "is named"),
    "absolute": (patched(b"archive/data/0", b"/rchive/data/0"), "an entry is named"),
    "backslash": (patched(b"archive/data/0", b"archive\\data/0"), "an entry is named"),
    "NUL": (patched(b"archive/data/0", b"archive/data/\0"), "an entry is named"),
    "not UTF-8": (patched(b"archive/data/0", b"archive/data/\xff"), "is not UTF-8"),
    "two names": (in_directory(46, b"archive/data/1"), "is not where the directory says"),
    "elsewhere": (in_directory(42, b"\xff"), "is not where the directory says"),
    "far away": (in_directory(42, b"\0\0\0\x7f"), "lies beyond its end"),
    "overlapping": (
        in_directory(20, struct.pack("<LL", 150, 150), b"archive/data.pkl"),
        "the entry 'archive/data/0' overlaps another",
    ),
    "over the directory": (in_directory(20, struct.pack("<LL", 99, 99)), "beyond the others' end"),
    "zip64 without record": (in_directory(42, FULL), "has no zip64 record"),
    "many entries": (in_end(8, b"\xfe\xff\xfe\xff"), "its directory is too short"),
    "huge directory": (in_end(12, b"\0\0\0\x60"), "the zip directory is too large"),
    "directory beyond the end": (in_end(16, b"\0\0\0\x60"), "its directory lies beyond its end"),
    "directory elsewhere": (in_end(16, bytes(4)), "its directory is malformed"),
    "zip64 end without record": (in_end(16, FULL), "its zip64 record is missing"),
    "several disks": (in_end(4, b"\1"), "is split over several files"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_archive_is_an_error(load: LoadTorch, case: str) -> None:
    data, message = DAMAGED[case]

    with pytest.raises(CheckpointError, match=message):
        load(data)


@pytest.mark.timeout(5)
@pytest.mark.parametrize("data", [b"PK\5\6", b"PK\5\6\xff\0\0\0\x0e", b"PK\5\6" * 9, b"\0" * 9])
def test_an_end_without_an_archive_is_an_error(map_bytes: MapBytes, data: bytes) -> None:
    """Found by fuzzing: the search for the end once found the same signature for ever."""
    with pytest.raises(CheckpointError, match="the end of the zip archive is missing"):
        read_directory(map_bytes("a.bin", data))


def zip64(data: bytes) -> bytes:
    """The same archive with its directory's place and the last entry's numbers in zip64 records."""
    at = data.rindex(b"archive/data/0") - 46
    count, size, begin = struct.unpack("<HLL", data[-12:-2])
    packed, plain = struct.unpack_from("<LL", data, at + 20)
    (where,) = struct.unpack_from("<L", data, at + 42)
    extra = struct.pack("<HHQQQ", 1, 24, plain, packed, where)
    entry = bytearray(data[at:-22])
    entry[20:28] = b"\xff" * 8
    entry[30:32] = struct.pack("<H", len(extra))
    entry[42:46] = b"\xff" * 4
    directory_end = data[:at] + bytes(entry) + extra
    record = struct.pack(
        "<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size + 28, begin
    )
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(directory_end), 1)
    end = struct.pack("<4s4HLLH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 1 << 32 >> 1, 0xFFFFFFFF, 0)
    return directory_end + record + locator + end


def test_zip64_archives_and_comments_are_read(load: LoadTorch) -> None:
    commented = WHOLE[:-2] + struct.pack("<H", 12) + b"PK\5\6 comment"[:12]

    for data in (zip64(WHOLE), commented):
        assert load(data).tensors["w"].read(0, 2).tolist() == [[0, 1, 2], [3, 4, 5]]
