"""Opening checkpoints: which files are the weights, shards and indexes, the files beside them, and what is refused."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

from checkpoint.conftest import OpenBytes
from checkpoint.made import DATA, safetensors, tensor, torch_zip
from olm.checkpoint import open_checkpoint, open_files
from olm.errors import CheckpointError


def weights(*names: str) -> bytes:
    return safetensors({name: ("F32", [1], name[-1].encode() * 4) for name in names})


def pytorch(*names: str) -> bytes:
    return torch_zip({name: tensor([6], [1]) for name in names}, {"0": bytes(24)})


def index(**files: str) -> bytes:
    return json.dumps({"metadata": {"total_size": 1}, "weight_map": files}).encode()


ONE = "model-00001-of-00002.safetensors"
TWO = "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
SAFE, TORCH = weights("s"), pytorch("t")


@pytest.mark.parametrize(
    ("names", "used"),
    [
        (["model.safetensors", "pytorch_model.bin"], {"model.safetensors"}),
        (["model.safetensors", "consolidated.safetensors"], {"model.safetensors"}),
        ([ONE, TWO, "consolidated.safetensors"], {ONE, TWO}),
        (["model.fp32-00001-of-00001.safetensors", ONE, TWO], {ONE, TWO}),
        (["adapter_model.safetensors", "optimizer.pt"], {"adapter_model.safetensors"}),
        (["anything.safetensors", "pytorch_model.bin"], {"anything.safetensors"}),
        (
            [
                "pytorch_model-00001-of-00002.bin",
                "pytorch_model-00002-of-00002.bin",
                "training_args.bin",
            ],
            {"pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"},
        ),
        (["pytorch_model.bin", "consolidated.00.pth"], {"pytorch_model.bin"}),
        (["consolidated.00.pth", "other.pth"], {"consolidated.00.pth"}),
        (["adapter_model.bin", "optimizer.pt"], {"adapter_model.bin"}),
        (["weights.pt", "rng_state.pth"], {"weights.pt"}),
        (["sub/model.safetensors", "pytorch_model.bin"], {"pytorch_model.bin"}),
    ],
)
def test_weights_are_chosen_in_a_fixed_order(
    open_bytes: OpenBytes, names: list[str], used: set[str]
) -> None:
    files = {
        name: weights(f"w{i}") if name.endswith("tensors") else pytorch(f"w{i}")
        for i, name in enumerate(names)
    }

    checkpoint = open_bytes(files)

    assert {one.file.name for one in checkpoint.tensors.values()} == used


def test_shards_of_an_index_make_one_checkpoint(open_bytes: OpenBytes) -> None:
    checkpoint = open_bytes(
        {
            "second.safetensors": weights("c", "d"),
            "first.safetensors": weights("b", "a"),
            INDEX: index(a="first.safetensors", b="first.safetensors", c="second.safetensors"),
            "not-listed.safetensors": weights("a"),
        }
    )

    assert list(checkpoint.tensors) == ["b", "a", "c", "d"]
    assert checkpoint.tensors["d"].read(0, 1).tobytes() == b"dddd"
    assert checkpoint.tensors["d"].file == checkpoint.folder / "second.safetensors"


BROKEN: Mapping[str, tuple[Mapping[str, bytes], str]] = {
    "nothing": ({"config.json": b"{}"}, "unknown tensor format"),
    "a shard is missing": ({ONE: SAFE}, f"{TWO}: missing, the checkpoint is not complete"),
    "many shards are missing": (
        {"model-00001-of-00009.safetensors": SAFE},
        "00006-of-00009.safetensors and 3 more: missing",
    ),
    "silly total": ({"model-00001-of-99999.safetensors": SAFE}, "there cannot be 99999 files"),
    "a shard of the index is missing": (
        {ONE: SAFE, INDEX: index(s=ONE, t=TWO)},
        f"{TWO}: missing",
    ),
    "the index leads out": (
        {ONE: SAFE, INDEX: index(s="../secret.safetensors")},
        "../secret.safetensors: missing",
    ),
    "in the wrong shard": (
        {ONE: weights("a", "c"), TWO: weights("b"), INDEX: index(a=TWO, b=TWO, c=ONE)},
        f"{ONE}: tensor 'a' should be in {TWO}, says {INDEX}",
    ),
    "a tensor is missing": (
        {ONE: weights("a"), INDEX: index(a=ONE, z=ONE)},
        f"{ONE}: tensor 'z' is missing, which {INDEX} names",
    ),
    "in two shards": ({ONE: weights("a"), TWO: weights("a")}, f"{TWO}: tensor 'a' is in {ONE} too"),
    "index without map": ({ONE: SAFE, INDEX: b"{}"}, f"{INDEX}: has no `weight_map`"),
    "index of numbers": (
        {ONE: SAFE, INDEX: b'{"weight_map":{"a":1}}'},
        f"{INDEX}: has no `weight_map`",
    ),
    "damaged index": ({ONE: SAFE, INDEX: b"{"}, f"{INDEX}: is not valid JSON"),
    "a shard is damaged": ({ONE: SAFE, TWO: SAFE[:-1]}, f"{TWO}: is truncated: tensor 's'"),
    "a pointer": (
        {"model.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"},
        "model.safetensors: is a git-lfs pointer, not weights; run `git lfs pull`",
    ),
    "an empty file": ({"model.safetensors": b""}, "model.safetensors: is truncated: 0 bytes"),
    "an empty PyTorch file": ({"pytorch_model.bin": b""}, "pytorch_model.bin: is not a PyTorch"),
    "no tensors": ({"model.safetensors": safetensors({})}, "model.safetensors: no tensors in it"),
    "damaged config": ({"model.safetensors": SAFE, "config.json": b"{]"}, "config.json: is not"),
    "config is a list": ({"model.safetensors": SAFE, "config.json": b"[]"}, "is not a JSON object"),
    "deep config": (
        {"model.safetensors": SAFE, "config.json": b"[" * 99999},
        "config.json: is nested too deep",
    ),
    "config in another encoding": (
        {"model.safetensors": SAFE, "config.json": "{}".encode("utf-16")},
        "config.json: is not text in UTF-8",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_checkpoint_is_refused_by_name_and_leaves_nothing_open(
    open_bytes: OpenBytes, case: str
) -> None:
    files, message = BROKEN[case]
    before = set(os.listdir("/proc/self/fd"))

    with pytest.raises(CheckpointError) as caught:
        open_bytes(files)

    assert message in caught.value.message
    assert set(os.listdir("/proc/self/fd")) == before


def test_config_may_hold_what_json_cannot(open_bytes: OpenBytes) -> None:
    config = open_bytes(
        {
            "model.safetensors": SAFE,
            "config.json": b'\xef\xbb\xbf{"a":NaN,"b":-Infinity,"c":"\xc3\xa9"}',
        }
    ).config

    assert math.isnan(config["a"])  # type: ignore[arg-type]  # a float, or this fails
    assert config["b"] == -math.inf
    assert config["c"] == "é"


def test_other_files_are_lent_by_name(open_bytes: OpenBytes) -> None:
    checkpoint = open_bytes(
        {
            "model.safetensors": SAFE,
            "1_Pooling/config.json": b'{"x":1}',
            "merges.txt": "a é".encode(),
            "tokenizer.model": b"\xff\0",
            ".cache/huge.json": b"{}",
            "a/b/c.json": b"{}",
        }
    )

    assert checkpoint.json("1_Pooling/config.json") == {"x": 1}
    assert checkpoint.text("merges.txt") == "a é"
    assert checkpoint.read("tokenizer.model") == b"\xff\0"
    assert (checkpoint.json("no.json"), checkpoint.text("no"), checkpoint.read("no")) == (None,) * 3
    assert checkpoint.names == [
        "1_Pooling/config.json",
        "merges.txt",
        "model.safetensors",
        "tokenizer.model",
    ]
    with pytest.raises(CheckpointError, match=r"tokenizer\.model: is not text"):
        checkpoint.text("tokenizer.model")
    with pytest.raises(CheckpointError, match=r"config\.json: is missing"):
        _ = checkpoint.config


def test_a_folder_below_opens_as_a_checkpoint(open_bytes: OpenBytes) -> None:
    checkpoint = open_bytes(
        {
            "model.safetensors": SAFE,
            "2_Dense/model.safetensors": weights("linear"),
            "2_Dense/config.json": b'{"in":1}',
        }
    )

    part = checkpoint.part("2_Dense")

    assert (list(part.tensors), part.config) == (["linear"], {"in": 1})
    assert list(checkpoint.tensors) == ["s"]
    with pytest.raises(CheckpointError, match="3_Dense: is missing"):
        checkpoint.part("3_Dense")


def test_files_open_under_the_names_they_are_given(tmp_path: Path) -> None:
    blob = tmp_path / "sha256-1"
    config = tmp_path / "sha256-2"
    blob.write_bytes((DATA / "zip.bin").read_bytes())
    config.write_bytes(b'{"a":1}')

    with open_files({"config.json": config, "pytorch_model.bin": blob}, Path("mine")) as checkpoint:
        assert checkpoint.config == {"a": 1}
        assert checkpoint.tensors["row"].file == Path("mine/pytorch_model.bin")

    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: cannot be opened: No such file"
    ):
        open_files({"model.safetensors": tmp_path / "gone"})


def test_a_huge_text_file_is_refused_unread(open_bytes: OpenBytes, tmp_path: Path) -> None:
    checkpoint = open_bytes({"model.safetensors": SAFE, "tokenizer.json": b"{}"})

    os.truncate(tmp_path / "tokenizer.json", 1 << 40)

    with pytest.raises(CheckpointError, match=r"tokenizer\.json: is larger than 128 MiB"):
        checkpoint.json("tokenizer.json")


def test_links_inside_the_folder_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real.bytes").write_bytes(SAFE)
    (tmp_path / "model.safetensors").symlink_to("real.bytes")

    with open_checkpoint(tmp_path) as checkpoint:
        assert list(checkpoint.tensors) == ["s"]


def test_a_snapshot_of_the_hub_cache_opens(tmp_path: Path) -> None:
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot = tmp_path / "models--a--b" / "snapshots" / "c0ffee"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (blobs / "123").write_bytes(SAFE)
    (snapshot / "model.safetensors").symlink_to("../../blobs/123")

    with open_checkpoint(snapshot) as checkpoint:
        assert list(checkpoint.tensors) == ["s"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "sub"])
def test_links_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside").write_bytes(SAFE)
    (folder / "pytorch_model.bin").write_bytes(TORCH)
    (folder / name).symlink_to(tmp_path if name == "sub" else "../outside")

    with pytest.raises(CheckpointError, match=f"{name}: insecure path"):
        open_checkpoint(folder)


def test_links_that_nobody_wants_do_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(SAFE)
    (folder / "README.md").symlink_to("/etc/hostname")
    (folder / "old.json").symlink_to("gone")

    with open_checkpoint(folder) as checkpoint:
        assert list(checkpoint.tensors) == ["s"]
        with pytest.raises(CheckpointError, match=r"README\.md: insecure path"):
            checkpoint.text("README.md")
        with pytest.raises(CheckpointError, match=r"old\.json: is a symbolic link to nothing"):
            checkpoint.json("old.json")


@pytest.mark.parametrize("target", ["gone", "model.safetensors"])
def test_links_to_nothing_are_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "model.safetensors").symlink_to(target)

    with pytest.raises(CheckpointError, match=r"model\.safetensors: is a symbolic link to nothing"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_pipes_are_refused_and_do_not_hang(tmp_path: Path, name: str) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(TORCH)
    os.mkfifo(tmp_path / name)

    with pytest.raises(CheckpointError, match=f"{name}: is not a regular file"):
        open_checkpoint(tmp_path)


def test_devices_and_folders_are_refused(tmp_path: Path) -> None:
    for path in (Path("/dev/zero"), tmp_path):
        with pytest.raises(CheckpointError, match=r"model\.safetensors: is not a regular file"):
            open_files({"model.safetensors": path})


def test_a_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(SAFE)

    for path in (tmp_path / "gone", tmp_path / "file"):
        with pytest.raises(CheckpointError, match="cannot be listed"):
            open_checkpoint(path)


def test_a_folder_of_too_many_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("olm.checkpoint.files._MAX_FILES", 3)
    for i in range(5):
        (tmp_path / f"{i}.json").touch()

    with pytest.raises(CheckpointError, match="has more than 3 files"):
        open_checkpoint(tmp_path)


FIXTURES = Path(__file__).parent.parent / "fixtures" / "hf"


@pytest.mark.parametrize("name", sorted(path.name for path in FIXTURES.iterdir() if path.is_dir()))
def test_published_layouts_open_and_read(name: str) -> None:
    """Every fixture of the converter: all its rows can be read, and are finite where they are of f32."""
    with open_checkpoint(FIXTURES / name) as checkpoint:
        for one in checkpoint.tensors.values():
            rows = one.read(0, math.prod(one.shape[:-1]))

            assert rows.size == math.prod(one.shape)
            assert one.dtype != "F32" or np.isfinite(rows).all()


def test_a_published_pytorch_file_has_the_bytes_of_its_archive() -> None:
    folder = FIXTURES / "llama2-spm-bin"
    with open_checkpoint(folder) as checkpoint, ZipFile(folder / "pytorch_model.bin") as archive:
        names = [name for name in archive.namelist() if "/data/" in name]
        raw = b"".join(
            one.read(0, math.prod(one.shape[:-1])).tobytes() for one in checkpoint.tensors.values()
        )

        assert len(checkpoint.tensors) == 30
        assert raw == b"".join(archive.read(name) for name in names)
