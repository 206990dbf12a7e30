"""The pre-tokenizers that llama.cpp knows: how the models they come from cut text, and the names that GGUFs give them.

The names are those of `llama_vocab::impl::load` in src/llama-vocab.cpp of the pinned tree. The patterns are those of the models' own
tokenizer.json, not llama.cpp's rewritings of them, since they are what a checkpoint's are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from olm.convert.tokenizers.splits import GPT2_PATTERN, Step

__all__ = ["KNOWN_SPLITS", "QWEN2_PATTERN", "KnownSplit", "Name"]


@attrs.frozen
class Name:
    """A value of `tokenizer.ggml.pre`.

    Attributes:
        ignores_merges: a piece that is in the vocabulary whole is not put together by merges.
        needs_bos: None for no matter; False where llama.cpp takes it that there is no BOS.
        adds_bos: llama.cpp adds a BOS unless told otherwise.
    """

    text: str
    ignores_merges: bool = False
    needs_bos: bool | None = None
    adds_bos: bool = False


@attrs.frozen
class KnownSplit:
    """One way to cut text, and the names for it; the first name that fits is taken."""

    steps: Sequence[Step]
    names: Sequence[Name]


_CONTRACTIONS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LINES_AND_SPACES: Final = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER: Final = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER: Final = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_UPPER_NOT_HAN: Final = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_LOWER_NOT_HAN: Final = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_NO_LETTER: Final = r"[^\r\n\p{L}\p{N}]?"


def _cl100k(digits: str, spaces: str = _LINES_AND_SPACES, words: str = r"\p{L}+") -> str:
    """The family of GPT-4: contractions, words with a character before them, numbers, signs with line ends, white space."""
    return rf"{_CONTRACTIONS}|{_NO_LETTER}{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{spaces}"


def _o200k(digits: str, suffix: str, signs: str = r"[\r\n/]*") -> str:
    """The family of GPT-4o: words are cut where capitals begin."""
    return (
        rf"{_NO_LETTER}{_UPPER}*{_LOWER}+{suffix}|{_NO_LETTER}{_UPPER}+{_LOWER}*{suffix}"
        rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]+{signs}|{_LINES_AND_SPACES}"
    )


_LLAMA3: Final = _cl100k(r"\p{N}{1,3}")
QWEN2_PATTERN: Final = _cl100k(r"\p{N}")
_BLOOM: Final = " ?[^(\\s|[.,!?…。，、।۔،])]+"
_SIGNS: Final = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
_DEEPSEEK_3: Final = rf"{_SIGNS}|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_LINES_AND_SPACES}"
_DEEPSEEK_LETTERS: Final = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴ"
    "ᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ"
    "𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
_DEEPSEEK_CJK: Final = "[一-龥ࠀ-一가-퟿]+"
_CJK: Final = "[一-龥぀-ゟ゠-ヿ]+"
_AFMOE_CJK: Final = "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+"
_YOUTU: Final = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+"
_BY_THREE_FROM_RIGHT: Final = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"


def _known(names: Sequence[Name] | str, *patterns: str | Step) -> KnownSplit:
    steps = tuple(Step(p) if isinstance(p, str) else p for p in patterns)
    return KnownSplit(steps, (Name(names),) if isinstance(names, str) else names)


KNOWN_SPLITS: Final[Sequence[KnownSplit]] = (
    _known("gpt-2", GPT2_PATTERN),
    _known("starcoder", r"\p{N}", GPT2_PATTERN),
    _known(
        (
            Name("glm4", ignores_merges=True, needs_bos=False),
            Name("llama-bpe", ignores_merges=True, adds_bos=True),
            Name("chatglm-bpe", needs_bos=False),
            Name("dbrx"),
        ),
        _LLAMA3,
    ),
    _known("qwen2", QWEN2_PATTERN),
    _known(
        "qwen35",
        rf"{_CONTRACTIONS}|{_NO_LETTER}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_LINES_AND_SPACES}",
    ),
    _known(
        "falcon",
        Step(r"[\p{P}!-/:-@\[-`{-~]", "Contiguous"),
        GPT2_PATTERN,
        r"\p{N}+",
        "[0-9][0-9][0-9]",
    ),
    _known(
        (Name("granite-embed-multi-97m", ignores_merges=True), Name("gpt-4o")),
        _o200k(r"\p{N}{1,3}", f"{_CONTRACTIONS}?"),
    ),
    _known((Name("tekken", ignores_merges=True, adds_bos=True),), _o200k(r"\p{N}", "")),
    _known(
        "tiny_aya",
        r"\d{1,3}(?=(?:\d{3})*\b)",
        _o200k(r"\p{N}{1,3}", f"{_CONTRACTIONS}?"),
    ),
    _known(
        "kimi-k2",
        rf"[\p{{Han}}]+|{_NO_LETTER}{_UPPER_NOT_HAN}*{_LOWER_NOT_HAN}+{_CONTRACTIONS}?"
        rf"|{_NO_LETTER}{_UPPER_NOT_HAN}+{_LOWER_NOT_HAN}*{_CONTRACTIONS}?"
        rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_LINES_AND_SPACES}",
    ),
    _known(
        "deepseek-llm",
        "[\r\n]",
        rf"\s?[{_DEEPSEEK_LETTERS}]+",
        r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
        r"\s+$",
        _DEEPSEEK_CJK,
        r"\p{N}+",
    ),
    _known("deepseek-coder", "[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _DEEPSEEK_CJK, r"\p{N}"),
    _known("deepseek-v3", r"\p{N}{1,3}", _CJK, _DEEPSEEK_3),
    _known(
        "spark2_5",
        r"\p{N}{1,3}",
        _CJK,
        rf"{_SIGNS}|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+|[\r\n]|\s+(?!\S)|\s+",
        r"\p{N}",
    ),
    _known("afmoe", _BY_THREE_FROM_RIGHT, _AFMOE_CJK, _DEEPSEEK_3),
    _known((Name("youtu", ignores_merges=True),), _YOUTU, _o200k(r"\p{N}", f"{_CONTRACTIONS}?")),
    _known("bloom", _BLOOM),
    _known("viking", _BLOOM, r"\p{N}"),
    _known("superbpe", r"\p{N}+", r"(?=(\d{3})+(?!\d))"),
    _known(
        "bailingmoe",
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    ),
    _known(
        "seed-coder",
        rf"{_CONTRACTIONS}|{_NO_LETTER}\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_LINES_AND_SPACES}",
    ),
    _known(
        "ufakzeka",
        rf"{_NO_LETTER}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_LINES_AND_SPACES}",
    ),
    _known("laguna", Step(r"(?:\r?\n)+(?!\r?\n)", "MergedWithNext"), QWEN2_PATTERN),
    _known(
        "exaone-moe",
        rf"{_CONTRACTIONS}|{_NO_LETTER}(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
    ),
    _known(
        (Name("minicpm5", ignores_merges=True),),
        r"\p{N}{1,3}",
        _cl100k(r"\p{N}+"),
    ),
    _known(
        "jais-2",
        _cl100k(
            r"\p{N}{1,3}",
            r"\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)"
            r"|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}",
        ),
    ),
    _known(
        (Name("chameleon", adds_bos=True),),
        "<sentinel:[0-9]+>",
        "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
        "([\\t\\n]|    |  )",
        r"\p{N}",
        r"[\p{P}!-/:-@\[-`{-~]",
        GPT2_PATTERN,
    ),
)
"""All of them. Those that only GGUF model types other than `gpt2` use are not here (gemma4, whitespace)."""
