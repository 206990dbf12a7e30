"""What `create` takes as a model: the checks on files that were read."""

from __future__ import annotations

import msgspec
import pytest

from olm.errors import GgufError
from olm.gguf import ModelFacts
from olm.store.create_plan import file_layers
from olm.store.manifests import MODEL, Layer
from olm.store.names import Digest
from olm.store.splits import Source

FACTS = ModelFacts(architecture="llama", parameter_count=1000)
DIGEST = Digest.of(b"weights")


def test_weights_become_the_model_layer() -> None:
    [layer] = file_layers([Source("m.gguf", DIGEST, 7, FACTS)], adapters=False)

    assert layer == Layer(MODEL, str(DIGEST), 7)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": ""}, "m.gguf: GGUF key 'general.architecture' is missing or no text"),
        ({"parameter_count": 0}, "m.gguf: GGUF file has no tensors, only a header"),
    ],
)
def test_a_file_that_no_engine_can_load_is_refused(change: dict[str, object], words: str) -> None:
    facts = msgspec.structs.replace(FACTS, **change)

    with pytest.raises(GgufError) as caught:
        file_layers([Source("m.gguf", DIGEST, 7, facts)], adapters=False)

    assert caught.value.message == words
