"""Listing and looking up: what is kept from before is believed while it holds, and names need no walk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from olm.errors import CorruptStore
from olm.store.library import Library
from olm.store.manifests import MODEL, Layer, config_layer, encode_manifest
from olm.store.names import ModelName
from store.gguf_files import model

GGUF = model(tokenizer__chat_template="x")


@pytest.fixture
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if everything the test writes were two seconds old."""
    monkeypatch.setattr("olm.store.tree.RACY_NS", -(1 << 62))


def publish(library: Library, name: str, n: int = 0) -> ModelName:
    config, _ = library.blobs.put(b'{"model_format":"gguf","model_type":"%d"}' % n)
    weights, _ = library.blobs.put(GGUF)
    size = library.blobs.size(config) or 0
    layers = [Layer(MODEL, str(weights), len(GGUF))]
    return library.publish(
        ModelName.parse(name), encode_manifest(config_layer(config, size), layers)
    )


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[str]]]:
    """What is opened and listed of the store."""
    calls: dict[str, list[str]] = {"open": [], "scandir": []}
    real_open, real_scandir = os.open, os.scandir

    def opening(path: str, *args: int, **kwargs: int) -> int:
        calls["open"].append(str(path))
        return real_open(path, *args, **kwargs)

    def scanning(path: str) -> object:
        calls["scandir"].append(str(path))
        return real_scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opening)
        patch.setattr(os, "scandir", scanning)
        yield calls


def names(library: Library) -> list[str]:
    return sorted(item.entry.name.shortest for item in library.list())


@pytest.mark.usefixtures("_settled")
def test_a_new_process_reads_no_manifest_again(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(30):
        publish(library, f"ns/m{i}", i)
    first = library.list()
    library.close()

    with counted(monkeypatch) as calls:
        again = Library.look(library.root).list()

    assert again == first
    assert [Path(path).name for path in calls["open"]] == ["olm-catalog.bin", "olm-index.json"]


@pytest.mark.usefixtures("_settled")
def test_what_others_change_is_noticed(library: Library) -> None:
    """As Ollama does: written in place, removed, added, replaced."""
    for name in ("a", "b", "c"):
        publish(library, name)
    assert names(library) == ["a:latest", "b:latest", "c:latest"]
    library.close()
    folder = library.root / "manifests/registry.ollama.ai/library"
    data = (folder / "a/latest").read_bytes()
    stale = Library.look(library.root)
    stale.list()

    changed = data.replace(b'"size":', b'"size":1')
    with (folder / "a/latest").open("r+b") as file:  # the same inode
        file.write(changed)
    (folder / "b/latest").unlink()
    (folder / "B").mkdir()
    (folder / "B/New").write_bytes(data)
    (folder / "c").rename(folder / "d")

    for looked in (stale, Library.look(library.root)):
        found = {item.entry.name.shortest: item.entry.data for item in looked.list()}
        assert found == {"a:latest": changed, "B:New": data, "d:latest": data}
        assert looked.find("b:new") is not None
        assert looked.find("D") is not None
        assert looked.find("c") is None


def test_what_changed_just_now_is_read_again(library: Library) -> None:
    """A second change within the clock's grain leaves no trace in the times."""
    publish(library, "m")
    path = library.root / "manifests/registry.ollama.ai/library/m/latest"
    library.list()
    before = path.stat()

    changed = path.read_bytes()[:-1] + b" "
    with path.open("r+b") as file:
        file.write(changed)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    (entry,) = library.catalog.entries()

    assert entry.data == changed


@pytest.mark.usefixtures("_settled")
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other version", "lying"])
def test_a_damaged_snapshot_costs_a_second_reading_and_nothing_else(
    library: Library, damage: str
) -> None:
    for i in range(20):
        publish(library, f"m{i}", i)
    first = library.list()
    library.close()
    path = library.root / "olm-catalog.bin"
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1

    path.write_bytes(
        {
            "cut": data[:-1],
            "flipped": bytes(flipped),
            "empty": b"",
            "other version": data.replace(b"olm catalog ", b"olm catalog 9", 1),
            "lying": data[:30] + b"\xff" * 100,
        }[damage]
    )

    assert Library.look(library.root).list() == first


@pytest.mark.usefixtures("_settled")
def test_looking_a_name_up_lists_no_folder_and_an_unknown_one_only_those_on_its_way(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(20):
        publish(library, f"ns{i}/Model:Tag")
    fresh = Library.look(library.root)

    with counted(monkeypatch) as exact:
        assert fresh.find("ns3/Model:Tag") is not None
    with counted(monkeypatch) as folded:
        assert fresh.find("NS3/MODEL:TAG") is not None
    with counted(monkeypatch) as again:
        assert fresh.find("NS3/mODEL:tAG") is not None
        assert fresh.find("ns3/model:other") is None
        assert fresh.find("nobody/has:it") is None

    root = library.root / "manifests"
    host = root / "registry.ollama.ai"
    assert exact["scandir"] == []
    assert folded["scandir"] == [
        str(path) for path in (root, host, host / "ns3", host / "ns3/Model")
    ]
    assert again["scandir"] == []


def test_of_names_that_differ_in_case_the_one_spelled_alike_is_found(library: Library) -> None:
    folder = library.root / "manifests/registry.ollama.ai"
    publish(library, "Me/Model:Q8")
    data = (folder / "Me/Model/Q8").read_bytes()
    for where in ("ME/other/x", "me/MODEL/q4"):
        (folder / where).parent.mkdir(parents=True)
        (folder / where).write_bytes(data)

    found = [library.find(name) for name in ("me/model:q8", "ME/Other:X", "mE/mODEL:Q4")]

    shown = [entry.name.shortest if entry else "" for entry in found]
    assert shown == ["Me/Model:Q8", "ME/other:x", "me/MODEL:q4"]
    assert publish(library, "me/model:Q8").shortest == "Me/Model:Q8"
    assert publish(library, "ME/new:q8").shortest == "ME/new:Q8"  # part by part, as Ollama does


@pytest.mark.parametrize("how", ["link", "closed"])
def test_nothing_is_pruned_when_models_may_be_out_of_sight(
    library: Library, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(library, "host/ns/m")
    folder, blobs = library.root / "manifests/host", library.root / "blobs"
    for path in blobs.iterdir():
        os.utime(path, (0, 0))
    before = sorted(path.name for path in blobs.iterdir())
    library.close()
    if how == "link":
        folder.rename(library.root / "elsewhere")
        folder.symlink_to(library.root / "elsewhere")
        words = "is a link, which is not followed"
    else:
        real = os.scandir

        def closed(path: str) -> object:
            if str(path) == str(folder):
                raise PermissionError(13, "Permission denied")
            return real(path)

        monkeypatch.setattr(os, "scandir", closed)
        words = "cannot be read: permission denied"

    opened = Library.open(library.root, builtin=False)
    with pytest.raises(CorruptStore, match=words):
        opened.catalog.entries_or_raise()
    opened.close()

    assert sorted(path.name for path in blobs.iterdir()) == before


def test_an_index_that_cannot_be_written_is_borne(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(20):
        publish(library, f"m{i}", i)
    monkeypatch.setattr("olm.store.tree.RACY_NS", -(1 << 62))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("olm.store.snapshot.write_durably", full)

    assert len(library.list()) == 20
    library.close()
    assert len(Library.look(library.root).list()) == 20
