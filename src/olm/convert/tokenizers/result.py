"""What reading a tokenizer gives: a `Vocab`, with facts that are no keys yet, and what the user should know."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from olm.convert.vocab import Vocab

__all__ = ["ReadVocab"]


@attrs.frozen(kw_only=True)
class ReadVocab(Vocab):
    """A tokenizer as read. Tokens and types are empty until `finish` fills them in.

    Attributes:
        lowercase: text is lower-cased (BERT); None where llama.cpp's default, yes, holds.
        strip_accents: accents are taken off; None for as `lowercase` says.
        notes: sentences for the user: what could not be carried over exactly.
    """

    tokens: Sequence[str | bytes] = ()
    types: Sequence[int] = ()
    lowercase: bool | None = None
    strip_accents: bool | None = None
    notes: Sequence[str] = ()
