"""A store as Ollama lays it out is read, and what olm writes is what Ollama would."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from olm.errors import CorruptStore, NotYetSupported
from olm.store.gc import PARTIAL_KEPT_S
from olm.store.library import Library
from olm.store.manifests import Layer, config_layer, decode_manifest, encode_manifest
from olm.store.names import Digest, ModelName
from store.gguf_files import model

IMAGE = "application/vnd.ollama.image."
GGUF = model(tokenizer__chat_template="x")


def blob(root: Path, data: bytes) -> tuple[str, int]:
    digest = hashlib.sha256(data).hexdigest()
    (root / "blobs").mkdir(parents=True, exist_ok=True)
    (root / "blobs" / f"sha256-{digest}").write_bytes(data)
    return f"sha256:{digest}", len(data)


def lay_out(root: Path, where: str, config: dict[str, object], **layers: bytes) -> Path:
    """Write a model by hand, as Ollama's files look, unknown fields included."""
    digest, size = blob(root, json.dumps(config).encode())
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": digest,
            "size": size,
            "urls": ["unknown"],
        },
        "layers": [],
        "annotations": {"unknown": "field"},
    }
    for kind, data in layers.items():
        digest, size = blob(root, data)
        entry = {"mediaType": IMAGE + kind, "digest": digest, "size": size, "from": "parent:latest"}
        manifest["layers"].append(entry)  # type: ignore[attr-defined]
    path = root / "manifests" / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest, indent=3))
    return path


CONFIG = {
    "model_format": "gguf",
    "model_family": "llama",
    "model_families": None,
    "model_type": "320",
    "file_type": "F16",
    "architecture": "amd64",
    "os": "linux",
    "rootfs": {"type": "layers", "diff_ids": ["sha256:00"]},
}


def test_a_store_written_by_ollama_is_read(tmp_path: Path) -> None:
    path = lay_out(
        tmp_path,
        "hf.co/User/Repo-GGUF/Q4_K_M",
        {**CONFIG, "renderer": "qwen3-coder", "parser": "qwen3-coder", "requires": "0.14.0"},
        model=GGUF,
        template=b"{{ .Tools }}{{ .Prompt }}",
        system=b"S",
        params=b'{"stop":["a","b"],"num_ctx":2048,"from_the_future":{}}',
        messages=b'[{"role":"user","content":"hi"},{"role":"assistant","content":"","tool_calls":'
        b'[{"function":{"name":"f","arguments":{"b":1,"a":2}}}],"extra":1}]',
        license=b"L",
        **{"from.the.future": b"?"},
    )

    library = Library.open(tmp_path, builtin=False)
    try:
        found = library.get("HF.CO/user/repo-gguf:q4_k_m")
        (listed,) = library.list()
    finally:
        library.close()

    assert found.entry.name.shortest == "hf.co/User/Repo-GGUF:Q4_K_M"
    assert found.entry.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.parameters == {"stop": ["a", "b"], "num_ctx": 2048, "from_the_future": {}}
    assert found.messages[1].tool_calls[0].arguments_json == '{"b":1,"a":2}'
    assert (found.config.renderer, found.config.requires) == ("qwen3-coder", "0.14.0")
    assert found.system == "S"
    assert found.parent == "parent:latest"
    assert listed.capabilities == ("completion", "tools")
    assert path.read_text().startswith('{\n   "schemaVersion"'), "it is left byte for byte"


def test_what_olm_writes_is_what_ollama_writes(library: Library) -> None:
    config, _ = library.blobs.put(b"{}")
    weights, _ = library.blobs.put(b"GGUF")

    library.publish(
        ModelName.parse("me/x:y"),
        encode_manifest(config_layer(config, 2), [Layer(IMAGE + "model", str(weights), 4)]),
    )

    path = library.root / "manifests/registry.ollama.ai/me/x/y"
    assert path.read_text() == (
        '{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",'
        '"config":{"mediaType":"application/vnd.docker.container.image.v1+json",'
        f'"digest":"{config}","size":2}},"layers":[{{"mediaType":"{IMAGE}model",'
        f'"digest":"{weights}","size":4}}]}}\n'
    )
    assert path.stat().st_mode & 0o777 == 0o644
    assert sorted(p.name for p in (library.root / "blobs").iterdir()) == sorted(
        [config.file_name, weights.file_name]
    )


