"""Pieces of a vocabulary by id: put in any order, made whole at the end. No gaps, no text twice: llama.cpp aborts on either.

Where pieces come from is the readers' business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from olm.convert.hparams import Hparams
from olm.convert.tokenizers.files import TokenizerFiles, table
from olm.convert.vocab import TokenType
from olm.errors import CheckpointError

__all__ = ["SPACE", "AddedToken", "Pieces", "added_tokens", "looks_special", "token_ids"]

SPACE: Final = "\u2581"
"""How SentencePiece writes a space."""

_MAX_TOKENS: Final = 1 << 21
"""The largest vocabulary of 2026 has 0.9 M pieces (XLM-V); a few bytes of config.json must not ask for gigabytes of filling."""

_ABSENT_SCORE: Final = -10_000.0  # of filling, as llama.cpp's converter writes it


@attrs.frozen
class AddedToken:
    """A token that is found in the text before anything else happens to it.

    Attributes:
        content: its text, as written.
        special: not shown when it is generated.
    """

    id: int
    content: str
    special: bool


class Pieces:
    """A vocabulary in the making.

    Attributes:
        ids: text -> id, of all pieces put so far.
    """

    def __init__(self, size: int | None, where: str) -> None:
        """Size is that of the model's embedding; None when the pieces decide."""
        if size is not None and size > _MAX_TOKENS:
            raise CheckpointError(
                f"config.json: a vocabulary of {size} tokens, more than {_MAX_TOKENS}"
            )
        self._size = size
        self._limit = _MAX_TOKENS if size is None else size
        self._where = where
        self._pieces: dict[int, tuple[str | bytes, int, float]] = {}
        self.ids: dict[str | bytes, int] = {}

    def __len__(self) -> int:
        """How many ids there will be."""
        return max(self._pieces, default=-1) + 1 if self._size is None else self._size

    def __contains__(self, token: int) -> bool:
        return token in self._pieces

    def text(self, token: int) -> str | bytes | None:
        """What an id stands for; None for none."""
        piece = self._pieces.get(token)
        return None if piece is None else piece[0]

    def fits(self, token: int) -> bool:
        """Whether the model has a row for this id."""
        return 0 <= token < self._limit

    def put(self, token: int, text: str | bytes, kind: int, score: float = 0.0) -> None:
        """Set a piece. One that had the id, or the text, is gone.

        Raises:
            CheckpointError: the id is negative, or beyond the model's embedding.
        """
        if not 0 <= token < self._limit:
            raise CheckpointError(
                f"{self._where}: token {_shown(text)} has id {token}, "
                f"but the model has {self._limit} tokens"
            )
        old = self._pieces.get(token)
        if old is not None:
            self.ids.pop(old[0], None)
        other = self.ids.get(text)
        if other is not None:
            del self._pieces[other]
        self._pieces[token] = (text, kind, score)
        self.ids[text] = token

    def put_new(self, token: int, text: str | bytes, kind: int, score: float = 0.0) -> None:
        """Set a piece whose id and text must be new, as in a file's own vocabulary.

        Raises:
            CheckpointError: the id is taken or does not fit.
        """
        taken = self._pieces.get(token)
        if taken is not None:
            raise CheckpointError(
                f"{self._where}: tokens {_shown(taken[0])} and {_shown(text)} have the same id {token}"
            )
        self.put(token, text, kind, score)

    def add(self, tokens: Iterable[AddedToken], score: float = 0.0) -> None:
        """Put added tokens over what is there; those that the model has no row for are left out.

        What is special, or looks so, becomes CONTROL, the rest USER_DEFINED (rules of llama.cpp's converter).
        """
        for token in tokens:
            if not self.fits(token.id):
                continue
            if token.special or looks_special(token.content):
                self.put(token.id, token.content, TokenType.CONTROL, score)
            else:
                text = token.content.replace(SPACE, " ")
                self.put(token.id, text, TokenType.USER_DEFINED, score)

    def items(self) -> Iterator[tuple[str | bytes, int, float]]:
        """All pieces by id, with `[PAD<id>]` in the gaps."""
        for token in range(len(self)):
            piece = self._pieces.get(token)
            yield piece if piece is not None else self._filling(token)

    def _filling(self, token: int) -> tuple[str, int, float]:
        text = f"[PAD{token}]"
        while text in self.ids:  # a model may have such a token of its own
            text = f"[{text}]"
        return text, TokenType.UNUSED, _ABSENT_SCORE


def _shown(text: str | bytes) -> str:
    return repr(text if len(text) <= 40 else text[:40])


def looks_special(text: str) -> bool:
    """Whether an added token is a control token by its looks: some models forget to say so.

    As `does_token_look_special` of llama.cpp's converter (command-r, deepseek-coder, gemma).
    """
    return (
        text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
        or (text.startswith("<|") and text.endswith("|>"))
        or (text.startswith("<｜") and text.endswith("｜>"))
        or (text.startswith("<unused") and text.endswith(">"))
    )


def added_tokens(files: TokenizerFiles) -> list[AddedToken]:
    """Added tokens from every place they are kept in, the most telling last: it wins.

    Raises:
        CheckpointError: an entry is damaged.
    """
    found = [
        AddedToken(_id(value, f"added_tokens.json: {text!r}"), text, False)
        for text, value in files.added.values.items()
    ]
    found += _of_list(files.tokenizer)
    decoder = files.settings.table("added_tokens_decoder")
    for key, value in decoder.values.items():
        where = f"{decoder.where}: {key}"
        token = int(key) if key.isascii() and key.isdigit() else -1
        found.append(_added(token, table(value, where)))
    return found


def _of_list(tokenizer: Hparams) -> Iterator[AddedToken]:
    entries = tokenizer.get("added_tokens")
    if entries is None:
        return
    where = f"{tokenizer.where}: added_tokens"
    if not isinstance(entries, list):
        raise CheckpointError(f"{where}: wanted a list")
    for entry in entries:
        values = table(entry, where)
        yield _added(values.integer("id"), values)


def _added(token: int, values: Hparams) -> AddedToken:
    if token < 0:
        raise CheckpointError(f"{values.where}: not the id of a token")
    return AddedToken(token, values.text("content"), values.flag("special"))


def _id(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise CheckpointError(f"{where}: wanted the id of a token, found {value!r}")
    return value


def token_ids(vocab: Hparams) -> Iterator[tuple[str, int]]:
    """The entries of a vocabulary's table, text and id.

    Raises:
        CheckpointError: an id is no whole number.
    """
    for text, token in vocab.values.items():
        if type(token) is not int or token < 0:
            raise CheckpointError(f"{vocab.where}: {_shown(text)} has no id, but {token!r:.40}")
        yield text, token
