"""Split GGUF models: merged when they are uploaded, kept apart when they are run in place, refused when not whole."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from kit.gguf_split import split_gguf, split_names
from olm.errors import GgufError, InvalidRequest
from olm.gguf import ModelFacts, facts_of, read_header
from olm.gguf.merge import plan_merge
from olm.store import splits
from olm.store.names import Digest
from olm.store.splits import Source, SplitSet, group_splits
from store.conftest import Shop, open_shop
from store.gguf_files import gguf as make_gguf
from store.gguf_files import model, pair, tensor

N = 3


@pytest.fixture
async def parts(shop: Shop) -> list[bytes]:
    return split_gguf((await shop.store.get("tiny")).weights, N)


def write_parts(folder: Path, parts: list[bytes]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / name for name in split_names("m", len(parts))]
    for path, data in zip(paths, parts, strict=True):
        path.write_bytes(data)
    return paths


def tensor_bytes(path: Path) -> dict[str, bytes]:
    header, data = read_header(path), path.read_bytes()
    return {t.name: data[header.data_offset + t.offset :][: t.size_bytes] for t in header.tensors}


async def test_a_merged_file_has_the_keys_and_tensors_of_the_whole(
    shop: Shop, parts: list[bytes], tmp_path: Path
) -> None:
    whole = (await shop.store.get("tiny")).weights
    merged = tmp_path / "merged.gguf"

    merge = plan_merge(write_parts(tmp_path / "parts", parts))
    merged.write_bytes(b"".join(merge.pieces()))

    ours, theirs = read_header(merged, arrays=True), read_header(whole, arrays=True)
    assert merge.size_bytes == ours.size_bytes
    assert ours.values == theirs.values
    assert [t.name for t in ours.tensors] == [t.name for t in theirs.tensors]
    assert tensor_bytes(merged) == tensor_bytes(whole)
    assert facts_of(ours) == facts_of(theirs)


def test_parts_are_aligned_as_the_first_part_says(tmp_path: Path) -> None:
    """The later parts of llama.cpp's have no key for it and 32 bytes then."""
    one = make_gguf(
        [pair("general.architecture", "llama"), pair("general.alignment", 128)],
        [tensor("a", (3,), 0, 0)],
        bytes(12),
        align=128,
    )
    two = make_gguf([], [tensor("b", (4,), 0, 0), tensor("c", (1,), 0, 32)], bytes(range(36)))
    paths = write_parts(tmp_path / "parts", [one, two])
    merged = tmp_path / "merged.gguf"

    merged.write_bytes(b"".join(plan_merge(paths).pieces()))

    assert [t.offset for t in read_header(merged).tensors] == [0, 128, 256]
    assert tensor_bytes(merged) == {
        "a": bytes(12),
        "b": bytes(range(16)),
        "c": bytes(range(32, 36)),
    }


def test_a_tensor_in_two_parts_is_refused(tmp_path: Path) -> None:
    paths = write_parts(tmp_path / "parts", [model(), model()])

    with pytest.raises(GgufError, match="two parts of the split GGUF have the tensor 'token_embd"):
        plan_merge(paths)


def part(name: str, no: int, count: int = 3) -> Source:
    facts = ModelFacts(architecture="llama", parameter_count=5, n_splits=count, split_no=no)
    return Source(name, Digest.of(f"{name}{no}".encode()), 7, facts)


def test_sets_are_told_apart_by_name_and_put_in_order() -> None:
    single = Source("p.gguf", Digest.of(b"p"), 7, ModelFacts())
    a = [part(name, no) for no, name in enumerate(split_names("a", 3))]
    b = [part(name, no, 2) for no, name in enumerate(split_names("b", 2))]

    assert group_splits([b[1], a[2], single, a[0], b[0], a[1]]) == [
        SplitSet(tuple(b)),
        SplitSet(tuple(a)),
        single,
    ]


