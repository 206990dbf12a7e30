"""Adapters as layers of a model: what they are called, and which of a base's they replace."""

from __future__ import annotations

import pytest

from olm.errors import InvalidOption, InvalidRequest
from olm.gguf import ModelFacts
from olm.store.create_plan import Base, Wishes, file_layers, plan_layers
from olm.store.manifests import ADAPTER, MODEL, ImageConfig, Layer
from olm.store.names import Digest
from olm.store.splits import Source

FACTS = ModelFacts(kind="adapter", architecture="llama", parameter_count=1)


def _source(name: str, data: bytes = b"") -> Source:
    return Source(name, Digest.of(data or name.encode()), 7, FACTS)


def _digest(data: bytes) -> str:
    return str(Digest.of(data))


BASE = Base(
    "base",
    [
        Layer(MODEL, _digest(b"weights"), 9),
        Layer(ADAPTER, _digest(b"old"), 7, name="poet"),
        Layer(ADAPTER, _digest(b"same"), 7, name="pirate"),
        Layer(ADAPTER, _digest(b"nameless"), 7),
    ],
    ImageConfig(),
    {},
)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("poet.gguf", "poet"),
        ("loras/poet.v2.gguf", "poet.v2"),
        ("poet/adapter_model.gguf", "poet"),
        ("adapter.gguf", "adapter"),
    ],
)
def test_an_adapter_is_called_as_its_file_or_its_folder(path: str, name: str) -> None:
    [layer] = file_layers([_source(path)], adapters=True)

    assert (layer.media_type, layer.name) == (ADAPTER, name)


def test_new_ones_come_after_the_bases_and_replace_those_of_their_name() -> None:
    files = file_layers([_source("poet.gguf"), _source("twin.gguf", b"same")], adapters=True)

    planned = plan_layers(BASE, files, Wishes())

    adapters = [item for item in planned if isinstance(item, Layer) and item.media_type == ADAPTER]
    assert [(layer.name, layer.digest) for layer in adapters] == [
        ("", _digest(b"nameless")),
        ("poet", _digest(b"poet.gguf")),
        ("twin", _digest(b"same")),
    ]


def test_two_of_one_name_are_refused() -> None:
    files = file_layers([_source("a/poet.gguf"), _source("b/poet.gguf")], adapters=True)

    with pytest.raises(InvalidRequest, match="two adapters are called 'poet'"):
        plan_layers(BASE, files, Wishes())


def test_a_parameter_for_an_adapter_that_is_not_there_is_refused() -> None:
    wishes = Wishes(parameters={"adapters": ["pirate=0.5"]})

    assert plan_layers(BASE, [], wishes)
    with pytest.raises(InvalidOption, match="no adapter 'bard': it has poet, pirate, 2"):
        plan_layers(BASE, [], Wishes(parameters={"adapters": ["bard"]}))
