"""Every architecture with a tiny checkpoint becomes what llama.cpp's own converter makes of it, and llama.cpp runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from oracle import (
    ANSWERS,
    build,
    differences,
    folder_of,
    is_runnable,
    run_once,
    scores_of,
    without_words,
)

from olm.checkpoint.folder import open_checkpoint
from olm.convert.writer import write_gguf

pytestmark = pytest.mark.native

_NAMES = sorted(path.stem for path in ANSWERS.glob("*.json"))
# What llama.cpp's converter leaves out of classifiers, so that what it writes cannot rank, or scores wrongly.
_MORE = {
    "bert-reranker": (
        "key bert.pooling_type is too much: ('U32', 4)",
        "tensor cls.bias [32] is too much",
        "tensor cls.weight [32, 32] is too much",
    ),
    "modern-bert-reranker": ("key modern-bert.pooling_type is too much: ('U32', 4)",),
    "roberta-reranker": ("key bert.pooling_type is too much: ('U32', 4)",),
    "xlm-roberta-reranker": ("key bert.pooling_type is too much: ('U32', 4)",),
}
_RUNNING = [name for name in _NAMES if is_runnable(name)]


@pytest.mark.parametrize("name", _NAMES)
def test_keys_names_types_and_bytes_are_llama_cpps(name: str, tmp_path: Path) -> None:
    assert sorted(differences(name, tmp_path)) == sorted(_MORE.get(name, ()))


@pytest.mark.parametrize("name", _RUNNING)
def test_llama_cpp_runs_it(name: str, backend: object, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    with open_checkpoint(folder_of(name, tmp_path / "tiny")) as checkpoint:
        write_gguf(without_words(build(checkpoint, has_projector=False)["model"]), path)

    outcome = run_once(path)

    assert np.isfinite(outcome).all()
    assert outcome.any()
    if name in _MORE:
        np.testing.assert_allclose(outcome, scores_of(name), atol=1e-4)
