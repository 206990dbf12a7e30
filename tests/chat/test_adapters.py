"""The option `adapters`: what requests and Modelfiles may write, and which scales come of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.models import stored_model
from olm.actors.client import ChatRequest, EmbedRequest, GenerateRequest
from olm.actors.turns import embed_message, plan_chat, plan_generate, turn_message
from olm.chat.adapters import AdapterChoice, adapter_scales, adapter_text, read_adapters
from olm.chat.options import adapters, merge_options
from olm.chat.types import ChatMessage
from olm.errors import InvalidOption, ModelfileError
from olm.modelfile import parse_modelfile, spec_of

NAMES = ("poet", "pirate", "")


@pytest.mark.parametrize(
    ("value", "scales"),
    [
        (None, (1.0, 1.0, 1.0)),
        ([], (0.0, 0.0, 0.0)),
        ([{"name": "pirate", "scale": 0.5}], (0.0, 0.5, 0.0)),
        ([{"name": "pirate"}], (0.0, 1.0, 0.0)),
        ([{"id": 0, "scale": 2}, {"id": 2.0, "scale": -1}], (2.0, 0.0, -1.0)),
        (["poet=0.25", "2"], (0.25, 0.0, 1.0)),
    ],
)
def test_what_a_list_leaves_out_is_off(value: object, scales: tuple[float, ...]) -> None:
    chosen = None if value is None else read_adapters(value)

    assert adapter_scales(chosen, NAMES) == scales


@pytest.mark.parametrize(
    "value",
    [
        "poet",
        {"poet": 1},
        [1],
        [{}],
        [{"scale": 1}],
        [{"name": "", "scale": 1}],
        [{"name": "poet", "id": 0}],
        [{"id": -1}],
        [{"id": True}],
        [{"id": 0.5}],
        [{"name": "poet", "scale": "1"}],
        [{"name": "poet", "scale": True}],
        [{"name": "poet", "scale": float("nan")}],
        ["poet=x"],
        ["=1"],
        [{"id": 0}] * 2000,
    ],
)
def test_other_forms_are_refused(value: object) -> None:
    with pytest.raises(InvalidOption, match='option "adapters" must be an array of objects'):
        read_adapters(value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([{"name": "bard"}], "this model has no adapter 'bard': it has poet, pirate, 2"),
        ([{"id": 3}], "this model has no adapter 3: it has poet, pirate, 2"),
        ([{"id": 0}, {"name": "poet"}], "adapter 'poet' is named twice"),
    ],
)
def test_an_adapter_that_is_not_there_is_named(value: object, words: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        adapter_scales(read_adapters(value), NAMES)

    assert (caught.value.message, caught.value.details["status"]) == (words, 400)


def test_a_request_wins_over_the_modelfile_and_lora_means_the_same() -> None:
    merged = merge_options(
        {"adapters": [{"name": "poet", "scale": 0.5}]}, {"lora": [{"id": 1, "scale": 0.75}]}
    )

    assert adapters(merged) == (AdapterChoice(id=1, scale=0.75),)
    assert "lora" not in merged


def test_text_and_object_are_the_same() -> None:
    assert adapter_text({"name": "poet", "scale": 0.5}) == "poet=0.5"
    assert read_adapters([adapter_text({"id": 2, "scale": 1.5})]) == (
        AdapterChoice(id=2, scale=1.5),
    )
    assert read_adapters(["a=b=0.5"]) == (AdapterChoice("a=b", scale=0.5),)


def test_a_modelfile_gives_scales() -> None:
    text = "FROM x\nADAPTER ./poet.gguf\nADAPTER ./pirate.gguf\nPARAMETER adapters poet=0.5\nPARAMETER adapters pirate\n"

    spec = spec_of(parse_modelfile(text))

    assert spec.adapters == ["./poet.gguf", "./pirate.gguf"]
    assert spec.parameters == {"adapters": ["poet=0.5", "pirate"]}
    with pytest.raises(ModelfileError, match=r"invalid adapters value \[poet=loud\]"):
        spec_of(parse_modelfile("FROM x\nPARAMETER adapters poet=loud"))


@pytest.mark.parametrize(
    ("parameters", "options", "scales"),
    [
        ({}, {}, (1.0, 1.0)),
        ({"adapters": ["pirate=0.5"]}, {}, (0.0, 0.5)),
        ({"adapters": ["pirate=0.5"]}, {"adapters": []}, (0.0, 0.0)),
        ({}, {"lora": [{"id": 0, "scale": 0.25}]}, (0.25, 0.0)),
    ],
)
def test_turns_carry_the_scales(
    parameters: dict[str, object], options: dict[str, object], scales: tuple[float, ...]
) -> None:
    model = stored_model(
        adapters=(Path("/a"), Path("/b")),
        adapter_names=("poet", "pirate"),
        parameters=parameters,
        capabilities=("completion", "embedding"),
    )
    messages = [ChatMessage("user", "hi")]

    plans = [
        plan_chat(ChatRequest(model="m", messages=messages, options=options), model),
        plan_generate(GenerateRequest(model="m", prompt="hi", options=options), model),
    ]

    assert [turn_message(plan, n_ctx=64).adapters for plan in plans] == [scales, scales]
    embed = EmbedRequest(model="m", inputs=["x"], options=options)
    assert embed_message(embed, model).adapters == scales


def test_a_model_without_adapters_has_none_to_name() -> None:
    request = GenerateRequest(model="m", prompt="hi", options={"adapters": [{"name": "poet"}]})

    assert plan_generate(GenerateRequest(model="m", prompt="hi"), stored_model()).adapters is None
    with pytest.raises(InvalidOption, match="no adapter 'poet': it has no adapters"):
        plan_generate(request, stored_model())
