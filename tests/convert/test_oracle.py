"""Every architecture with a tiny checkpoint becomes what llama.cpp's own converter makes of it, and llama.cpp runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from oracle import ANSWERS, build, differences, folder_of

from olm.checkpoint.folder import open_checkpoint
from olm.convert.writer import write_gguf

pytestmark = pytest.mark.native

_NAMES = sorted(path.stem for path in ANSWERS.glob("*.json"))


@pytest.mark.parametrize("name", _NAMES)
def test_keys_names_types_and_bytes_are_llama_cpps(name: str, tmp_path: Path) -> None:
    assert list(differences(name, tmp_path)) == []
