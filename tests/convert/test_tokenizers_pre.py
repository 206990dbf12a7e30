"""Pre-tokenizers: real models' are told by name, others by what they do, and no expression costs more than its bound."""

from __future__ import annotations

import pytest

from olm.convert.tokenizers.known_splits import KNOWN_SPLITS
from olm.convert.tokenizers.recognize import PROBE, recognize
from olm.convert.tokenizers.splits import Step, UnknownSplitError, split, steps_of
from olm.errors import CheckpointError

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
CJK = "[一-龥ࠀ-一가-퟿]+"


def cut(pattern: str, behavior: str = "Isolated") -> dict[str, object]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}


def row(*parts: dict[str, object]) -> dict[str, object]:
    return {"type": "Sequence", "pretokenizers": list(parts)}


# As published in the models' own tokenizer.json.
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
QWEN35 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = O200K.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "").replace("{1,3}", "")
DEEPSEEK3 = (
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
)
KIMI = (
    r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LING = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
SEED = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\r\n]+|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
BLOOM = " ?[^(\\s|[.,!?…。，、।۔،])]+"

PUBLISHED = {
    "openai-community/gpt2": (GPT2, "gpt-2"),
    "bigcode/starcoder2-3b, SmolLM2, Granite": (row(DIGITS, GPT2), "starcoder"),
    "tiiuae/falcon-7b": (
        row(
            {"type": "Punctuation", "behavior": "Contiguous"},
            GPT2,
            {"type": "Digits", "individual_digits": False},
            cut("[0-9][0-9][0-9]"),
        ),
        "falcon",
    ),
    "meta-llama/Meta-Llama-3-8B": (row(cut(LLAMA3), BYTES), "llama-bpe"),
    "Qwen/Qwen2-7B, Qwen3-8B": (row(cut(QWEN2), BYTES), "qwen2"),
    "Qwen/Qwen3.5-9B": (row(cut(QWEN35), BYTES), "qwen35"),
    "openai/gpt-oss-20b": (row(cut(O200K), BYTES), "gpt-4o"),
    "mistralai/Mistral-Nemo-Base-2407": (row(cut(TEKKEN), BYTES), "tekken"),
    "deepseek-ai/DeepSeek-V3": (
        row(cut(r"\p{N}{1,3}"), cut("[一-龥぀-ゟ゠-ヿ]+"), cut(DEEPSEEK3), BYTES),
        "deepseek-v3",
    ),
    "deepseek-ai/deepseek-coder-6.7b-instruct": (
        row(cut("[\r\n]"), cut(r"\s?\p{L}+"), cut(r"\s?\p{P}+"), cut(CJK), DIGITS, BYTES),
        "deepseek-coder",
    ),
    "moonshotai/Kimi-K2": (row(cut(KIMI), BYTES), "kimi-k2"),
    "inclusionAI/Ling-lite": (row(cut(LING), BYTES), "bailingmoe"),
    "ByteDance-Seed/Seed-Coder-8B-Base": (row(cut(SEED), BYTES), "seed-coder"),
    "bigscience/bloom": (row(cut(BLOOM), BYTES), "bloom"),
    "LumiOpen/Viking-7B": (row(cut(BLOOM), DIGITS, BYTES), "viking"),
    "poolside/Laguna-XS.2": (
        row(cut(r"(?:\r?\n)+(?!\r?\n)", "MergedWithNext"), cut(QWEN2), BYTES),
        "laguna",
    ),
    "openbmb/MiniCPM5-1B": (
        row(cut(r"\p{N}{1,3}"), cut(LLAMA3.replace("{1,3}", "+")), BYTES),
        "minicpm5",
    ),
    "CohereLabs/tiny-aya-base": (
        row(cut(r"\d{1,3}(?=(?:\d{3})*\b)"), cut(O200K), BYTES),
        "tiny_aya",
    ),
}


@pytest.mark.parametrize("model", PUBLISHED)
def test_published_pre_tokenizers_are_recognized(model: str) -> None:
    """The definitions of known models have the names that llama.cpp's converter gives these models."""
    definition, name = PUBLISHED[model]
    ignores = name in ("llama-bpe", "tekken", "minicpm5")

    found = recognize(definition, ignore_merges=ignores, has_bos=True)

    assert (found.name, found.notes) == (name, ())


