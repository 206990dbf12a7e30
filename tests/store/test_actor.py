"""The store actor and the create jobs, through the clients that routes use."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
import trio

from olm.actors.client import ChatMessage
from olm.actors.jobs_client import CreateRequest
from olm.errors import (
    ActorStopped,
    DigestMismatch,
    GgufError,
    InvalidName,
    InvalidOption,
    InvalidRequest,
    ModelNotFound,
    OlmError,
    StoreLocked,
)
from olm.gguf.types import FILE_TYPES
from store.conftest import Shop, open_shop
from store.gguf_files import lora, model

JINJA = "{% if tools %}{{ tools }}{% endif %}<think></think>"
GGUF = model(tokenizer__chat_template=JINJA)


async def test_the_built_in_model_is_there(shop: Shop) -> None:
    models = await shop.store.list()

    assert [m.name for m in models] == ["tiny:latest"]
    assert models[0].details.format == "gguf"
    assert models[0].details.quantization_level == "Q8_0"
    assert models[0].details.context_length == 2048
    assert models[0].capabilities == ("completion", "tools", "thinking")
    assert len(models[0].digest) == 64


async def test_get_resolves_everything_a_runner_needs(shop: Shop) -> None:
    tiny = await shop.store.get("TINY")

    assert (tiny.name, tiny.full_name) == ("tiny:latest", "registry.ollama.ai/library/tiny:latest")
    assert tiny.weights.is_file()
    assert tiny.weights_digest == "sha256:" + hashlib.sha256(tiny.weights.read_bytes()).hexdigest()
    assert tiny.has_chat_template
    assert tiny.template.startswith("{{- if or .System .Tools }}")
    assert tiny.parameters == {"stop": ["<|im_end|>", "<|endoftext|>"], "temperature": 0}
    assert tiny.architecture == "llama"
    assert tiny.n_ctx_train == 2048
    assert tiny.kv_bytes_per_token == 5 * 2 * 64 * 2
    assert tiny.licenses[0].startswith("MIT License")


@pytest.mark.parametrize("name", ["nope", "a/b/tiny", "tiny:other"])
async def test_unknown_names_are_not_found(shop: Shop, name: str) -> None:
    with pytest.raises(ModelNotFound, match=f"model '{name}' not found"):
        await shop.store.get(name)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "a b", "x:", ".hidden", "a/../b", "x\0y"])
async def test_names_that_are_none_touch_nothing(shop: Shop, name: str) -> None:
    with pytest.raises(InvalidName, match="invalid model name"):
        await shop.store.get(name)
    with pytest.raises(InvalidName, match="is invalid"):
        await shop.store.delete(name)
    with pytest.raises(InvalidName, match="destination"):
        await shop.store.copy("tiny", name)


async def test_create_from_a_gguf_gives_ollamas_statuses(shop: Shop) -> None:
    digest = await shop.upload(GGUF)

    statuses = await shop.create(
        model="Mine",
        files={"model.gguf": digest},
        system="Be brief.",
        template="{{ .Prompt }}{{ .Suffix }}",
        licenses=["MIT"],
        parameters={"num_ctx": 4096.0, "stop": ["a"], "unknown": 1},
        messages=[ChatMessage("user", "hi"), ChatMessage("assistant", "hello")],
        requires="v0.14.0",
        renderer="r",
    )

    assert statuses[:2] == ["parsing GGUF", f"using existing layer {digest}"]
    assert [s.split(" sha256")[0] for s in statuses[2:]] == ["creating new layer"] * 5 + [
        "writing manifest",
        "success",
    ]
    mine = await shop.store.get("mine")
    assert mine.name == "Mine:latest"
    assert mine.weights.read_bytes() == GGUF
    assert mine.system == "Be brief."
    assert mine.parameters == {"num_ctx": 4096, "stop": ["a"]}
    assert mine.messages == (ChatMessage("user", "hi"), ChatMessage("assistant", "hello"))
    assert mine.licenses == ("MIT",)
    assert mine.renderer == "r"
    assert mine.details.family == "llama"
    assert mine.details.families == ("llama",)
    assert mine.details.quantization_level == "F16"
    assert (mine.details.context_length, mine.details.embedding_length) == (512, 64)
    assert mine.capabilities == (
        "completion",
    )  # its renderer makes the prompts, not the Jinja text
    assert (await shop.store.show("mine")).requires == "0.14.0"


async def test_create_from_a_model_inherits_and_replaces(shop: Shop) -> None:
    statuses = await shop.create(
        model="child",
        from_="tiny",
        system="New.",
        parameters={"temperature": 0.5},
        licenses=["two"],
    )

    tiny, child = await shop.store.get("tiny"), await shop.store.get("child")
    assert statuses[-1] == "success"
    assert statuses[0] == f"using existing layer {tiny.weights_digest}"
    assert child.weights == tiny.weights
    assert child.template == tiny.template
    assert child.system == "New."
    assert child.parameters == {"stop": ["<|im_end|>", "<|endoftext|>"], "temperature": 0.5}
    assert child.licenses == (*tiny.licenses, "two")
    assert child.details.parent_model == "tiny:latest"
    assert child.details.family == "llama"


async def test_a_grandchild_replaces_system_and_messages_but_keeps_what_it_does_not_name(
    shop: Shop,
) -> None:
    await shop.create(
        model="child", from_="tiny", system="One.", messages=[ChatMessage("user", "a")], parser="p"
    )
    await shop.create(model="grandchild", from_="child", system="Two.")

    grandchild = await shop.store.get("grandchild")

    assert grandchild.system == "Two."
    assert grandchild.messages == (ChatMessage("user", "a"),)
    assert grandchild.parser == "p"


async def test_projector_and_adapter_are_told_from_their_headers(shop: Shop) -> None:
    weights = await shop.upload(GGUF)
    projector = await shop.upload(model(general__architecture="clip", clip__has_audio_encoder=True))
    adapter = await shop.upload(lora())

    await shop.create(
        model="eyes",
        files={"model.gguf": weights, "mmproj.gguf": projector},
        adapters={"lora.gguf": adapter},
    )

    eyes = await shop.store.get("eyes")
    assert len(eyes.projectors) == len(eyes.adapters) == 1
    assert eyes.details.families == ("llama", "clip")
    assert {"vision", "audio"} <= set(eyes.capabilities)
    shown = await shop.store.show("eyes")
    assert shown.projector_info is not None
    assert shown.projector_info["general.architecture"] == "clip"
    assert f"ADAPTER {eyes.adapters[0]}" in shown.modelfile
    assert shown.modelfile.count("FROM /") == 2


ZERO = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"model": "a b", "from_": "tiny"}, InvalidName, "invalid model name"),
        ({"model": "x"}, InvalidRequest, "neither 'from' or 'files' was specified"),
        ({"model": "x", "from_": ".bad"}, InvalidName, "invalid model name"),
        (
            {"model": "x", "files": {"/abs.gguf": ZERO}},
            InvalidRequest,
            "file path must be relative",
        ),
        (
            {"model": "x", "files": {"../up.gguf": ZERO}},
            InvalidRequest,
            "file path must be relative",
        ),
        (
            {"model": "x", "files": {"a.gguf": "sha256:../../x"}},
            InvalidName,
            "invalid digest format",
        ),
        (
            {"model": "x", "files": {"a.gguf": "sha256:" + "G" * 64}},
            InvalidName,
            "invalid digest format",
        ),
        (
            {"model": "x", "from_": "tiny", "quantize": "q9"},
            InvalidRequest,
            "unsupported quantization type Q9 - supported types are "
            + ", ".join(FILE_TYPES.values()),
        ),
        (
            {"model": "x", "from_": "tiny", "tensor_types": {"ffn": "q8_0"}},
            InvalidRequest,
            "tensor_types and imatrix are for quantizing: say quantize, too",
        ),
        (
            {"model": "x", "from_": "tiny", "quantize": "q8_0", "imatrix": {"a": ZERO, "b": ZERO}},
            InvalidRequest,
            "only one imatrix can be used",
        ),
        (
            {"model": "x", "from_": "tiny", "draft_quantize": "q8_0"},
            InvalidRequest,
            "--draft-quantize requires a DRAFT model",
        ),
        (
            {"model": "x", "from_": "tiny", "info": {"context_length": 1.5}},
            InvalidRequest,
            'info field "context_length" must be a non-negative integer',
        ),
        (
            {"model": "x", "from_": "tiny", "parameters": {"num_ctx": "many"}},
            InvalidOption,
            'option "num_ctx" must be of type integer',
        ),
        (
            {"model": "x", "from_": "tiny", "requires": "1"},
            InvalidRequest,
            "requires must be a valid semver (e.g. 0.14.0)",
        ),
    ],
)
async def test_bad_requests_raise_on_entering(
    shop: Shop, fields: dict[str, object], kind: type[OlmError], message: str
) -> None:
    with pytest.raises(kind) as caught:
        async with shop.jobs.create(CreateRequest(**fields)):  # type: ignore[arg-type]
            pytest.fail("a bad request must not start a job")

    assert caught.value.message == message


async def test_problems_found_later_are_the_iterations_error(shop: Shop) -> None:
    text = await shop.upload(b"not a gguf")
    cut = await shop.upload(GGUF[:-1])
    split = await shop.upload(model(split__count=3))
    adapter = await shop.upload(lora())
    alien = await shop.upload(lora("gemma"))
    before = shop.blobs()
    cases: list[tuple[dict[str, object], type[OlmError], str]] = [
        ({"files": {"a.gguf": text}}, GgufError, "^supplied file was not in GGUF format$"),
        (
            {"files": {"a.gguf": cut}},
            GgufError,
            "a.gguf: GGUF file is truncated: tensor 'output_norm",
        ),
        ({"files": {"a.gguf": ZERO}}, InvalidRequest, "is not in the store, upload it first"),
        ({"files": {"a.gguf": adapter}}, InvalidRequest, "no model among the files"),
        ({"files": {"a.gguf": split}}, InvalidRequest, "invalid split GGUF: a.gguf: of 3 parts"),
        ({"from_": "tiny", "adapters": {"a.gguf": cut}}, GgufError, "truncated"),
        (
            {"from_": "tiny", "adapters": {"a.gguf": alien}},
            GgufError,
            "a.gguf was made for a model",
        ),
    ]

    for fields, kind, words in cases:
        with pytest.raises(kind, match=words):
            await shop.create(model="x", system="unused", **fields)

    with pytest.raises(ModelNotFound):
        await shop.store.get("x")
    assert shop.blobs() == before
    assert not shop.jobs.supervisor.tree().children


async def test_replacing_a_model_prunes_what_only_the_old_one_needed(shop: Shop) -> None:
    await shop.create(model="m", from_="tiny", system="old words")
    await shop.create(model="other", from_="tiny", template="shared {{ .Prompt }}")
    before = shop.blobs()

    await shop.create(model="M", from_="tiny", system="new words")

    old = {f"sha256-{hashlib.sha256(b'old words').hexdigest()}"}
    assert old <= before
    assert not old & shop.blobs()
    assert (await shop.store.get("m")).name == "m:latest"
    assert (await shop.store.get("other")).template == "shared {{ .Prompt }}"


async def test_noprune_keeps_what_was_replaced(tmp_path: Path) -> None:
    async with open_shop(tmp_path / "models", noprune=True) as shop:
        await shop.create(model="m", from_="tiny", system="old words")
        await shop.create(model="m", from_="tiny", system="new words")

        assert f"sha256-{hashlib.sha256(b'old words').hexdigest()}" in shop.blobs()


async def test_delete_keeps_shared_blobs_and_the_last_one_takes_them(shop: Shop) -> None:
    digest = await shop.upload(GGUF)
    await shop.create(model="a", files={"m.gguf": digest})
    await shop.store.copy("a", "b")
    file = digest.replace(":", "-")

    await shop.store.delete("A")
    assert file in shop.blobs()
    await shop.store.delete("b")

    assert file not in shop.blobs()
    assert [m.name for m in await shop.store.list()] == ["tiny:latest"]


async def test_an_uploaded_blob_waits_for_its_create_whatever_is_deleted_meanwhile(
    shop: Shop,
) -> None:
    digest = await shop.upload(GGUF)
    await shop.create(model="a", files={"m.gguf": digest})
    assert await shop.store.has_blob(digest)  # a second client is told that it need not upload

    await shop.store.delete("a")
    await shop.create(model="b", files={"m.gguf": digest})

    assert (await shop.store.get("b")).weights.read_bytes() == GGUF


async def test_delete_removes_unshared_blobs_and_empty_folders(shop: Shop) -> None:
    before = shop.blobs()
    await shop.create(model="ns/x:tag", from_="tiny", system="only mine")
    assert len(shop.blobs()) == len(before) + 1  # its config is the same as tiny's

    await shop.store.delete("ns/x:tag")

    assert shop.blobs() == before
    assert not (shop.root / "manifests/registry.ollama.ai/ns").exists()
    with pytest.raises(ModelNotFound, match="model 'ns/x:tag' not found"):
        await shop.store.delete("ns/x:tag")


async def test_copy_is_byte_for_byte_and_its_errors_are_ollamas(shop: Shop) -> None:
    await shop.store.copy("tiny", "hf.co/User/Repo:Q8_0")

    tiny, copied = await shop.store.get("tiny"), await shop.store.get("hf.co/user/repo:q8_0")
    assert copied.digest == tiny.digest
    assert copied.name == "hf.co/User/Repo:Q8_0"
    with pytest.raises(ModelNotFound, match=r'^model "nope" not found$'):
        await shop.store.copy("nope", "x")
    with pytest.raises(InvalidName, match=r'^source "a b" is invalid$'):
        await shop.store.copy("a b", "x")


async def test_removing_the_built_in_model_sticks(tmp_path: Path) -> None:
    async with open_shop(tmp_path / "models") as shop:
        await shop.store.delete("tiny")
    async with open_shop(tmp_path / "models") as shop:
        assert await shop.store.list() == []


async def test_show_tells_all_and_its_modelfile_makes_the_model_again(shop: Shop) -> None:
    digest = await shop.upload(GGUF)
    await shop.create(
        model="m",
        files={"m.gguf": digest},
        system='Two\nlines "quoted"',
        parameters={"stop": ["<x>", "\n"], "num_ctx": 1048576, "temperature": 0.7},
        messages=[ChatMessage("user", "hi")],
        licenses=["L1\nL2"],
    )

    shown = await shop.store.show("m")
    verbose = await shop.store.show("m", verbose=True)

    assert shown.modelfile.startswith(
        '# Modelfile generated by "ollama show"\n'
        "# To build a new Modelfile based on this, replace FROM with:\n"
        "# FROM m:latest\n\n"
        f"FROM {shown.model.weights}\n"
        'SYSTEM """Two\nlines "quoted""""\n'
    )
    assert shown.parameters.splitlines() == [
        f"{'num_ctx':<30} 1048576",
        f'{"stop":<30} "<x>"',
        f'{"stop":<30} "\\n"',
        f"{'temperature':<30} 0.7",
    ]
    assert shown.template == JINJA
    assert shown.model_info["general.parameter_count"] == 320
    assert shown.model_info["tokenizer.ggml.tokens"] is None
    assert verbose.model_info["tokenizer.ggml.tokens"] == [f"t{i}" for i in range(8)]
    assert shown.tensors[0] == ("token_embd.weight", "F16", (64, 4))
    with pytest.raises(ModelNotFound, match=r"^model 'x:latest' not found$"):
        await shop.store.show("x")


async def test_uploads_are_verified_while_they_stream(shop: Shop) -> None:
    data = random.Random(1).randbytes(3_500_000)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()

    async with shop.store.open_blob_writer(digest) as writer:
        for at in range(0, len(data), 65_536):
            await writer.write(data[at : at + 65_536])
        assert not await shop.store.has_blob(digest)
        assert await writer.commit()
    async with shop.store.open_blob_writer(digest) as writer:
        await writer.write(data)
        assert not await writer.commit()
    wrong = shop.blobs()
    async with shop.store.open_blob_writer(ZERO) as writer:
        await writer.write(b"x")
        with pytest.raises(DigestMismatch) as caught:
            await writer.commit()

    assert await shop.store.has_blob(digest)
    assert caught.value.message == (
        f'digest mismatch, expected "{ZERO}", got "sha256:{hashlib.sha256(b"x").hexdigest()}"'
    )
    assert shop.blobs() == wrong
    with pytest.raises(InvalidName, match="invalid digest format"):
        await shop.store.has_blob("sha256:../../../etc/passwd")
    with pytest.raises(InvalidName, match="invalid digest format"):
        async with shop.store.open_blob_writer("sha256-" + "0" * 64):
            pass


async def test_an_upload_that_is_left_or_cancelled_leaves_nothing(shop: Shop) -> None:
    before = shop.blobs()

    async with shop.store.open_blob_writer(ZERO) as writer:
        await writer.write(bytes(2_000_000))
        assert len(shop.blobs()) == len(before) + 1
    with trio.CancelScope() as scope:
        async with shop.store.open_blob_writer(ZERO) as writer:
            await writer.write(bytes(2_000_000))
            scope.cancel("the client left")
            await writer.write(bytes(2_000_000))

    assert scope.cancelled_caught
    assert shop.blobs() == before


async def test_a_create_that_is_left_early_leaves_nothing(shop: Shop) -> None:
    digest = await shop.upload(GGUF)
    before = shop.blobs()

    async with shop.jobs.create(
        CreateRequest(model="m", files={"m.gguf": digest}, system="never stored")
    ) as progress:
        async for item in progress:
            if item.status.startswith("using existing"):
                break

    if "m:latest" in {m.name for m in await shop.store.list()}:
        await shop.store.delete("m")  # it was quicker than we left: then it is whole
    assert shop.blobs() == before
    assert not shop.jobs.supervisor.tree().children


async def test_concurrent_creates_of_one_name_leave_one_whole_model(shop: Shop) -> None:
    before = shop.blobs()

    async with trio.open_nursery() as nursery:
        for i in range(12):
            nursery.start_soon(
                lambda i=i: shop.create(model="m", from_="tiny", system=f"words {i}")
            )

    model_ = await shop.store.get("m")
    assert model_.system in {f"words {i}" for i in range(12)}
    assert len(shop.blobs() - before) == 1


async def test_a_model_being_created_from_is_safe_from_delete(shop: Shop) -> None:
    """Create holds its base's blobs: whichever comes first, the new model is whole."""
    for i in range(10):
        digest = await shop.upload(model(general__name=f"w{i}"))
        await shop.create(model="base", files={"m.gguf": digest}, system=f"base {i}")

        async with trio.open_nursery() as nursery:

            async def derive() -> None:
                try:
                    await shop.create(model="derived", from_="base", template="t")
                except ModelNotFound:
                    return
                derived = await shop.store.get("derived")
                assert derived.system.startswith("base")
                await shop.store.delete("derived")

            nursery.start_soon(derive)
            nursery.start_soon(shop.store.delete, "base")

    assert [m.name for m in await shop.store.list()] == ["tiny:latest"]


