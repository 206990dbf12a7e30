"""Leases: what a job or an upload holds is not pruned, and goes as soon as nobody wants it."""

from __future__ import annotations

import pytest

from olm.store.gc import UPLOAD_LEASE_S, Janitor
from olm.store.library import Library
from olm.store.manifests import SYSTEM, Layer, config_layer, encode_manifest
from olm.store.names import Digest, ModelName


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def janitor(library: Library, clock: Clock) -> Janitor:
    return Janitor(library.blobs, library.catalog, clock)


def put(library: Library, text: bytes) -> Digest:
    return library.blobs.put(text)[0]


def is_there(library: Library, digest: Digest) -> bool:
    return library.blobs.size(digest) is not None


def test_a_held_blob_outlives_pruning_and_goes_at_release(
    library: Library, janitor: Janitor
) -> None:
    held, free = put(library, b"held"), put(library, b"free")
    janitor.hold("job", [held])

    assert janitor.prune([held, free]) == [free]
    assert is_there(library, held)
    assert janitor.release("job") == [held]
    assert not is_there(library, held)
    assert janitor.release("job") == []


def test_an_upload_waits_for_every_create_that_asked_for_it(
    library: Library, janitor: Janitor, clock: Clock
) -> None:
    tokenizer = put(library, b"shared by two checkpoints")
    janitor.touch(tokenizer)
    clock.now += 1
    janitor.touch(tokenizer)

    janitor.settle([tokenizer])
    assert janitor.release("first", [tokenizer]) == []
    janitor.settle([tokenizer])
    assert janitor.release("second", [tokenizer]) == [tokenizer]


def test_the_last_of_several_holders_counts(library: Library, janitor: Janitor) -> None:
    blob = put(library, b"x")
    janitor.hold("one", [blob])
    janitor.hold("two", [blob])
    janitor.prune([blob])

    assert janitor.release("one") == []
    assert janitor.release("two") == [blob]


def test_a_hold_alone_condemns_nothing(library: Library, janitor: Janitor) -> None:
    blob = put(library, b"x")
    janitor.hold("job", [blob])

    assert janitor.release("job") == []
    assert is_there(library, blob)


def test_leftovers_go_unless_a_model_has_them(library: Library, janitor: Janitor) -> None:
    used, left = put(library, b"used"), put(library, b"left")
    config = put(library, b"{}")
    janitor.hold("job", [used, left, config])
    library.publish(
        ModelName.parse("m"),
        encode_manifest(config_layer(config, 2), [Layer(SYSTEM, str(used), 4)]),
    )

    assert janitor.release("job", [used, left, config]) == [left]
    assert is_there(library, used)


def test_an_upload_is_kept_for_an_hour_or_until_a_model_has_it(
    library: Library, janitor: Janitor, clock: Clock
) -> None:
    waiting, settled = put(library, b"waiting"), put(library, b"settled")
    janitor.touch(waiting)
    janitor.touch(settled)
    janitor.settle([settled])

    assert janitor.prune([waiting, settled]) == [settled]
    clock.now += UPLOAD_LEASE_S
    assert janitor.prune([waiting]) == [waiting]


def test_a_manifest_that_cannot_be_read_keeps_everything(
    library: Library, janitor: Janitor
) -> None:
    blob = put(library, b"x")
    folder = library.root / "manifests/h/n/m"
    folder.mkdir(parents=True)
    (folder / "t").write_text("{")

    assert janitor.prune([blob]) == []
    assert is_there(library, blob)
