"""Towers: when a checkpoint has one, what is worked out for it, and settings that contradict each other."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from oracle import ANSWERS, folder_of
from oracle_weights import write_folder

from olm.checkpoint.folder import open_checkpoint
from olm.convert.architecture import Options
from olm.convert.hparams import Hparams
from olm.convert.lazy import constant, read_all
from olm.convert.model_file import ModelFile
from olm.convert.registry import projector_of
from olm.convert.tower_parts import frame_kernels, patch_kernel, thirds
from olm.errors import CheckpointError


def _tower(folder: Path) -> ModelFile | None:
    with open_checkpoint(folder) as checkpoint:
        cls = projector_of(Hparams(checkpoint.config))
        assert cls is not None
        tower = cls(checkpoint, checkpoint.config["architectures"][0], Options())
        return tower.build() if tower.is_present() else None


def _changed(folder: Path, changes: Mapping[str, object]) -> None:
    """Lay changes over config.json, two levels deep."""
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    for key, value in changes.items():
        old = config.get(key)
        config[key] = (
            {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        )
    path.write_text(json.dumps(config), "utf-8")


@pytest.mark.parametrize(
    "name", ["tower-qwen3.5", "tower-llama4", "tower-llava", "tower-gemma4", "tower-qwen2-audio"]
)
def test_a_copy_without_the_towers_tensors_has_no_projector(name: str, tmp_path: Path) -> None:
    answer = json.loads((ANSWERS / f"{name}.json").read_text("utf-8"))
    text = {
        tensor: what
        for tensor, what in answer["tensors"].items()
        if not re.search(r"visual|vision|audio_tower|multi_modal", tensor)
    }
    assert 0 < len(text) < len(answer["tensors"])
    write_folder(tmp_path / "text", answer["config"], text, answer["files"])

    assert _tower(folder_of(name, tmp_path / "whole")) is not None
    assert _tower(tmp_path / "text") is None


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("tower-qwen3vl", {"vision_config": {"deepstack_visual_indexes": [0, 3]}}, "of 3 layers"),
        ("tower-qwen3vl", {"vision_config": {"deepstack_visual_indexes": [0]}}, "no such entry"),
        ("tower-lfm2", {"vision_feature_layer": -5}, "-5 is no layer"),
        ("tower-llama4", {"vision_config": {"pixel_shuffle_ratio": 0}}, "'pixel_shuffle_ratio'"),
        ("tower-llama4", {"vision_config": {"hidden_act": "relu"}}, "unknown 'hidden_act' 'relu'"),
        ("tower-internvl", {"downsample_ratio": None}, "'downsample_ratio' is missing"),
        (
            "tower-llava",
            {"vision_config": {"model_type": "clip_vision_model"}},
            "clip_vision_model",
        ),
        ("tower-nemotron", {"force_image_size": 2}, "no square of positions"),
        ("tower-phi4", {"min_num_patches": None}, "'min_num_patches' is missing"),
        ("tower-voxtral", {"audio_config": {"num_mel_bins": "all"}}, "whole number from 0 up"),
    ],
)
def test_settings_that_do_not_fit_are_named(
    name: str, changes: Mapping[str, object], message: str, tmp_path: Path
) -> None:
    folder = folder_of(name, tmp_path / "tiny")
    _changed(folder, changes)

    with pytest.raises(CheckpointError, match=message):
        _tower(folder)


@pytest.mark.parametrize(
    ("name", "key", "wanted"),
    [
        ("tower-smolvlm", "clip.vision.block_count", 12),
        ("tower-llava", "clip.vision.attention.head_count", 16),
        ("tower-voxtral", "clip.audio.feed_forward_length", 5120),
    ],
)
def test_what_published_configs_leave_out_is_transformers_default(
    name: str, key: str, wanted: int, tmp_path: Path
) -> None:
    folder = folder_of(name, tmp_path / "tiny")
    table = "audio_config" if "audio" in key else "vision_config"
    names = ("num_hidden_layers", "intermediate_size", "num_attention_heads")
    _changed(folder, {table: dict.fromkeys(names)})

    tower = _tower(folder)

    assert tower is not None
    assert tower.metadata.get(key) == wanted


def test_a_grid_of_positions_is_scaled_between_its_corners(tmp_path: Path) -> None:
    folder = folder_of("tower-nemotron", tmp_path / "tiny")
    _changed(folder, {"force_image_size": 8})  # 2 x 2 patches out of a grid of 4 x 4

    small = _tower(folder)
    assert small is not None
    found = next(t for t in small.tensors if t.name == "v.position_embd.weight")
    _changed(folder, {"force_image_size": 16})
    whole = _tower(folder)
    assert whole is not None
    grid = next(t for t in whole.tensors if t.name == "v.position_embd.weight")

    with open_checkpoint(folder) as checkpoint:
        name = "vision_model.radio_model.model.patch_generator.pos_embed"
        wanted = read_all(checkpoint.tensors[name]).reshape(4, 4, 1280)[::3, ::3]
    assert grid.reader.shape == (1, 16, 1280)
    np.testing.assert_array_equal(read_all(found.reader).reshape(2, 2, 1280), wanted)


def test_gemma_3n_keeps_the_norms_that_llama_cpp_cannot_name(tmp_path: Path) -> None:
    from olm.convert.architectures.gemma3n_tower import Gemma3nTowers
    from olm.convert.names import TensorNames

    names = TensorNames("clip", 128, Gemma3nTowers.names)
    source = "model.audio_tower.subsample_conv_projection.conv_1.norm.weight"

    assert names.find(source) == "a.conv1d.1.norm.weight"
    assert names.find("v.blk.2.30.attn.key.norm.weight") == "v.blk.2.30.attn.key.norm.weight"


def test_a_linear_patch_embedding_becomes_a_kernel() -> None:
    matrix = np.arange(2 * 12, dtype=np.float32).reshape(2, 12)

    kernel = patch_kernel(constant(matrix))

    assert kernel.shape == (2, 3, 2, 2)
    wanted = matrix.reshape(2, 2, 2, 3).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(read_all(kernel).reshape(kernel.shape), wanted)
    with pytest.raises(CheckpointError, match="no embedding of patches of 5 x 5"):
        patch_kernel(constant(matrix), 5)


def test_shapes_that_no_tower_has_are_refused() -> None:
    with pytest.raises(CheckpointError, match="over 2 frames"):
        list(frame_kernels(constant(np.zeros((4, 3, 3, 2, 2), np.float32))))
    with pytest.raises(CheckpointError, match="no queries, keys and values"):
        thirds(constant(np.zeros((4, 3), np.float32)))
