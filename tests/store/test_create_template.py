"""Templates at create: the built-in one that stands for a GGUF's, templates that do not parse, habits of families."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import olm.template
from olm.actors.jobs_client import CreateRequest
from olm.errors import InvalidRequest
from olm.gguf import ModelFacts
from olm.store.create_plan import Base, Habits, Wishes, habits_of
from olm.store.manifests import ImageConfig
from olm.template.builtin import builtin
from store.conftest import Shop
from store.gguf_files import model

INDEX = json.loads((Path(olm.template.__file__).parent / "data/index.json").read_text())
ZEPHYR = next(entry["template"] for entry in INDEX if entry["name"] == "zephyr")
AUTODETECTED = "using autodetected template zephyr"
STOPS = ["<|system|>", "</s>", "<|user|>", "<|assistant|>"]


async def upload(shop: Shop, jinja: str | None) -> str:
    return await shop.upload(model(tokenizer__chat_template=jinja))


async def test_a_gguf_with_a_known_jinja_text_gets_the_built_in_template(shop: Shop) -> None:
    digest = await upload(shop, ZEPHYR.replace("loop.last", "loop.last "))

    statuses = await shop.create(model="m", files={"m.gguf": digest})

    made = await shop.store.get("m")
    assert statuses[:3] == ["parsing GGUF", f"using existing layer {digest}", AUTODETECTED]
    assert statuses[3].startswith("creating new layer sha256:")
    assert statuses[4:] == ["writing manifest", "success"]
    assert made.template == builtin("zephyr").text
    assert made.parameters == {"stop": STOPS}
    assert made.uses_go_template
    assert (await shop.store.show("m")).template == builtin("zephyr").text


async def test_stops_of_the_user_and_of_the_base_count_before_the_templates(shop: Shop) -> None:
    files = {"m.gguf": await upload(shop, ZEPHYR)}

    await shop.create(model="m", files=files, parameters={"stop": ["END"], "top_k": 3})
    await shop.create(model="n", files=files, parameters={"top_k": 3})

    assert (await shop.store.get("m")).parameters == {"stop": ["END"], "top_k": 3}
    assert (await shop.store.get("n")).parameters == {"stop": STOPS, "top_k": 3}


@pytest.mark.parametrize(
    ("jinja", "fields"),
    [
        (ZEPHYR, {"template": "{{ .Prompt }}"}),
        ("{{ messages[0].content }}", {}),
        (None, {}),
    ],
)
async def test_nothing_is_detected_where_a_template_is_given_or_none_is_known(
    shop: Shop, jinja: str | None, fields: dict[str, str]
) -> None:
    digest = await upload(shop, jinja)

    statuses = await shop.create(model="m", files={"m.gguf": digest}, **fields)

    made = await shop.store.get("m")
    assert not [status for status in statuses if "autodetected" in status]
    assert made.template == fields.get("template", "")
    assert "stop" not in made.parameters


async def test_a_child_inherits_the_template_that_was_detected(shop: Shop) -> None:
    await shop.create(model="m", files={"m.gguf": await upload(shop, ZEPHYR)})

    statuses = await shop.create(model="child", from_="m", system="Be brief.")

    assert AUTODETECTED not in statuses
    assert (await shop.store.get("child")).template == builtin("zephyr").text


async def test_a_template_that_does_not_parse_is_refused_before_anything_is_done(
    shop: Shop,
) -> None:
    before = shop.blobs()

    with pytest.raises(
        InvalidRequest, match=r"^template error: template: :1: unclosed action$"
    ) as caught:
        async with shop.jobs.create(CreateRequest(model="m", from_="tiny", template="{{ .Prompt ")):
            pytest.fail("a bad request must not start a job")

    assert caught.value.http_status == 400
    assert shop.blobs() == before


def base(**config: str) -> Base:
    return Base("b", (), ImageConfig(**config), {})


@pytest.mark.parametrize(
    ("architecture", "from_", "wishes", "habits"),
    [
        ("gemma4", None, Wishes(), Habits("gemma4", "gemma4", ("<turn|>",))),
        ("laguna", None, Wishes(), Habits("laguna", "laguna")),
        ("nemotron_h_moe", None, Wishes(), Habits("nemotron-3-nano", "nemotron-3-nano")),
        ("llama", None, Wishes(), Habits()),
        ("gemma4", None, Wishes(template="{{ .Prompt }}"), Habits()),
        ("gemma4", None, Wishes(parser="passthrough"), Habits()),
        ("gemma4", base(renderer="gemma4-small"), Wishes(), Habits()),
        ("gemma4", base(), Wishes(), Habits("gemma4", "gemma4", ("<turn|>",))),
    ],
)
def test_some_architectures_bring_a_renderer_and_a_parser(
    architecture: str, from_: Base | None, wishes: Wishes, habits: Habits
) -> None:
    assert habits_of(ModelFacts(architecture=architecture), from_, wishes) == habits
    assert habits_of(None, from_, wishes) == Habits()


async def test_habits_are_stored_with_the_model(shop: Shop) -> None:
    digest = await shop.upload(model(general__architecture="gemma4"))

    await shop.create(model="m", files={"m.gguf": digest})
    await shop.create(model="n", files={"m.gguf": digest}, parameters={"stop": ["x"]})

    made = await shop.store.get("m")
    assert (made.renderer, made.parser) == ("gemma4", "gemma4")
    assert made.parameters == {"stop": ["<turn|>"]}
    assert (await shop.store.get("n")).parameters == {"stop": ["x"]}
