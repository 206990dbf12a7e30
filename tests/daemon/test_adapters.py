"""Adapters through a whole daemon: several in one model, chosen by each request, and refused where they do not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from kit.creating import create, olm, upload, upload_folder
from kit.daemon import Daemon, run_daemon
from kit.hf import FIXTURES, reference

pytestmark = [pytest.mark.slow, pytest.mark.daemon, pytest.mark.native]

BASE, LORA = "llama-untied", "llama-untied-lora"
N_NEW = 16


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with the base, and a model of two adapters: the fixture's, and one of half its strength."""
    home = tmp_path_factory.mktemp("home")
    settings = {"OLM_SPARE_WORKER": "0", "OLM_KV_CACHE_TYPE": "f32"}
    with run_daemon(home, settings) as running:
        _succeed(running, {"model": "base", "files": upload_folder(running, FIXTURES / BASE)})
        folder = tmp_path_factory.mktemp("loras")
        for name, alpha in (("poet", 8), ("quiet", 4)):
            shutil.copytree(FIXTURES / LORA, folder / name)
            path = folder / name / "adapter_config.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_alpha": alpha}))
        adapters = upload_folder(running, folder)
        _succeed(running, {"model": "both", "from": "base", "adapters": adapters})
        parameters = {"adapters": [{"name": "poet", "scale": 1}]}
        _succeed(running, {"model": "poet", "from": "both", "parameters": parameters})
        yield running


def _succeed(daemon: Daemon, body: dict[str, object]) -> None:
    assert create(daemon, body)[-1] == {"status": "success"}


def _post(daemon: Daemon, where: str, body: dict[str, object]) -> httpx2.Response:
    return httpx2.post(f"{daemon.url}{where}", json=body, timeout=60)


def _ask(daemon: Daemon, model: str, **options: object) -> str:
    settings = {"temperature": 0, "num_predict": N_NEW, "repeat_penalty": 1.0, "num_ctx": 512}
    body: dict[str, object] = {
        "model": model,
        "prompt": reference(LORA)["text"],
        "raw": True,
        "stream": False,
        "options": {**settings, **options},
    }
    reply = _post(daemon, "/api/generate", body)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["response"])


def _said(name: str) -> str:
    return str(reference(name)["greedy_text"])


def test_requests_choose_among_a_models_adapters(daemon: Daemon) -> None:
    assert _ask(daemon, "base") == _said(BASE)
    assert _ask(daemon, "both", adapters=[{"name": "poet"}]) == _said(LORA)
    assert _ask(daemon, "both", adapters=[{"name": "quiet", "scale": 2}]) == _said(LORA)
    assert _ask(daemon, "both", lora=[{"id": 0, "scale": 0.5}, {"id": 1, "scale": 1}]) == _said(
        LORA
    )
    assert _ask(daemon, "both", adapters=[]) == _said(BASE)
    assert _ask(daemon, "both") not in (_said(BASE), _said(LORA)), "both together are more"


def test_a_models_parameter_is_what_holds_without_a_word(daemon: Daemon) -> None:
    assert _ask(daemon, "poet") == _said(LORA)
    assert _ask(daemon, "poet", adapters=[]) == _said(BASE)


def test_streams_at_once_each_have_their_own(daemon: Daemon) -> None:
    wanted = [[{"name": "poet"}], [], [{"name": "quiet"}], [{"name": "poet"}], []] * 2
    alone = {json.dumps(item): _ask(daemon, "both", adapters=item) for item in wanted[:3]}

    with ThreadPoolExecutor(len(wanted)) as threads:
        said = list(threads.map(lambda item: _ask(daemon, "both", adapters=item), wanted))

    assert said == [alone[json.dumps(item)] for item in wanted]
    assert len(set(alone.values())) == 3


def test_show_lists_them_and_its_modelfile_makes_the_model_again(
    daemon: Daemon, tmp_path: Path
) -> None:
    shown = _post(daemon, "/api/show", {"model": "poet"}).json()

    listed = [(item["id"], item.get("name"), item["scale"]) for item in shown["adapters"]]
    assert listed == [(0, "poet", 1.0), (1, "quiet", 0.0)]
    assert "adapters" not in _post(daemon, "/api/show", {"model": "base"}).json()
    assert shown["parameters"].splitlines()[0].split() == ["adapters", "poet=1"]
    assert "PARAMETER adapters 0=1\n" in shown["modelfile"]
    (tmp_path / "Modelfile").write_text(shown["modelfile"])
    done = olm(daemon, "create", "again", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert _ask(daemon, "again") == _said(LORA)


def test_openai_clients_choose_by_field(daemon: Daemon) -> None:
    body: dict[str, object] = {
        "model": "both",
        "prompt": reference(LORA)["text"],
        "max_tokens": N_NEW,
        "temperature": 0,
        "options": {"repeat_penalty": 1.0, "num_ctx": 512},
    }

    choices: list[dict[str, object]] = [
        {"lora": [{"id": 0, "scale": 1.0}]},
        {"adapters": ["poet"]},
        {"lora": []},
    ]
    found = [
        _post(daemon, "/v1/completions", {**body, **more}).json()["choices"][0]["text"]
        for more in choices
    ]

    assert found[0] == found[1] != found[2]
    refused = _post(daemon, "/v1/completions", {**body, "lora": [{"id": 7}]})
    assert refused.status_code == 400
    assert "has no adapter 7: it has poet, quiet" in refused.text


def test_a_name_that_is_not_there_is_told(daemon: Daemon) -> None:
    body: dict[str, object] = {"prompt": "x", "options": {"adapters": [{"name": "bard"}]}}

    there = _post(daemon, "/api/generate", {"model": "both", **body})
    none = _post(daemon, "/api/generate", {"model": "base", **body})

    assert there.status_code == none.status_code == 400
    assert there.json()["error"] == "this model has no adapter 'bard': it has poet, quiet"
    assert none.json()["error"] == "this model has no adapter 'bard': it has no adapters"


def test_what_does_not_fit_is_refused_when_the_model_is_made(daemon: Daemon) -> None:
    _succeed(daemon, {"model": "alien", "files": upload_folder(daemon, FIXTURES / "qwen2")})
    gguf = next(path for path in (daemon.home / "models/blobs").iterdir() if _is_adapter(path))
    files = {"poet.gguf": upload(daemon, gguf.read_bytes())}

    as_gguf = create(daemon, {"model": "x", "from": "alien", "adapters": files})
    named = create(
        daemon,
        {"model": "x", "from": "base", "adapters": files, "parameters": {"adapters": ["bard"]}},
    )

    wanted = "poet.gguf was made for a model of architecture 'llama', not 'qwen2'"
    assert as_gguf[-1]["error"] == wanted
    assert "has no adapter 'bard': it has poet" in str(named[-1]["error"])
    assert _post(daemon, "/api/show", {"model": "x"}).status_code == 404


def _is_adapter(path: Path) -> bool:
    return b"adapter.lora.alpha" in path.read_bytes()[:4096]