def test_a_safetensors_model_is_listed_but_not_run(tmp_path: Path) -> None:
    lay_out(
        tmp_path, "registry.ollama.ai/library/m/latest", {**CONFIG, "model_format": "safetensors"}
    )

    library = Library.open(tmp_path, builtin=False)
    try:
        assert len(library.list()) == 1
        with pytest.raises(NotYetSupported, match="safetensors format"):
            library.get("m")
    finally:
        library.close()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"schemaVersion":2}',
        '{"schemaVersion":2,"mediaType":"","config":{"mediaType":"","digest":"","size":0},"layers":[]}',
        '{"schemaVersion":2,"mediaType":"","config":{"mediaType":"","digest":"sha256:../../../../etc/passwd","size":0}}',
        '{"schemaVersion":2,"mediaType":"","config":{"mediaType":"","digest":"sha256:%s","size":-1}}'
        % ("0" * 64),
        '{"schemaVersion":2,"mediaType":"","config":{"mediaType":"","digest":"sha256:%s","size":1e400}}'
        % ("0" * 64),
        '{"schemaVersion":2,"mediaType":"","config":null,"layers":[null]}',
        "[" * 100_000,
        '{"unknown":' + "[" * 100_000,
        "\xff",
    ],
)
def test_damaged_manifests_are_named(text: str) -> None:
    with pytest.raises(CorruptStore, match=r"damaged|layer of"):
        decode_manifest(text.encode("latin-1"))


def test_ten_thousand_layers_are_read_and_more_refused() -> None:
    layer = {"mediaType": IMAGE + "tensor", "digest": "sha256:" + "0" * 64, "size": 1}
    whole = {"schemaVersion": 2, "mediaType": "", "config": layer}

    many = decode_manifest(json.dumps({**whole, "layers": [layer] * 10_000}).encode())

    assert many.size_bytes == 10_001
    with pytest.raises(CorruptStore, match="10001 layers"):
        decode_manifest(json.dumps({**whole, "layers": [layer] * 10_001}).encode())


