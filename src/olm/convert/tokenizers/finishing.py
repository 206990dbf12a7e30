"""The last step of every reader: from pieces to a vocabulary, with special tokens and chat templates."""

from __future__ import annotations

import attrs

from olm.convert.tokenizers.files import TokenizerFiles
from olm.convert.tokenizers.pieces import Pieces
from olm.convert.tokenizers.result import ReadVocab
from olm.convert.tokenizers.special import Special, special_tokens
from olm.convert.tokenizers.templates import chat_templates

__all__ = ["finish"]


def finish(files: TokenizerFiles, pieces: Pieces, facts: ReadVocab) -> ReadVocab:
    """Make a vocabulary whole.

    Args:
        files: where special tokens and templates are said.
        pieces: all of them.
        facts: what the reader knows, without tokens. `scores` is None for a kind that has none; `add_bos`, `add_eos` and
            `add_sep` hold where no file says otherwise.

    Raises:
        CheckpointError: a file beside the vocabulary is damaged.
    """
    texts: list[str | bytes] = []
    types: list[int] = []
    scores: list[float] = []
    for text, kind, score in pieces.items():
        texts.append(text)
        types.append(int(kind))
        scores.append(score)
    special = special_tokens(files, pieces)
    template, templates = chat_templates(files)
    return attrs.evolve(
        facts,
        tokens=texts,
        types=types,
        scores=None if facts.scores is None else scores,
        special=special.ids,
        eos_ids=special.eos_ids,
        add_bos=_safe(
            facts.add_bos if special.add_bos is None else special.add_bos, "bos", facts, special
        ),
        add_eos=_safe(
            facts.add_eos if special.add_eos is None else special.add_eos, "eos", facts, special
        ),
        add_sep=facts.add_sep if special.add_sep is None else special.add_sep,
        chat_template=template,
        chat_templates=templates,
    )


def _safe(wanted: bool | None, kind: str, facts: ReadVocab, special: Special) -> bool | None:
    """Not to add a token that there is none of: llama.cpp would abort, or add the one that GPT-2 had.

    Some vocabularies have such tokens by llama.cpp's defaults for their kind.
    """
    has_default = facts.model in ("llama", "bert") or (facts.model, kind) == ("t5", "eos")
    if wanted and not has_default and kind not in special.ids:
        return False
    return wanted
