"""The tiny Hugging Face checkpoints of tests/fixtures/hf, and what Transformers computed from them.

`compare` runs a converted model through llama.cpp and holds it to the reference: tests/fixtures/hf/README.md says how close.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

import attrs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from olm.native.handles import Model

__all__ = ["FIXTURES", "Agreement", "compare", "logits_after", "reference"]

FIXTURES = Path(__file__).parents[1] / "fixtures/hf"


@cache
def reference(name: str) -> Mapping[str, object]:
    """What is in a fixture's reference.json."""
    text = (FIXTURES / name / "reference.json").read_text("utf-8")
    return cast("Mapping[str, object]", json.loads(text))


@attrs.frozen
class Agreement:
    """How a converted model stands to its reference."""

    cosine: float
    norm_off: float
    top1_same: bool
    greedy_same: bool

    @property
    def is_exact(self) -> bool:
        """The bar for f32, f16 and bf16 conversions: cosine 0.9995, norms within 1 %, the same tokens."""
        close = self.cosine >= 0.9995 and self.norm_off < 0.01
        return close and self.top1_same and self.greedy_same


def logits_after(model: Model, tokens: Sequence[int]) -> NDArray[np.float32]:
    """All logits after the last token, [n_vocab] f32."""
    import numpy as np

    from olm.native.lib import check, ffi, lib, new_int, new_pointer

    ids = ffi.new("int32_t[]", list(tokens))
    out, n_out = new_pointer("float **"), new_int("size_t *")
    check(lib.olm_test_logits(model.pointer, ids, len(tokens), 1, out, n_out))
    try:
        return np.frombuffer(ffi.buffer(out[0], n_out[0] * 4), np.float32).copy()
    finally:
        lib.olm_free(out[0])


def _greedy(model: Model, tokens: Sequence[int], n_tokens: int) -> list[int]:
    """Taken one by one from whole prompts, so that nothing but the weights matters; an end token does not stop it."""
    path = list(tokens)
    for _ in range(n_tokens):
        path.append(int(logits_after(model, path).argmax()))
    return path[len(tokens) :]


def compare(model: Model, name: str) -> Agreement:
    """Run the reference's prompt."""
    import numpy as np

    wanted = reference(name)
    tokens = cast("list[int]", wanted["tokens"])
    expected = np.array(wanted["logits_last"], np.float32)
    found = logits_after(model, tokens)[: len(expected)]
    expected = expected[: len(found)]
    norms = float(np.linalg.norm(found)), float(np.linalg.norm(expected))
    continuation = cast("list[int]", wanted["greedy_continuation"])
    return Agreement(
        cosine=float(found @ expected) / (norms[0] * norms[1]),
        norm_off=abs(norms[0] / norms[1] - 1),
        top1_same=int(found.argmax()) == int(expected.argmax()),
        greedy_same=_greedy(model, tokens, len(continuation)) == continuation,
    )