def test_links_fifos_and_odd_names_in_the_manifest_tree_are_passed_over(tmp_path: Path) -> None:
    good = lay_out(tmp_path, "registry.ollama.ai/library/good/latest", CONFIG, model=GGUF)
    folder = good.parent
    (folder / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")
    (folder / "bad name").write_text("{}")
    (folder / "deeper").mkdir()
    (tmp_path / "manifests/loop").symlink_to(tmp_path / "manifests")
    (tmp_path / "manifests/stray").write_text("x")

    library = Library.look(tmp_path)

    assert [m.entry.name.shortest for m in library.list()] == ["good:latest"]
    assert library.find("good:link") is None
    assert library.find("good:pipe") is None


def test_a_look_needs_no_lock_and_changes_nothing(library: Library) -> None:
    before = sorted(library.root.rglob("*"))

    assert Library.look(library.root).list() == []
    assert sorted(library.root.rglob("*")) == before


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_upkeep_at_start(tmp_path: Path) -> None:
    lay_out(tmp_path, "registry.ollama.ai/library/m/latest", CONFIG, model=GGUF)
    blobs = tmp_path / "blobs"
    orphan, young = blobs / f"sha256-{'1' * 64}", blobs / f"sha256-{'2' * 64}"
    partial, part = blobs / f"sha256-{'3' * 64}-partial", blobs / f"sha256-{'3' * 64}-partial-0"
    stale, junk = blobs / f"sha256-{'4' * 64}-partial", blobs / "junk"
    temp, colon = blobs / ".olm-tmp-0123", blobs / f"sha256:{'5' * 64}"
    for path in (orphan, young, partial, part, stale, junk, temp, colon):
        path.write_bytes(b"x")
    for path in (orphan, partial, part, junk):
        age(path, 2 * 3600)
    age(stale, PARTIAL_KEPT_S + 60)
    (tmp_path / "manifests/host/empty/folder").mkdir(parents=True)
    needed = {p.name for p in blobs.iterdir()} - {
        orphan.name, young.name, partial.name, part.name, stale.name, junk.name, temp.name, colon.name,
    }  # fmt: skip

    Library.open(tmp_path, builtin=False).close()

    assert {p.name for p in blobs.iterdir()} == needed | {
        young.name, partial.name, part.name, f"sha256-{'5' * 64}",
    }  # fmt: skip
    assert not (tmp_path / "manifests/host").exists()


def test_nothing_is_pruned_when_a_manifest_cannot_be_read_or_on_request(tmp_path: Path) -> None:
    broken = lay_out(tmp_path, "registry.ollama.ai/library/m/latest", CONFIG, model=GGUF)
    broken.write_text("{")
    everything = {p.name for p in (tmp_path / "blobs").iterdir()}
    for path in (tmp_path / "blobs").iterdir():
        age(path, 7200)

    Library.open(tmp_path, builtin=False).close()
    assert {p.name for p in (tmp_path / "blobs").iterdir()} == everything

    broken.unlink()
    Library.open(tmp_path, builtin=False, noprune=True).close()
    assert {p.name for p in (tmp_path / "blobs").iterdir()} == everything

    Library.open(tmp_path, builtin=False).close()
    assert not list((tmp_path / "blobs").iterdir())


def test_a_damaged_index_is_read_afresh(library: Library) -> None:
    weights, _ = library.blobs.put(GGUF)
    first = library.index.weights(weights)
    library.close()
    path = library.root / "olm-index.json"
    assert first.architecture in path.read_text()

    for text in (b"", b"{", b'{"version":1,"weights":{"x":1}}', b"\xff", b'{"version":999}'):
        path.write_bytes(text)
        assert Library.look(library.root).index.weights(weights) == first


def test_listing_again_reads_no_file(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "olm.store.tree.RACY_NS", 0
    )  # as if what is written here were two seconds old
    config, _ = library.blobs.put(json.dumps(CONFIG).encode())
    weights, _ = library.blobs.put(GGUF)
    size = library.blobs.size(config) or 0
    for i in range(50):
        library.publish(
            ModelName.parse(f"m{i}"),
            encode_manifest(
                config_layer(config, size), [Layer(IMAGE + "model", str(weights), len(GGUF))]
            ),
        )
    first = library.list()
    opened: list[str] = []
    real_open = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *a, **k: (opened.append(str(path)), real_open(path, *a, **k))[1]
    )

    again = library.list()

    assert again == first
    assert len(again) == 50
    assert opened == []


def test_the_built_in_model_yields_to_the_users_own(tmp_path: Path) -> None:
    path = lay_out(tmp_path, "registry.ollama.ai/library/tiny/latest", CONFIG, model=GGUF)
    text = path.read_text()

    Library.open(tmp_path).close()

    assert path.read_text() == text


def test_the_built_in_model_is_repaired_and_an_older_one_of_ours_is_replaced(
    tmp_path: Path,
) -> None:
    Library.open(tmp_path).close()
    manifest = tmp_path / "manifests/registry.ollama.ai/library/tiny/latest"
    newest = manifest.read_bytes()
    weights = Library.look(tmp_path).get("tiny").weights
    weights.unlink()

    Library.open(tmp_path).close()
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == weights.name.removeprefix("sha256-")

    older = newest.replace(b'"size":56', b'"size":57')
    manifest.write_bytes(older)
    (tmp_path / "olm-builtin.json").write_text(json.dumps({"installed": Digest.of(older).hex}))
    Library.open(tmp_path).close()
    assert manifest.read_bytes() == newest


def test_the_built_in_model_costs_no_hashing_when_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Library.open(tmp_path).close()
    hashed: list[int] = []
    real = hashlib.sha256

    def counting(data: bytes = b"") -> object:
        hashed.append(len(data))
        return real(data)

    monkeypatch.setattr(hashlib, "sha256", counting)
    Library.open(tmp_path).close()

    assert sum(hashed) < 10_000


def test_an_oci_manifest_may_leave_its_media_type_out() -> None:
    data = b'{"schemaVersion":2,"config":{"mediaType":"c","digest":"sha256:%b","size":1}}'
    manifest = decode_manifest(data % (b"0" * 64))

    assert manifest.media_type == "application/vnd.docker.distribution.manifest.v2+json"