@pytest.mark.parametrize(
    ("ignore_merges", "has_bos", "name"),
    [
        (True, True, "llama-bpe"),
        (True, False, "glm4"),
        (False, True, "dbrx"),
        (False, False, "chatglm-bpe"),
    ],
)
def test_one_way_to_cut_has_several_names(ignore_merges: bool, has_bos: bool, name: str) -> None:
    """Names that cut alike differ in whether merges are ignored, and in the BOS."""
    found = recognize(row(cut(LLAMA3), BYTES), ignore_merges=ignore_merges, has_bos=has_bos)

    assert found.name == name


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (LLAMA3.replace(r"\r\n", "\r\n"), "dbrx"),
        (
            LLAMA3.replace(
                "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
                "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
            ),
            "dbrx",
        ),
        (QWEN2.replace(r"\p{N}|", "[0-9]|\\p{N}{1}|"), "qwen2"),
        (r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s+(?!\S)|\s+", "gpt-2"),
    ],
)
def test_an_unknown_expression_is_told_by_what_it_does(pattern: str, name: str) -> None:
    """The same cuts said in other words get the same name."""
    found = recognize(row(cut(pattern), BYTES), ignore_merges=False, has_bos=True)

    assert (found.name, found.notes) == (name, ())


def test_a_strange_pre_tokenizer_becomes_default_with_a_note() -> None:
    """What llama.cpp cannot do is said, with the nearest that it can."""
    found = recognize(
        row(cut(QWEN2.replace(r"\p{N}", r"\p{N}{1,2}")), BYTES), ignore_merges=False, has_bos=True
    )

    assert found.name == "default"
    assert "qwen2" in found.notes[0] or "dbrx" in found.notes[0] or "glm4" in found.notes[0]


def test_no_two_known_ones_cut_the_probe_alike() -> None:
    """The probe tells all apart; Ling's expression is Qwen 2's in other words."""
    cuts = [
        tuple(split(PROBE, known.steps))
        for known in KNOWN_SPLITS
        if known.names[0].text != "bailingmoe"
    ]

    assert len(set(cuts)) == len(cuts)


@pytest.mark.parametrize(
    ("text", "step", "pieces"),
    [
        ("the-final--count", Step("-"), ["the", "-", "final", "-", "-", "count"]),
        ("the-final--count", Step("-", "Removed"), ["the", "final", "count"]),
        ("the-final--count", Step("-", "MergedWithPrevious"), ["the-", "final-", "-", "count"]),
        ("the-final--count", Step("-", "MergedWithNext"), ["the", "-final", "-", "-count"]),
        ("the-final--count", Step("-", "Contiguous"), ["the", "-", "final", "--", "count"]),
        ("ab 12", Step(r"\w+", "Removed", invert=True), ["ab", "12"]),
        ("1234567", Step(r"(?=(\d{3})+(?!\d))"), ["1", "234", "567"]),
        ("Don't DON'T", Step("(?i:'t)"), ["Don", "'t", " DON", "'T"]),
        ("aab", Step("a*?b"), ["aab"]),
        ("aaa", Step("a++a|a"), ["a", "a", "a"]),
        ("x1y", Step(r"(?<=\d)y|(?<!\d)1"), ["x", "1", "y"]),
        ("a\nb", Step("^.$"), ["a", "\n", "b"]),
        ("ab文c", Step(r"[\p{L}&&[^\p{Han}]]+"), ["ab", "文", "c"]),
        ("x{2}\u4e2d-]", Step(r"[\u4e00-\x{9fff}]|[]-]+|{2}"), ["x", "{2}", "中", "-]"]),
    ],
)
def test_text_is_cut_as_by_the_tokenizers_library(text: str, step: Step, pieces: list[str]) -> None:
    """Behaviors are those of its documentation, expressions those of Oniguruma."""
    found = [text[start:end] for start, end in split(text, [step])]

    assert found == pieces


@pytest.mark.parametrize(
    "pattern",
    [
        r"((.|.)*)*\z\A",
        "(|)" * 40 + r"\A\z",
        "(.*.*.*.*.*=)",
        "(" * 60 + ")" * 60,
        "[[[[a",
        "a{3,2}",
        "*a",
        r"\p{Nothing}",
        "(?<n>a)",
        *("a" * 5000, "\\", "[z-a]", "(a", "a)", r"\u12", "(a{1000}){1000}"),
    ],
)
def test_hostile_expressions_are_bounded_and_named(pattern: str) -> None:
    """An expression that explodes, or cannot be read, is not known; nothing else happens."""
    found = recognize(cut(pattern), ignore_merges=False, has_bos=True)

    assert found.name == "default"
    assert found.notes


def test_damaged_definitions_are_refused() -> None:
    """What is not of tokenizer.json's form is an error, not a guess."""
    for damaged in ("x", {"type": "Split", "pattern": {"Regex": 1}}, cut("a", "Sideways")):
        with pytest.raises(CheckpointError, match="pre_tokenizer"):
            steps_of(damaged)
    with pytest.raises(UnknownSplitError, match="UnicodeScripts"):
        steps_of({"type": "UnicodeScripts"})