@pytest.mark.parametrize(
    ("numbers", "count", "words"),
    [
        ([0, 2], 3, "of 3 parts, missing: 2"),
        ([0, 1, 2, 2], 3, "a part of it is there twice"),
        ([0, 1, 7], 3, "of 3 parts, missing: 3"),
        ([0], 60000, "60000 parts, more than 1024"),
    ],
)
def test_sets_that_are_not_whole_are_refused(numbers: list[int], count: int, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        group_splits([part("x.gguf", no, count) for no in numbers])

    assert caught.value.message == f"invalid split GGUF: x.gguf: {words}"


async def test_uploaded_parts_become_one_blob_and_are_not_kept(
    shop: Shop, parts: list[bytes]
) -> None:
    tiny = await shop.store.get("tiny")
    before = shop.blobs()
    files = {
        name: await shop.upload(data) for name, data in zip(split_names("m", N), parts, strict=True)
    }

    statuses = await shop.create(model="m", files=files)

    made = await shop.store.get("m")
    assert statuses.count("parsing GGUF") == N
    assert f"merging {N} parts" in statuses
    assert tensor_bytes(made.weights) == tensor_bytes(tiny.weights)
    assert made.parameter_count == tiny.parameter_count
    assert made.details.parameter_size == "2.36M"
    assert not {Digest.parse(d).file_name for d in files.values()} & shop.blobs()
    assert len(shop.blobs() - before) <= 2 + 1  # weights, config, and a template it may have


async def test_a_failed_merge_keeps_the_uploads_for_another_try(
    shop: Shop, parts: list[bytes]
) -> None:
    files = {
        name: await shop.upload(data) for name, data in zip(split_names("m", N), parts, strict=True)
    }
    before = shop.blobs()

    with pytest.raises(InvalidRequest, match="found several GGUF models"):
        await shop.create(model="m", files={**files, "other.gguf": await shop.upload(model())})

    assert before <= shop.blobs()


async def test_linked_parts_stay_where_they_are_and_the_engine_finds_them(
    shop: Shop, parts: list[bytes], tmp_path: Path
) -> None:
    tiny = await shop.store.get("tiny")
    paths = write_parts(tmp_path / "parts", parts)

    await shop.create(model="m", links={path.name: str(path) for path in reversed(paths)})

    made, shown = await shop.store.get("m"), await shop.store.show("m")
    assert made.weights.name == "model-00001-of-00003.gguf"
    assert [(made.weights.parent / name).read_bytes() for name in split_names("model", N)] == parts
    assert set(shown.links.values()) == set(map(str, paths))
    assert made.parameter_count == tiny.parameter_count
    assert [name for name, *_ in shown.tensors] == [
        t.name for t in read_header(tiny.weights).tensors
    ]
    assert [line for line in shown.modelfile.splitlines() if line.startswith("FROM ")] == [
        f"FROM {made.weights.parent / name}" for name in split_names("model", N)
    ]
    assert shown.requires == "0.35.0"
    assert made.size_bytes > sum(map(len, parts))


async def test_a_part_that_changed_is_told_by_name(
    shop: Shop, parts: list[bytes], tmp_path: Path
) -> None:
    paths = write_parts(tmp_path / "parts", parts)
    await shop.create(model="m", links={path.name: str(path) for path in paths})
    await shop.store.get("m")

    os.utime(paths[2], (1, 1))

    with pytest.raises(Exception, match=f"the linked file {paths[2]} changed"):
        await shop.store.get("m")


async def test_folders_of_links_are_made_again_and_go_with_their_model(
    tmp_path: Path,
) -> None:
    root = tmp_path / "models"
    async with open_shop(root) as shop:
        data = split_gguf((await shop.store.get("tiny")).weights, N)
        paths = write_parts(tmp_path / "parts", data)
        await shop.create(model="m", links={path.name: str(path) for path in paths})
        weights = (await shop.store.get("m")).weights
        weights.unlink()
        assert (await shop.store.get("m")).weights.is_symlink()
        await shop.store.delete("m")

    async with open_shop(root):
        pass

    assert list((root / splits.FOLDER).iterdir()) == []
    assert all(path.exists() for path in paths)


def test_facts_of_the_whole_count_all_tensors() -> None:
    whole = splits.whole_facts(
        [ModelFacts(architecture="a", parameter_count=n) for n in (1000, 500)]
    )

    assert (whole.architecture, whole.parameter_count, whole.parameter_size) == ("a", 1500, "2K")
    assert msgspec.json.decode(msgspec.json.encode(whole), type=ModelFacts) == whole
