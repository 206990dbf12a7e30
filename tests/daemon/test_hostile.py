"""Model files that lie: each is a clear error from `create` or from the load, and the next model works."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from importlib import resources

import httpx2
import pytest

from kit.daemon import Daemon, run_daemon
from kit.gguf_edit import ARRAY, F32, STRING, U32, Gguf, TensorData, parse

pytestmark = [pytest.mark.daemon, pytest.mark.native, pytest.mark.slow]

Change = Callable[[Gguf], None]

TINY = resources.files("olm.data.tiny").joinpath("tiny-q8_0.gguf").read_bytes()
CRASHED = "model runner has unexpectedly stopped"


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that all cases attack one after the other."""
    with run_daemon(tmp_path_factory.mktemp("hostile")) as daemon:
        yield daemon


def create(daemon: Daemon, data: bytes) -> httpx2.Response:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    assert httpx2.post(f"{daemon.url}/api/blobs/{digest}", content=data).status_code in (200, 201)
    body = {"model": "hostile", "files": {"m.gguf": digest}, "stream": False}
    return httpx2.post(daemon.url + "/api/create", json=body, timeout=30)


def chat(daemon: Daemon, model: str, **more: object) -> httpx2.Response:
    messages = [{"role": "user", "content": "Hello!"}]
    body = {"model": model, "messages": messages, "stream": False, "keep_alive": 0, **more}
    return httpx2.post(daemon.url + "/api/chat", json=body, timeout=60)


def pair(key: str, kind: int, value: object) -> Change:
    def change(gguf: Gguf) -> None:
        gguf.pairs[key] = (kind, value)

    return change


def without(key: str) -> Change:
    def change(gguf: Gguf) -> None:
        gguf.pairs.pop(key, None)
        gguf.tensors.pop(key, None)

    return change


def shape(name: str, *dims: int, kind: int | None = None) -> Change:
    def change(gguf: Gguf) -> None:
        tensor = gguf.tensors[name]
        gguf.tensors[name] = TensorData(
            list(dims), tensor.kind if kind is None else kind, tensor.data
        )

    return change


def template(source: bytes) -> Change:
    return pair("tokenizer.chat_template", STRING, source)


def no_tensors(gguf: Gguf) -> None:
    gguf.tensors.clear()


REFUSED_BY_CREATE: dict[str, tuple[Change, str]] = {
    "no architecture": (without("general.architecture"), "general.architecture"),
    "architecture a number": (pair("general.architecture", U32, 5), "general.architecture"),
    "no tensors": (no_tensors, "no tensors"),
    "513 layers": (pair("llama.block_count", U32, 513), "513 layers"),
    "alignment 1": (pair("general.alignment", U32, 1), "power of two"),
    "piece of 70 kB": (
        pair("tokenizer.ggml.tokens", ARRAY, (STRING, [b"a" * 70_000])),
        "too long",
    ),
}

REFUSED_BY_LOAD: dict[str, tuple[Change, str]] = {
    "unknown architecture": (pair("general.architecture", STRING, b"quux"), "'quux'"),
    "one layer too many": (pair("llama.block_count", U32, 6), "blk.5.attn_norm.weight"),
    "layers in text": (pair("llama.block_count", STRING, b"5"), "wrong type"),
    "missing tensor": (without("token_embd.weight"), "token_embd.weight"),
    "wrong shape": (shape("token_embd.weight", 192, 1024), "wrong shape"),
    "transposed": (shape("token_embd.weight", 2048, 192), "wrong shape"),
    "no heads": (pair("llama.attention.head_count", U32, 0), "wrong shape"),
    "huge heads": (pair("llama.attention.head_count", U32, 2**32 - 1), "wrong shape"),
    "half a vocabulary": (
        pair("tokenizer.ggml.tokens", ARRAY, (STRING, [b"a", b"b"])),
        "wrong shape",
    ),
    "token types short": (pair("tokenizer.ggml.token_type", ARRAY, (5, [1])), "array bounds"),
    "unknown tokenizer": (pair("tokenizer.ggml.model", STRING, b"quux"), "'quux'"),
    "tokenizer of another kind": (
        pair("tokenizer.ggml.model", STRING, b"llama"),
        "could not use the model's data, which is invalid",
    ),
    "tokens without a place": (
        pair("tokenizer.ggml.model", STRING, b"rwkv"),
        "tokenizer data is invalid: it gives token -1",
    ),
    "a template that does not parse": (template(b"{% if %}\n"), "chat template does not parse"),
    "a template that says no": (template(b"{{ raise_exception('no\nway') }}"), "no way"),
    "aborts at a step": (shape("blk.0.attn_norm.weight", 192, kind=1), CRASHED),
    "aborts at the load": (pair("llama.block_count", U32, 0), CRASHED),
    "a template without end": (
        pair(
            "tokenizer.chat_template",
            STRING,
            b"{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        ),
        CRASHED,
    ),
    "a template that takes years": (
        template(
            b"{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}"
        ),
        "does not end",
    ),
    "no numbers": (pair("llama.rope.freq_base", F32, float("nan")), "no usable logits"),
}


@pytest.mark.parametrize("case", REFUSED_BY_CREATE)
def test_create_refuses(victim: Daemon, case: str) -> None:
    change, words = REFUSED_BY_CREATE[case]
    gguf = parse(TINY)
    change(gguf)

    answer = create(victim, gguf.build())

    assert answer.status_code == 400
    assert words in answer.json()["error"]


@pytest.mark.parametrize("case", REFUSED_BY_LOAD)
def test_a_load_that_fails_is_an_error_and_the_next_model_works(victim: Daemon, case: str) -> None:
    change, words = REFUSED_BY_LOAD[case]
    gguf = parse(TINY)
    change(gguf)
    assert create(victim, gguf.build()).status_code == 200

    answer = chat(victim, "hostile")

    assert answer.status_code == 500
    assert words in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert str(victim.home) not in answer.text
    assert chat(victim, "tiny", keep_alive="5m").json()["message"]["content"].startswith("Hello!")
    assert victim.process.poll() is None


def test_an_untouched_model_still_works_after_being_taken_apart(victim: Daemon) -> None:
    assert create(victim, parse(TINY).build()).status_code == 200

    assert chat(victim, "hostile").json()["message"]["content"].startswith("Hello!")