async def test_a_second_daemon_is_refused_in_one_line(shop: Shop) -> None:
    with pytest.RaisesGroup(
        pytest.RaisesExc(StoreLocked, match="^another olm daemon .* is using the model store"),
        flatten_subgroups=True,
    ):
        async with open_shop(shop.root):
            pytest.fail("two daemons must not share a store")


async def test_the_store_can_be_opened_again_at_once(tmp_path: Path) -> None:
    for _ in range(3):
        async with open_shop(tmp_path / "models") as shop:
            await shop.store.list()


async def test_a_crash_of_the_actor_costs_one_request(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from olm.store.library import Library

    def bug(_: Library) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(Library, "list", bug)
        with pytest.raises(ActorStopped):
            await shop.store.list()

    assert [m.name for m in await shop.store.list()] == ["tiny:latest"]


async def test_a_damaged_model_is_named_and_can_be_deleted(shop: Shop) -> None:
    await shop.store.copy("tiny", "broken")
    path = shop.root / "manifests/registry.ollama.ai/library/broken/latest"
    path.write_text(json.dumps({"schemaVersion": 2}))

    with pytest.raises(OlmError, match="manifest in the store is damaged"):
        await shop.store.get("broken")
    assert [m.name for m in await shop.store.list()] == ["tiny:latest"]
    await shop.store.delete("broken")

    with pytest.raises(ModelNotFound):
        await shop.store.get("broken")


async def test_weights_that_vanish_or_shrink_are_noticed(shop: Shop) -> None:
    digest = await shop.upload(GGUF)
    await shop.create(model="m", files={"m.gguf": digest})
    weights = (await shop.store.get("m")).weights

    weights.write_bytes(GGUF[:-1])
    with pytest.raises(OlmError, match=r"has .* bytes, not"):
        await shop.store.get("m")
    weights.unlink()
    with pytest.raises(OlmError, match=r"blob sha256:.* is missing from the store"):
        await shop.store.get("m")
