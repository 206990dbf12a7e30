"""Loading models: facts, tokens, and files that are not what they should be."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olm.native.handles import LoadState, Model
from olm.native.lib import (
    AdapterFailed,
    Cancelled,
    InvalidArgument,
    ModelLoadFailed,
    check,
    ffi,
    lib,
    new_pointer,
)

TINY = Path(__file__).parents[2] / "src/olm/data/tiny/tiny-q8_0.gguf"

pytestmark = pytest.mark.native


def test_the_facts_of_the_built_in_model(tiny: Model) -> None:
    info = tiny.info

    assert (info.arch, info.n_vocab, info.n_layer, info.n_ctx_train) == ("llama", 2048, 5, 2048)
    assert info.has_decoder
    assert not info.has_encoder
    assert info.has_chat_template
    assert info.eos in info.eog
    assert tiny.meta()["general.architecture"] == "llama"


def test_a_missing_file_says_so(backend: object, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed, match="No such file"):
        Model.load(tmp_path / "none.gguf")


@pytest.mark.parametrize("size", [0, 3, 100, 5000, 500_000])
def test_a_truncated_file_is_an_error_with_a_reason(
    backend: object, tmp_path: Path, size: int
) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(TINY.read_bytes()[:size])

    with pytest.raises(ModelLoadFailed) as caught:
        Model.load(path)

    assert caught.value.message != "llama.cpp gives no reason"


def test_an_unknown_architecture_is_named(backend: object, tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    data = TINY.read_bytes()
    path.write_bytes(data.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0odder", 1))

    with pytest.raises(ModelLoadFailed, match="odder"):
        Model.load(path)


def test_a_load_tells_its_progress(backend: object) -> None:
    state = LoadState()

    with Model.load(TINY, state=state):
        assert state.frac == 1.0


def test_a_load_can_be_cancelled(backend: object) -> None:
    state = LoadState()
    state.cancel()

    with pytest.raises(Cancelled):
        Model.load(TINY, state=state)


def test_a_load_leaves_no_threads_behind(backend: object) -> None:
    """A team of threads that outlives the load makes libgomp put the engine's own team to sleep at every barrier."""
    code = """
import os, sys, time
from pathlib import Path
from olm.native.handles import Model, initialize
initialize(Path(sys.argv[1]))
before = set(os.listdir("/proc/self/task"))
with Model.load(Path(sys.argv[2])):
    for _ in range(200):  # a team ends on its own time after its master
        left = set(os.listdir("/proc/self/task")) - before
        if not left:
            break
        time.sleep(0.01)
    print(len(left))
"""
    command = [sys.executable, "-c", code, str(backend), str(TINY)]

    result = subprocess.run(command, capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "0"


def test_an_adapter_that_is_none_is_refused(backend: object, tmp_path: Path) -> None:
    with pytest.raises(AdapterFailed, match=r"lora\.gguf"):
        Model.load(TINY, adapters=[(str(tmp_path / "lora.gguf"), 1.0)])


@pytest.mark.parametrize(
    "options", [{"n_gpu_layers": "all"}, {"override": {"x": []}}, {"use_mmap": 1}, {"adapters": 3}]
)
def test_a_wrong_load_option_is_refused(backend: object, options: dict[str, object]) -> None:
    request = msgspec.json.encode({"path": str(TINY), **options})

    with pytest.raises(InvalidArgument):
        check(lib.olm_model_load(request, ffi.NULL, new_pointer("olm_model **")))


def test_vocabulary_only_tokenizes(backend: object, tiny: Model) -> None:
    with Model.load(TINY, options={"vocab_only": True}) as model:
        assert model.tokenize("the sky") == tiny.tokenize("the sky")


@given(text=st.text(max_size=40))
def test_tokens_give_the_text_back(tiny: Model, text: str) -> None:
    tokens = tiny.tokenize(text, add_special=False, parse_special=False)

    assert tiny.detokenize(tokens) == text.encode()


def test_special_tokens_are_read_only_when_asked(tiny: Model) -> None:
    one = tiny.tokenize("<|im_end|>", parse_special=True)
    many = tiny.tokenize("<|im_end|>", parse_special=False)

    assert one == [tiny.info.eos]
    assert len(many) > 1
    assert tiny.detokenize(one, special=False) == b""


@pytest.mark.parametrize("token", [-1, 2048, 2**31 - 1])
def test_a_token_outside_the_vocabulary_is_refused(tiny: Model, token: int) -> None:
    with pytest.raises(InvalidArgument, match="vocabulary"):
        tiny.detokenize([token])


def test_closing_twice_is_nothing(backend: object) -> None:
    model = Model.load(TINY, options={"vocab_only": True})

    model.close()
    model.close()

    assert not model.is_open


def test_a_forgotten_model_is_freed_and_reported(
    backend: object, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="olm"):
        Model.load(TINY, options={"vocab_only": True})
        gc.collect()

    assert "not closed" in caplog.text
