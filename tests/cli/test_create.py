"""`olm create`: what FROM means, what is uploaded, what is asked of the server, and what is refused before it."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from cli.canned import Canned, Run
from kit.hf import FIXTURES
from olm.cli.create import create_body
from olm.cli.sources import find_sources, named_files
from olm.errors import CheckpointError, InvalidRequest
from olm.modelfile import parse_modelfile, spec_of

GGUF = b"GGUF" + bytes(range(256)) * 40
DIGEST = f"sha256:{hashlib.sha256(GGUF).hexdigest()}"


def test_existing_paths_are_files_and_anything_else_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "w.gguf").write_bytes(GGUF)
    (tmp_path / "llama").write_bytes(GGUF)

    assert find_sources(["./w.gguf", "llama3.2"], tmp_path).model == "llama3.2"
    assert find_sources(["w.gguf"], tmp_path).files == (tmp_path / "w.gguf",)
    assert find_sources(["llama"], tmp_path).files == (tmp_path / "llama",)
    assert find_sources([str(tmp_path)], Path("/")).files == (tmp_path / "w.gguf",)


def test_home_paths_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.gguf").write_bytes(GGUF)

    assert find_sources(["~/w.gguf"], Path("/elsewhere")).files == (tmp_path / "w.gguf",)


@pytest.mark.parametrize("value", ["./gone.gguf", "/gone", "~/gone", "gone.gguf"])
def test_a_missing_path_is_not_taken_for_a_model(tmp_path: Path, value: str) -> None:
    with pytest.raises(InvalidRequest, match="no such file"):
        find_sources([value], tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "kind", "words"),
    [
        ("model.safetensors", b"{}", CheckpointError, "model.safetensors: "),
        ("pytorch_model.bin", b"version https://git-lfs", CheckpointError, "git-lfs pointer"),
        ("weights.gguf", b"version https://git-lfs", InvalidRequest, "not in GGUF format"),
        ("weights.gguf", b"", InvalidRequest, "not in GGUF format"),
    ],
)
def test_what_is_no_gguf_is_refused_before_it_is_uploaded(
    tmp_path: Path, name: str, content: bytes, kind: type[Exception], words: str
) -> None:
    (tmp_path / name).write_bytes(content)

    for value in (name, "."):
        with pytest.raises(kind, match=words):
            find_sources([value], tmp_path)


def test_a_folder_whose_weights_lie_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(GGUF)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "w.gguf").symlink_to(tmp_path / "secret")

    with pytest.raises(InvalidRequest, match="insecure path"):
        find_sources(["model"], tmp_path)


def test_the_request_holds_what_the_modelfile_says_and_nothing_else() -> None:
    modelfile = """FROM x
