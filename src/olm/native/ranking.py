"""What a model with a ranking head reads for each document: the query and the document in its own form. Pure.

The form is llama-server's (llama.cpp 832db06, tools/server/server-common.cpp, `format_prompt_rerank`): the model's template
named `rerank` if it has one, else BOS query EOS SEP document EOS, each special token only where the vocabulary adds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from olm.errors import ContextTooLong
from olm.native.prompting import tokenize_head
from olm.native.wire import Rerank

__all__ = ["RankFacts", "RankModel", "rank_inputs"]

_TOO_LONG = "a document with its query exceeds the context length"
_NO_ROOM = "the query leaves no room for a document: {} tokens without one, the context holds {}"
_PLACES = re.compile(r"\{query\}|\{document\}")


class RankFacts(Protocol):
    """What a form is made of; tokens that the vocabulary lacks are -1."""

    @property
    def add_bos(self) -> bool: ...
    @property
    def add_eos(self) -> bool: ...
    @property
    def add_sep(self) -> bool: ...
    @property
    def bos(self) -> int: ...
    @property
    def eos(self) -> int: ...
    @property
    def sep(self) -> int: ...
    @property
    def rerank_template(self) -> str: ...


class RankModel(Protocol):
    """A vocabulary with its facts."""

    @property
    def info(self) -> RankFacts: ...

    def tokenize(
        self, text: str, *, add_special: bool = True, parse_special: bool = True
    ) -> list[int]: ...

    def detokenize(self, tokens: Sequence[int], *, special: bool = True) -> bytes: ...


def rank_inputs(wanted: Rerank, *, n_ctx: int, model: RankModel) -> list[Sequence[int]]:
    """Write the input of each document; one that is too long loses its end.

    Raises:
        ContextTooLong: one is too long and may not be cut, or the query leaves none any room.
    """
    form = _template_form if model.info.rerank_template else _plain_form
    fit = form(wanted, n_ctx, model)
    return [fit(document) for document in wanted.documents]


def _plain_form(wanted: Rerank, n_ctx: int, model: RankModel) -> Callable[[str], Sequence[int]]:
    info = model.info
    tokenize = partial(model.tokenize, add_special=False, parse_special=False)
    # A vocabulary without EOS ends with what separates.
    ends = (info.eos if info.eos >= 0 else info.sep,) if info.add_eos else ()
    before = (
        *((info.bos,) if info.add_bos else ()),
        *tokenize_head(wanted.query, tokenize, n_ctx + 1),
        *ends,
        *((info.sep,) if info.add_sep else ()),
    )
    n_room = _room(n_ctx - len(before) - len(ends), n_ctx)

    def fit(document: str) -> Sequence[int]:
        tokens = tokenize_head(document, tokenize, n_room + 1)
        _check_length(len(tokens) - n_room, wanted)
        return (*before, *tokens[:n_room], *ends)

    return fit


def _template_form(wanted: Rerank, n_ctx: int, model: RankModel) -> Callable[[str], Sequence[int]]:
    tokenize = partial(model.tokenize, add_special=False, parse_special=True)

    def written(document: str) -> list[int]:
        values = {"{query}": wanted.query, "{document}": document}
        # Both at once: a query that speaks of "{document}" is no place for one.
        return tokenize(_PLACES.sub(lambda place: values[place[0]], model.info.rerank_template))

    n_room = _room(n_ctx - len(written("")), n_ctx)

    def fit(document: str) -> Sequence[int]:
        head = tokenize_head(document, tokenize, n_room + 1)
        n_keep = len(head)
        n_over = n_keep - n_room
        tokens: list[int] = []
        if n_over <= 0:
            # At the seams words may be cut otherwise than alone: by a token or two.
            tokens = written(document)
            n_over = len(tokens) - n_ctx
        while n_over > 0:
            _check_length(n_over, wanted)
            n_keep = max(n_keep - n_over, 0)
            tokens = written(model.detokenize(head[:n_keep]).decode(errors="ignore"))
            n_over = len(tokens) - n_ctx
        return tokens

    return fit


def _room(n_tokens: int, n_ctx: int) -> int:
    if n_tokens < 1:
        raise ContextTooLong(_NO_ROOM.format(n_ctx - n_tokens, n_ctx))
    return n_tokens


def _check_length(n_over: int, wanted: Rerank) -> None:
    if n_over > 0 and not wanted.truncate:
        raise ContextTooLong(_TOO_LONG)
