"""Facts of a tokenizer.json's normalizer that a GGUF can carry: lower-casing, and taking accents off."""

from __future__ import annotations

from olm.convert.hparams import Hparams
from olm.convert.tokenizers.files import table

__all__ = ["normalizer_flags"]


def normalizer_flags(tokenizer: Hparams) -> tuple[bool | None, bool | None]:
    """Whether text is lower-cased, and whether accents are taken off; None where nothing says.

    Raises:
        CheckpointError: the normalizer is damaged.
    """
    lowercase: bool | None = None
    strip_accents: bool | None = None
    waiting = [tokenizer.table("normalizer")]
    while waiting:
        stage = waiting.pop()
        kind, several = stage.get("type"), stage.get("normalizers")
        if isinstance(several, list):
            waiting += [table(entry, stage.where) for entry in several]
        elif kind == "Lowercase":
            lowercase = True
        elif kind == "StripAccents":
            strip_accents = True
        elif kind == "BertNormalizer":
            lowercase = stage.flag("lowercase", default=True)
            if "strip_accents" in stage:
                strip_accents = stage.flag("strip_accents")
    return lowercase, strip_accents
