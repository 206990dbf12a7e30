"""Archives that lie are refused, and leave nothing; those of other tools are taken."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path

import pytest
import zstandard

from olm.errors import DigestMismatch, OlmError
from olm.store.archive import INDEX, LAYOUT
from olm.store.manifests import MODEL, Layer, config_layer, encode_manifest
from olm.store.names import Digest
from olm.store.tar import file_header
from store.archives import (
    CONFIG,
    GOOD,
    MANIFEST,
    NAMED,
    WEIGHTS,
    Pieces,
    blob,
    imported,
    index_of,
    odd,
    tar_of,
)
from store.conftest import Shop


async def test_the_annotation_of_oci_or_the_given_name_is_taken(other: Shop) -> None:
    await imported(other, source=Pieces(tar_of(GOOD)))
    nameless = [(INDEX, index_of(MANIFEST)), *GOOD[1:]]
    await imported(other, source=Pieces(tar_of(nameless)), name="mine:1")

    assert {m.name for m in await other.store.list()} == {"given:latest", "mine:1"}


async def test_order_folders_and_what_docker_adds_do_not_matter(other: Shop) -> None:
    members = [*reversed(GOOD), ("manifest.json", b"[]"), (LAYOUT, b"{}")]
    data = tar_of(
        [(f"./{n}", d) for n, d in members],
        odd(tarfile.DIRTYPE, "./"),
        odd(tarfile.DIRTYPE, "blobs"),
    )

    await imported(other, source=Pieces(data + b"trailing garbage"))

    assert [m.name for m in await other.store.list()] == ["given:latest"]


def member(name: str, data: bytes, **fields: bytes) -> bytes:
    """A member whose header has fields of our own, with a checksum that is right; fields are named by their offset."""
    raw = bytearray(file_header(name, len(data)))
    for place, value in fields.items():
        raw[int(place[1:]) : int(place[1:]) + len(value)] = value
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw) + data + bytes(-len(data) % 512)


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    return member("PaxHeaders/x", records, _156=kind)


def record(key: str, value: str) -> bytes:
    body = f" {key}={value}\n".encode()
    n_bytes = len(body) + len(str(len(body)))
    n_bytes += len(str(n_bytes)) - len(str(len(body)))
    return str(n_bytes).encode() + body


FLIPPED = (blob(WEIGHTS)[0], b"Weights of a model")
REST = tar_of(GOOD)
OTHER_MANIFEST = encode_manifest(
    config_layer(Digest.of(CONFIG), len(CONFIG)),
    [Layer(MODEL, str(Digest.of(WEIGHTS)), len(WEIGHTS) + 1)],
)
IMAGE = MANIFEST.replace(b"application/vnd.ollama.image", b"application/vnd.oci.image")
ITEM = json.dumps(json.loads(NAMED)["manifests"][0]).encode() + b", "
ONE_BLOCK = zstandard.compress(bytes(64 << 20))
HOSTILE = {
    "a path upwards": (tar_of([("../evil", b"x"), *GOOD]), "no part of an OCI image layout"),
    "an absolute path": (tar_of([("/etc/evil", b"x"), *GOOD]), "no part of an OCI image layout"),
    "a sly path": (
        tar_of([("blobs/sha256/../../evil", b"x"), *GOOD]),
        "no part of an OCI image layout",
    ),
    "a symbolic link": (tar_of(GOOD, odd(tarfile.SYMTYPE)), "a symbolic link"),
    "a hard link": (tar_of(GOOD, odd(tarfile.LNKTYPE)), "a hard link"),
    "a device": (tar_of(GOOD, odd(tarfile.CHRTYPE)), "a device"),
    "a block device": (tar_of(GOOD, odd(tarfile.BLKTYPE)), "a device"),
    "a FIFO": (tar_of(GOOD, odd(tarfile.FIFOTYPE)), "a FIFO"),
    "a duplicate": (tar_of([*GOOD, GOOD[-1]]), "twice"),
    "a wrong digest": (tar_of([*GOOD[:-1], FLIPPED]), "digest mismatch"),
    "a wrong size": (tar_of([*GOOD[:-1], (FLIPPED[0], b"x")]), "the manifest says 18"),
    "a stranger": (tar_of([*GOOD, blob(b"stranger")]), "belongs to no model"),
    "a missing blob": (tar_of(GOOD[:-1]), "model given:latest, blob sha256:.* neither in the arch"),
    "a missing manifest": (tar_of(GOOD[:1]), "model given:latest, blob sha256:.* neither"),
    "no index": (tar_of(GOOD[1:]), "no index.json"),
    "no name": (tar_of([(INDEX, index_of(MANIFEST)), *GOOD[1:]]), "give it a name"),
    "a bad name": (
        tar_of(
            [(INDEX, index_of(MANIFEST, org_opencontainers_image_ref_name="a/../b")), *GOOD[1:]]
        ),
        "invalid name",
    ),
    "a huge index": (tar_of([(INDEX, bytes((4 << 20) + 1))]), "more than 4194304"),
    "a cut archive": (tar_of(GOOD)[:4000], "ends in the middle|neither in the archive"),
    "no archive": (b"hello world" * 100, "not a tar archive"),
    "nothing": (b"", "no index.json"),
    "a broken frame": (zstandard.compress(tar_of(GOOD))[:-40] + bytes(40), "damaged|ends in the"),
    "an impossible size": (
        file_header(blob(WEIGHTS)[0], 1 << 60) + WEIGHTS,
        "no space left on device: .* needed, .* free|ends in the middle",
    ),
    "a name in a pax header that goes upwards": (
        pax(record("path", "../../evil")) + member("x", b"") + REST,
        "no part of an OCI image layout",
    ),
    "a link in a pax header": (
        pax(record("linkpath", "/etc/passwd")) + member("index.json", b"") + REST,
        "a link or sparse file",
    ),
    "a sparse file of pax": (
        pax(record("GNU.sparse.major", "1")) + member("index.json", b"") + REST,
        "a link or sparse file",
    ),
    "a sparse file of GNU": (member("index.json", b"", _156=b"S") + REST, "a sparse file"),
    "a long name of GNU": (member("././@LongLink", b"x" * 200, _156=b"L") + REST, "a long name"),
    "a long link of GNU": (member("././@LongLink", b"x" * 200, _156=b"K") + REST, "long link name"),
    "a member of no known kind": (member("index.json", b"", _156=b"Z") + REST, "unknown kind"),
    "a bad size in a pax header": (
        pax(record("size", "-1")) + member("index.json", b"") + REST,
        "a bad size",
    ),
    "a size in a pax header beyond the archive": (
        pax(record("size", "999999999999")) + member(blob(WEIGHTS)[0], b"") + REST,
        "ends in the middle|no space left|no index.json",
    ),
    "a negative size": (
        member("index.json", b"", _124=b"\xff" * 12) + REST,
        "impossible size",
    ),
    "a size in base 256 that no disk has": (
        member("index.json", b"", _124=b"\x80" + b"\x7f" * 11) + REST,
        "impossible size",
    ),
    "a size that is no number": (member("index.json", b"", _124=b"0o000000017\0") + REST, "size"),
    "a size with a sign": (member("index.json", b"", _124=b"-0000000001\0") + REST, "size"),
    "a wrong checksum": (REST[:148] + b"0000000\0" + REST[156:], "checksum is wrong"),
    "a pax header that never ends": (pax(b"9" * 70000) + REST, "a header that is too long"),
    "a pax header that lies about its length": (pax(b"99 path=x\n") + REST, "damaged extended"),
    "pax headers without end": (pax(record("comment", "x")) * 20 + REST, "too many headers"),
    "a second index": (tar_of([*GOOD, (INDEX, NAMED)]), "index.json twice"),
    "a second index by another spelling": (tar_of([*GOOD, (f"./{INDEX}", NAMED)]), "twice"),
    "folders without end": (
        zstandard.compress(member("blobs", b"", _156=b"5") * 100_001),
        "more than 100000 members",
    ),
    "a folder with a content": (member("blobs", b"x", _156=b"5") + REST, "folder with a content"),
    "zeros beyond all that was announced": (
        b"".join(member(*item) for item in GOOD[:-1]) + file_header(blob(WEIGHTS)[0], 1 << 40),
        "the manifest says 18|ends in the middle",
    ),
    "a terabyte of zeros": (
        zstandard.compress(file_header(blob(WEIGHTS)[0], 1 << 50)) + ONE_BLOCK * 3,
        "no space left on device: .* needed",
    ),
    "a manifest that is no manifest": (
        tar_of([(INDEX, index_of(b"[]", org_opencontainers_image_ref_name="x")), blob(b"[]")]),
        "model x:latest: its manifest in the archive is damaged",
    ),
    "a manifest of an image": (
        tar_of(
            [
                (INDEX, index_of(IMAGE, org_opencontainers_image_ref_name="x")),
                blob(IMAGE),
                blob(CONFIG),
                blob(WEIGHTS),
            ]
        ),
        "is no model",
    ),
    "two manifests that disagree about a blob": (
        tar_of(
            [
                (
                    INDEX,
                    json.dumps(
                        {
                            "schemaVersion": 2,
                            "manifests": [
                                *json.loads(NAMED)["manifests"],
                                *json.loads(
                                    index_of(OTHER_MANIFEST, org_opencontainers_image_ref_name="z")
                                )["manifests"],
                            ],
                        }
                    ).encode(),
                ),
                blob(MANIFEST),
                blob(OTHER_MANIFEST),
            ]
        ),
        "two sizes are given",
    ),
    "two models of one name": (
        tar_of([(INDEX, NAMED.replace(b'"manifests": [', b'"manifests": [' + ITEM)), *GOOD[1:]]),
        "the model given:latest twice",
    ),
    "an index that is deep": (tar_of([(INDEX, b"[" * 100_000)]), "index.json is damaged"),
    "an index of nothing": (
        tar_of([(INDEX, b'{"schemaVersion":2,"manifests":[]}')]),
        "no model in it",
    ),
    "a folder packed with its name": (
        tar_of([(f"layout/{name}", data) for name, data in GOOD]),
        "was the folder itself packed",
    ),
    "gzip": (gzip.compress(REST), "compressed with gzip: only zstd is read"),
    "zip": (b"PK\x03\x04" + bytes(600), "a zip file"),
    "a GGUF file": (b"GGUF\x03\0\0\0" + bytes(600), "olm create"),
    "a huge window": (
        zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters(window_log=30)
        )
        .compressobj()
        .compress(b"")
        + b"\x28\xb5\x2f\xfd\x00\xa8"
        + bytes(64),
        "damaged",
    ),
}


SLOW = {"folders without end": pytest.mark.slow}


@pytest.mark.parametrize("way", ["stream", "file"])
@pytest.mark.parametrize("what", [pytest.param(what, marks=SLOW.get(what, ())) for what in HOSTILE])
async def test_an_archive_that_lies_is_refused_and_leaves_nothing(
    other: Shop, tmp_path: Path, what: str, way: str
) -> None:
    data, words = HOSTILE[what]
    path = tmp_path / "archive"
    path.write_bytes(data)

    with pytest.raises(OlmError, match=words) as error:
        await (imported(other, source=Pieces(data)) if way == "stream" else imported(other, path))
    assert "\n" not in str(error.value)
    assert await other.store.list() == []
    assert other.blobs() == set()


async def test_a_folder_may_lie_too(other: Shop, tmp_path: Path) -> None:
    folder = tmp_path / "layout"
    (folder / "blobs/sha256").mkdir(parents=True)
    for name, data in GOOD[:-1]:
        (folder / name).write_bytes(data)
    (folder / GOOD[-1][0]).symlink_to("/dev/zero")

    with pytest.raises(OlmError):
        await imported(other, folder)
    (folder / GOOD[-1][0]).unlink()
    (folder / GOOD[-1][0]).write_bytes(FLIPPED[1])
    with pytest.raises(DigestMismatch):
        await imported(other, folder)
    assert await other.store.list() == []