PARAMETER stop a
PARAMETER stop b
PARAMETER temperature 0.5
SYSTEM ""
LICENSE MIT
MESSAGE user hi
MESSAGE assistant hello
"""

    assert create_body("m", spec_of(parse_modelfile(modelfile)), "q4_K_M") == {
        "model": "m",
        "quantize": "q4_K_M",
        "system": "",
        "license": ["MIT"],
        "parameters": {"stop": ["a", "b"], "temperature": 0.5},
        "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}],
    }
    assert create_body("m", spec_of(parse_modelfile("FROM x"))) == {"model": "m"}


@pytest.mark.slow
def test_create_uploads_what_the_server_lacks_and_shows_its_statuses(
    server: Canned, olm: Run, tmp_path: Path
) -> None:
    (tmp_path / "w.gguf").write_bytes(GGUF)
    (tmp_path / "Modelfile").write_text("FROM ./w.gguf\nPARAMETER low_vram true\nSYSTEM Be kind.\n")
    server.on("HEAD", f"/api/blobs/{DIGEST}", None, 404)
    server.on("POST", f"/api/blobs/{DIGEST}", None, 201)
    server.on("POST", "/api/create", [{"status": "parsing GGUF"}, {"status": "success"}])

    done = olm("create", "mine")

    assert done.stderr.splitlines() == [
        "gathering model components",
        "hashing file w.gguf",
        f"copying file {DIGEST}",
        "parsing GGUF",
        "success",
    ]
    assert (done.stdout, done.returncode) == ("warning: parameter low_vram is deprecated\n", 0)
    assert next(seen.body for seen in server.seen if seen.method == "POST") == GGUF
    assert server.bodies("/api/create") == [
        {"model": "mine", "system": "Be kind.", "files": {"w.gguf": DIGEST}}
    ]


@pytest.mark.slow
def test_create_sends_no_blob_twice_and_finds_the_modelfiles_folder(
    server: Canned, olm: Run, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.gguf").write_bytes(GGUF)
    (tmp_path / "sub" / "a.gguf").write_bytes(GGUF)
    (tmp_path / "sub" / "My").write_text("FROM base\nFROM w.gguf\nADAPTER ./a.gguf\n")
    server.on("HEAD", f"/api/blobs/{DIGEST}", None, 200)
    server.on("POST", "/api/create", [{"status": "success"}])

    assert olm("create", "mine", "-f", "sub/My", "-q", "q8_0").returncode == 0
    assert [seen.method for seen in server.seen] == ["HEAD", "HEAD", "POST"]
    assert server.bodies("/api/create") == [
        {
            "model": "mine",
            "quantize": "q8_0",
            "from": "base",
            "files": {"w.gguf": DIGEST},
            "adapters": {"a.gguf": DIGEST},
        }
    ]


@pytest.mark.slow
def test_create_without_a_modelfile_takes_the_folder(
    server: Canned, olm: Run, tmp_path: Path
) -> None:
    assert "no Modelfile or safetensors files found" in olm("create", "x").stderr

    (tmp_path / "w.gguf").write_bytes(GGUF)
    server.on("HEAD", f"/api/blobs/{DIGEST}", None, 200)
    server.on("POST", "/api/create", [{"status": "success"}])

    assert olm("create", "x").returncode == 0
    assert server.bodies("/api/create") == [{"model": "x", "files": {"w.gguf": DIGEST}}]


@pytest.mark.slow
def test_create_uploads_several_files_in_their_order_hashing_them_all_first(
    server: Canned, olm: Run, tmp_path: Path
) -> None:
    digests = {}
    for name in ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf"):
        data = GGUF + name.encode()
        (tmp_path / name).write_bytes(data)
        digests[name] = f"sha256:{hashlib.sha256(data).hexdigest()}"
        server.on("HEAD", f"/api/blobs/{digests[name]}", None, 404)
        server.on("POST", f"/api/blobs/{digests[name]}", None, 201)
    server.on("POST", "/api/create", [{"status": "success"}])

    done = olm("create", "x")

    assert done.stderr.splitlines() == [
        "gathering model components",
        *(f"hashing file {name}" for name in digests),
        *(f"copying file {digest}" for digest in digests.values()),
        "success",
    ]
    assert server.bodies("/api/create") == [{"model": "x", "files": digests}]


@pytest.mark.slow
def test_create_with_link_names_the_files_and_uploads_nothing(
    server: Canned, olm: Run, tmp_path: Path
) -> None:
    (tmp_path / "w.gguf").write_bytes(GGUF)
    (tmp_path / "way.gguf").symlink_to(tmp_path / "w.gguf")
    (tmp_path / "Modelfile").write_text("FROM ./way.gguf\n")
    path = str(tmp_path / "w.gguf")
    step: dict[str, object] = {"status": "hashing w.gguf", "digest": path, "total": len(GGUF)}
    server.on("POST", "/api/create", [step, {"status": f"linked to {path}"}])

    done = olm("create", "x", "--link")

    assert done.stderr.splitlines()[-1] == f"linked to {path}"
    assert [seen.method for seen in server.seen] == ["POST"]
    assert server.bodies("/api/create") == [{"model": "x", "links": {"way.gguf": path}}]

    server.on("POST", "/api/create", [{**step, "total": 7}, {"status": "success"}])
    done = olm("create", "x", "--link")

    assert f"Error: the server has another file at {path}" in done.stderr
    assert done.returncode == 1


@pytest.mark.slow
def test_create_says_why_nothing_can_be_linked(server: Canned, olm: Run, tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text("FROM base\n")

    assert "the Modelfile names none" in olm("create", "x", "--link").stderr
    assert server.seen == []


@pytest.mark.slow
def test_a_draft_must_be_another_file(olm: Run, tmp_path: Path) -> None:
    (tmp_path / "w.gguf").write_bytes(GGUF)
    (tmp_path / "Modelfile").write_text("FROM ./w.gguf\nDRAFT ./w.gguf\n")

    expected = f"DRAFT must not reference the same local path as FROM: {tmp_path / 'w.gguf'}"
    assert expected in olm("create", "x").stderr


@pytest.mark.slow
def test_create_says_what_is_wrong_with_the_modelfile(olm: Run, tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text("FROM x\nNONSENSE y\n")

    assert "Error: (line 2): command must be one of" in olm("create", "x").stderr
    assert "Modelfile wasn't found" in olm("create", "x", "-f", "nope").stderr


@pytest.mark.slow
def test_create_shows_the_servers_error(server: Canned, olm: Run, tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text("FROM base\n")
    server.on("POST", "/api/create", [{"status": "parsing GGUF"}, {"error": "unknown type"}])

    done = olm("create", "x")

    assert done.stderr.splitlines()[-2:] == ["parsing GGUF", "Error: unknown type"]
    assert done.returncode == 1


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint in the folder that commands run in."""
    fixture = Path(__file__).parents[1] / "fixtures/hf/llama-untied"
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        shutil.copy(fixture / name, tmp_path / name)
    return tmp_path


