"""Vocabularies at work: the engine splits text as the checkpoints' own tokenizers do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tokenizer_kit import FIXTURES, read_folder, vocab_file

from olm.convert.vocab import Vocab

if TYPE_CHECKING:
    from olm.native.handles import Model

pytestmark = pytest.mark.native

NAMES = sorted(p.parent.name for p in FIXTURES.glob("*/tokenizer_config.json"))


@contextmanager
def loaded(path: Path, vocab: Vocab) -> Iterator[Model]:
    from olm.native.handles import Model

    model = Model.load(vocab_file(path, vocab), options={"vocab_only": True})
    try:
        yield model
    finally:
        model.close()


@pytest.mark.parametrize("name", NAMES)
def test_fixtures_are_tokenized_as_by_their_own_tokenizers(
    name: str, tmp_path: Path, backend: Path
) -> None:
    """All texts of the fixture, and one with the special tokens added."""
    reference = json.loads((FIXTURES / name / "reference.json").read_text("utf-8"))
    vocab = read_folder(FIXTURES / name, 512)
    special = reference.get("add_special_case")

    with loaded(tmp_path / "vocab.gguf", vocab) as model:
        for case in reference["tokenizer_cases"]:
            found = model.tokenize(case["text"], add_special=False, parse_special=False)
            assert found == case["ids"] or not case["llama_cpp_agrees"]
        if special is not None:
            assert model.tokenize(special["text"], parse_special=False) == special["ids"]
