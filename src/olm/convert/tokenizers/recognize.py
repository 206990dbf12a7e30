"""Which of llama.cpp's pre-tokenizers a checkpoint's is: by its steps if they are known, else by what they do to a text.

llama.cpp's own converter tells them by the hash of a text's tokens, so every new vocabulary is unknown to it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import attrs

from olm.convert.tokenizers.known_splits import KNOWN_SPLITS, KnownSplit, Name
from olm.convert.tokenizers.splits import Step, UnknownSplitError, split, steps_of

__all__ = ["PROBE", "Found", "recognize"]

PROBE: Final = (
    "Hello, World! I'm sure they'LL say it's FINE, WE'VE seen  it.\n\n"
    "camelCase HTTPServer iPhone7 x2y 3 33 333 4444 55555 666666 7777777 3.14 1,000,000\n"
    "def f(x):\n\treturn x ** 2  # half/\n    if a != b: pass;\r\n\r\n  \n \t\n"
    "don't DON'T 'tis 'Re o'clock C++ a_b __x__ [a] {b} <c> $5 €9 ±1 `q` ~~ ^^ || ====== ...!!!???\n"
    "…。，、।۔، “x” ‘y’ —— «z» (a|b).c ! \n/\n.\n\n\n"
    "我想在apple工作1314151天～ ひらがなカタカナｱｲ 한국어 ㄱㄴ ไทยภาษา ລາວ ខ្មែរ မြန်မာ\n"
    "нещо на Български Ελληνικά हिन्दी में नमस्ते বাংলা تَجْرِبَة עִבְרִית naïve cafe\u0301 Ǆungla ǅ ﬁne\n"
    "½ ² Ⅷ ٣٤٥٦ १२३४ 😀👍🏽🇺🇸 ❤️ a\u00a0b c\u2003d  \u3000e        eight     five   three \n"
    "İstanbul'daki it'Self x'told a  12 b \n 7 IMGIMGABZ <sentinel:12> tail   "
)
"""A text on which no two of the known ones agree: contractions in both cases, camel case, runs of digits, spaces and line ends of each
length that matters, signs before words and line ends, marks, many scripts."""

_DEFAULT: Final = "default"


@attrs.frozen
class Found:
    """What a pre-tokenizer is called.

    Attributes:
        name: `tokenizer.ggml.pre`.
        adds_bos: llama.cpp adds a BOS with this name unless told otherwise.
        notes: what the user should know; empty when it is known.
    """

    name: str
    adds_bos: bool = False
    notes: Sequence[str] = ()


def recognize(pre_tokenizer: object, *, ignore_merges: bool, has_bos: bool) -> Found:
    """Name a pre-tokenizer, as tokenizer.json writes it.

    Args:
        pre_tokenizer: the JSON value.
        ignore_merges: the model's flag of that name.
        has_bos: whether the vocabulary has a token that begins texts.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        steps = steps_of(pre_tokenizer)
        known = _by_steps(steps) or _by_splits(steps)
    except UnknownSplitError as exc:
        return _unknown(f"it has {exc}")
    if known is None:
        return _unknown(f"the nearest is {_nearest(steps)!r}")
    name = _name(known.names, ignore_merges=ignore_merges, has_bos=has_bos)
    return Found(name.text, name.adds_bos)


def _unknown(why: str) -> Found:
    note = (
        f"llama.cpp knows no pre-tokenizer like this one ({why}); text may be split in other places"
    )
    return Found(_DEFAULT, notes=(note,))


def _name(names: Sequence[Name], *, ignore_merges: bool, has_bos: bool) -> Name:
    """The first name that fits; what merges do weighs more than a BOS that nobody adds."""

    def misfit(name: Name) -> tuple[bool, bool]:
        return name.ignores_merges != ignore_merges, name.needs_bos not in (None, has_bos)

    return min(names, key=misfit)


def _by_steps(steps: Sequence[Step]) -> KnownSplit | None:
    return next((known for known in KNOWN_SPLITS if known.steps == steps), None)


def _by_splits(steps: Sequence[Step]) -> KnownSplit | None:
    spans = split(PROBE, steps)
    return next((known for known in KNOWN_SPLITS if _known_spans(known) == spans), None)


@functools.cache
def _known_spans(known: KnownSplit) -> Sequence[tuple[int, int]]:
    return split(PROBE, known.steps)


def _nearest(steps: Sequence[Step]) -> str:
    """The name of the known one that cuts the text in the most alike places."""
    spans = set(split(PROBE, steps))
    return min(KNOWN_SPLITS, key=lambda k: len(spans ^ set(_known_spans(k)))).names[0].text