def digest_of(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_a_checkpoint_is_its_weights_and_what_lies_beside_them(checkpoint: Path) -> None:
    (checkpoint / "model.fp32.bin").write_bytes(b"others")
    (checkpoint / "notes.md").write_text("others")
    (checkpoint / "onnx").mkdir()
    (checkpoint / "onnx" / "model.bin").write_bytes(b"others")
    (checkpoint / "1_Pooling").mkdir()
    (checkpoint / "1_Pooling" / "config.json").write_text("{}")
    names = ["1_Pooling/config.json", "config.json", "model.safetensors", "tokenizer.json"]

    for value in (".", "model.safetensors"):
        found = find_sources([value], checkpoint)
        assert sorted(name for name, _ in named_files(found.files)) == names
        assert found.weights == {checkpoint / "model.safetensors"}


@pytest.mark.slow
def test_create_tells_a_server_here_where_weights_are_and_uploads_the_rest(
    server: Canned, olm: Run, checkpoint: Path
) -> None:
    small = {name: digest_of(checkpoint / name) for name in ("config.json", "tokenizer.json")}
    for digest in small.values():
        server.on("HEAD", f"/api/blobs/{digest}", None, 200)
    server.on("POST", "/api/create", [{"status": "success"}])

    flags = ["-q", "q4_K_M", "--tensor-type", "blk.[0-3]=x=q8_0", "--tensor-type", "attn=f16"]
    assert olm("create", "mine", *flags).returncode == 0
    assert server.bodies("/api/create") == [
        {
            "model": "mine",
            "quantize": "q4_K_M",
            "tensor_types": {"blk.[0-3]=x": "q8_0", "attn": "f16"},
            "links": {"model.safetensors": str(checkpoint / "model.safetensors")},
            "files": small,
        }
    ]


@pytest.mark.slow
def test_create_uploads_weights_that_the_server_cannot_read(
    server: Canned, olm: Run, checkpoint: Path
) -> None:
    files = {path.name: digest_of(path) for path in checkpoint.iterdir()}
    for digest in files.values():
        server.on("HEAD", f"/api/blobs/{digest}", None, 200)
    server.on("POST", "/api/create", {"error": "the server does not see the file x"}, 400)

    done = olm("create", "mine")

    first, second = server.bodies("/api/create")
    assert "links" in first
    assert "links" not in second
    assert second["files"] == files
    assert done.stderr.splitlines()[-1] == "Error: the server does not see the file x"

    server.on("POST", "/api/create", {"error": "invalid model name"}, 400)
    olm("create", "mine")
    assert len(server.bodies("/api/create")) == 3  # another error is no reason to try again


@pytest.mark.slow
def test_create_says_what_options_are_for(server: Canned, olm: Run, checkpoint: Path) -> None:
    alone = olm("create", "x", "--tensor-type", "a=f16")
    odd = olm("create", "x", "-q", "q8_0", "--tensor-type", "f16")
    (checkpoint / "m.dat").write_bytes(GGUF)
    server.on("HEAD", f"/api/blobs/{DIGEST}", None, 200)
    server.on("POST", "/api/create", [{"status": "success"}])
    (checkpoint / "Modelfile").write_text("FROM base\n")

    assert "say --quantize, too" in alone.stderr
    assert "--tensor-type is REGEX=TYPE, not 'f16'" in odd.stderr
    assert olm("create", "x", "-q", "iq2_xs", "--imatrix", "m.dat").returncode == 0
    assert server.bodies("/api/create")[-1] == {
        "model": "x",
        "quantize": "iq2_xs",
        "imatrix": {"m.dat": DIGEST},
        "from": "base",
    }


def test_a_pipe_among_the_files_is_not_waited_for(tmp_path: Path) -> None:
    folder = shutil.copytree(FIXTURES / "llama-tied", tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")
    os.mkfifo(tmp_path / "w.gguf")

    for value, name in (("./m", "tokenizer.json"), ("./w.gguf", "w.gguf")):
        with pytest.raises(InvalidRequest, match=f"{name}: it is not a regular file"):
            find_sources([value], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "line"), [("FROM a\nFROM b\n", "FROM"), ("FROM x\nDRAFT a\nDRAFT b\n", "DRAFT")]
)
def test_a_model_is_one_checkpoint(olm: Run, tmp_path: Path, text: str, line: str) -> None:
    for name in ("a", "b"):
        shutil.copytree(FIXTURES / "llama-tied", tmp_path / name)
    (tmp_path / "Modelfile").write_text(text)

    error = f"two checkpoints, {tmp_path / 'a'} and {tmp_path / 'b'}; only one can be {line}"
    assert error in olm("create", "x").stderr
