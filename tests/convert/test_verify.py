"""llama.cpp is asked whether it would load a model, before its weights are written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from convert_kit import copy_fixture, read_safetensors, write_safetensors

from olm.checkpoint.folder import open_checkpoint
from olm.convert.architecture import Options, convert_checkpoint
from olm.convert.verify import verify
from olm.errors import CheckpointError

pytestmark = [pytest.mark.native, pytest.mark.usefixtures("backend")]

Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


def _verify(folder: Path, path: Path) -> None:
    with open_checkpoint(folder) as checkpoint:
        verify(convert_checkpoint(checkpoint, Options())[0], path)


def _with_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _lacking(folder: Path) -> None:
    tensors = read_safetensors(folder / "model.safetensors")
    del tensors["model.layers.1.self_attn.v_proj.weight"]
    write_safetensors(folder / "model.safetensors", tensors)


def _turned(folder: Path) -> None:
    tensors = read_safetensors(folder / "model.safetensors")
    dtype, values = tensors[Q_PROJ]
    tensors[Q_PROJ] = (dtype, values.reshape(values.shape[0] * 2, -1))
    write_safetensors(folder / "model.safetensors", tensors)


def _deeper(folder: Path) -> None:
    n_layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    _with_config(folder, num_hidden_layers=n_layers + 1)


def _wider(folder: Path) -> None:
    _with_config(folder, hidden_size=128)


def test_what_can_be_loaded_is_a_header_with_nothing_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "out"

    _verify(copy_fixture("llama-untied", tmp_path), path)

    assert path.stat().st_blocks * 512 < path.stat().st_size


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_lacking, "tensor 'blk.1.attn_v.weight' not found"),
        (_turned, "tensor 'blk.0.attn_q.weight' has wrong shape; expected 64, 64, got 32, 128"),
        (_deeper, "tensor 'blk.3.attn_norm.weight' not found"),
        (_wider, "tensor 'token_embd.weight' has wrong shape"),
    ],
)
def test_what_cannot_be_loaded_names_the_tensor(
    tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    folder = copy_fixture("llama-untied", tmp_path)
    spoil(folder)

    with pytest.raises(CheckpointError) as caught:
        _verify(folder, tmp_path / "out")

    assert "config.json and the weights do not fit together: " in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
