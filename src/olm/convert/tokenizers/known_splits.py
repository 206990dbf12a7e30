"""The pre-tokenizers that llama.cpp knows: how the models they come from cut text, and the names that GGUFs give them.

The names are those of `llama_vocab::impl::load` in src/llama-vocab.cpp of the pinned tree. The patterns are those of the models' own
tokenizer.json, not llama.cpp's rewritings of them, since they are what a checkpoint's are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from olm.convert.tokenizers.splits import GPT2_PATTERN, Step

__all__ = ["KIMI_PATTERN", "KNOWN_SPLITS", "LLAMA3_PATTERN", "QWEN2_PATTERN", "KnownSplit", "Name"]


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


LLAMA3_PATTERN: Final = _cl100k(r"\p{N}{1,3}")
QWEN2_PATTERN: Final = _cl100k(r"\p{N}")
KIMI_PATTERN: Final = (
    rf"[\p{{Han}}]+|{_NO_LETTER}{_UPPER_NOT_HAN}*{_LOWER_NOT_HAN}+{_CONTRACTIONS}?"
    rf"|{_NO_LETTER}{_UPPER_NOT_HAN}+{_LOWER_NOT_HAN}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_LINES_AND_SPACES}"
)
_BLOOM: Final = " ?[^(\\s|[.,!?…。，、।۔،])]+"
_SIGNS: Final = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
_DEEPSEEK_3: Final = rf"{_SIGNS}|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_LINES_AND_SPACES}"
_DEEPSEEK_LETTERS: Final = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376"
    "\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d"
    "\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4"
    "\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    "\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d"
    "\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a"
    "\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2"
    "\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_DEEPSEEK_CJK: Final = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_CJK: Final = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_AFMOE_CJK: Final = (
    "[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f"
    "\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
_YOUTU: Final = (
    "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f"
    "\ufe30-\ufe4f]+|[\u3105-\u312f]+|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
)
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
        LLAMA3_PATTERN,
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
    _known("kimi-k2", KIMI_PATTERN),
    _known(
        "deepseek-llm",
        "[\r\n]",
        rf"\s?[{_DEEPSEEK_LETTERS}]+",
        "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
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
