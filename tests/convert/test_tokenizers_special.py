"""Special tokens and chat templates, from each of the places they are kept in."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizer_kit import BYTES, byte_level, read_folder, write_files

from olm.convert.tokenizers.result import ReadVocab
from olm.errors import CheckpointError

FIRST = len(BYTES) + 2
NAMES = ("<s>", "</s>", "<turn-end>", "<pad>", "<sep>")
ADDED = [{"id": FIRST + i, "content": name, "special": True} for i, name in enumerate(NAMES)]
BOS, EOS, TURN, PAD, SEP = range(FIRST, FIRST + len(NAMES))


def read(folder: Path, post_processor: object = None, **files: object) -> ReadVocab:
    tokenizer = byte_level(added_tokens=ADDED, post_processor=post_processor)
    named = {f"{name}.json": value for name, value in files.items()}
    return read_folder(write_files(folder, {"tokenizer.json": tokenizer, **named}))


def template(*single: str) -> dict[str, object]:
    """A post-processor that puts these around a text, which is ""."""
    entries = [
        {"SpecialToken": {"id": text, "type_id": 0}}
        if text
        else {"Sequence": {"id": "A", "type_id": 0}}
        for text in single
    ]
    return {"type": "TemplateProcessing", "single": entries, "pair": []}


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"eos_token": "</s>", "pad_token": {"content": "<pad>"}}},
        {"special_tokens_map": {"eos_token": {"content": "</s>"}, "pad_token": "<pad>"}},
        {"config": {"eos_token_id": EOS, "pad_token_id": PAD, "unk_token_id": -1}},
        {"config": {"text_config": {"eos_token_id": EOS, "pad_token_id": PAD}}},
        {
            "tokenizer_config": {"eos_token": "</s>"},
            "config": {"eos_token_id": 1, "pad_token_id": PAD},
        },
        {
            "tokenizer_config": {"eos_token": "<none>"},
            "config": {"eos_token_id": EOS, "pad_token_id": PAD},
        },
    ],
)
def test_special_tokens_are_found_wherever_they_are_said(
    files: dict[str, object], tmp_path: Path
) -> None:
    """Texts in tokenizer_config.json count before ids in config.json; nonsense is passed over."""
    assert read(tmp_path, **files).special == {"eos": EOS, "pad": PAD}


@pytest.mark.parametrize(
    ("generation", "config", "ids", "special"),
    [
        ([EOS, TURN], None, (EOS, TURN), {"eos": EOS, "eot": TURN}),
        ([TURN, EOS], None, (TURN, EOS), {"eos": TURN, "eot": EOS}),
        (None, [EOS, TURN], (EOS, TURN), {"eos": EOS, "eot": TURN}),
        (EOS, [EOS], (EOS,), {"eos": EOS}),
        ([EOS, 10**9, True, "x"], None, (EOS,), {"eos": EOS}),
    ],
)
def test_several_ends_are_kept(
    generation: object,
    config: object,
    ids: tuple[int, ...],
    special: dict[str, int],
    tmp_path: Path,
) -> None:
    """From generation_config.json, else config.json. One that llama.cpp does not know by its text is said to end a turn."""
    found = read(
        tmp_path, generation_config={"eos_token_id": generation}, config={"eos_token_id": config}
    )

    # `</s>` ends generation by its text alone, so it needs no key.
    known = {k: v for k, v in special.items() if (k, v) != ("eot", EOS)}
    assert (found.eos_ids, found.special) == (ids, known)


@pytest.mark.parametrize(
    ("processor", "add_bos", "add_eos"),
    [
        (None, None, None),
        ({"type": "ByteLevel"}, False, False),
        (template("<s>", ""), True, None),
        (template("", "</s>"), None, True),
        (template("<s>", "", "</s>"), True, True),
        (
            {"type": "Sequence", "processors": [{"type": "ByteLevel"}, template("<s>", "")]},
            True,
            False,
        ),
    ],
)
def test_the_post_processor_says_what_is_added(
    processor: object, add_bos: bool | None, add_eos: bool | None, tmp_path: Path
) -> None:
    """Templates count more than the flags of tokenizer_config.json."""
    settings = {"bos_token": "<s>", "eos_token": "</s>"}

    found = read(tmp_path, processor, tokenizer_config=settings)

    assert (found.add_bos, found.add_eos) == (add_bos, add_eos)


def test_flags_hold_where_the_post_processor_is_silent(tmp_path: Path) -> None:
    """Older checkpoints say it there alone."""
    settings = {"bos_token": "<s>", "add_bos_token": True, "add_eos_token": False}

    found = read(tmp_path, tokenizer_config=settings)

    assert (found.add_bos, found.add_eos) == (True, False)


def test_a_token_that_does_not_exist_is_not_added(tmp_path: Path) -> None:
    """llama.cpp would abort, or add the one that GPT-2 had."""
    assert read(tmp_path, tokenizer_config={"add_bos_token": True}).add_bos is False


def test_the_token_at_the_end_is_the_eos(tmp_path: Path) -> None:
    """What was said to be the EOS ends a turn then."""
    settings = {"bos_token": "<s>", "eos_token": "<turn-end>"}

    found = read(tmp_path, template("<s>", "", "</s>"), tokenizer_config=settings)

    assert found.special == {"bos": BOS, "eos": EOS, "eot": TURN}


def test_roberta_adds_all_three(tmp_path: Path) -> None:
    """Its post-processor names the tokens itself."""
    processor = {"type": "RobertaProcessing", "sep": ["</s>", EOS], "cls": ["<s>", BOS]}

    found = read(tmp_path, processor, tokenizer_config={"x": 1})

    assert (found.add_bos, found.add_eos, found.add_sep) == (True, True, True)
    assert found.special == {"bos": BOS, "eos": EOS, "sep": EOS}


# -- chat templates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config.json": {"chat_template": "T"}},
        {"tokenizer_config.json": {"chat_template": [{"name": "default", "template": "T"}]}},
        {"chat_template.jinja": "T"},
        {"chat_template.json": {"chat_template": "T"}},
        {"tokenizer_config.json": {"chat_template": "T"}, "chat_template.jinja": "another"},
        {"chat_template.jinja": "T", "chat_template.json": {"chat_template": "another"}},
    ],
)
def test_the_template_is_found_wherever_it_is(files: dict[str, object], tmp_path: Path) -> None:
    """The first of several places counts."""
    write_files(tmp_path, {"tokenizer.json": byte_level(), **files})

    found = read_folder(tmp_path)

    assert (found.chat_template, found.chat_templates) == ("T", {})


def test_named_templates_come_along(tmp_path: Path) -> None:
    """Those of the list, and those of the folder."""
    named = [{"name": "default", "template": "T"}, {"name": "rag", "template": "R"}]
    files = {"tokenizer_config.json": {"chat_template": named}}
    write_files(tmp_path, {**files, "additional_chat_templates/tool_use.jinja": "U"})
    write_files(tmp_path, {"tokenizer.json": byte_level()})

    found = read_folder(tmp_path)

    assert found.chat_template == "T"
    assert found.chat_templates == {"tool_use": "U", "rag": "R"}


def test_a_damaged_template_is_an_error(tmp_path: Path) -> None:
    """With the place in it."""
    write_files(
        tmp_path, {"tokenizer.json": byte_level(), "tokenizer_config.json": {"chat_template": 5}}
    )

    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: chat_template"):
        read_folder(tmp_path)
