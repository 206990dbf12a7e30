"""SentencePiece vocabularies: from `tokenizer.model`, or from a tokenizer.json that was made from one.

GGUF model `llama` for those that merge pieces, `t5` for unigrams. Byte-level BPE is in `byte_level`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from olm.convert.hparams import Hparams
from olm.convert.tokenizers.files import TokenizerFiles, table
from olm.convert.tokenizers.finishing import finish
from olm.convert.tokenizers.merges import read_merges, write_merges
from olm.convert.tokenizers.pieces import SPACE, Pieces, added_tokens, token_ids
from olm.convert.tokenizers.result import ReadVocab
from olm.convert.tokenizers.sentencepiece_model import SentencePieceModel, parse_sentencepiece
from olm.convert.vocab import TokenType
from olm.errors import CheckpointError

__all__ = [
    "gemma4_vocab",
    "merging_vocab",
    "model_file_vocab",
    "unigram_vocab",
    "xlm_roberta_vocab",
]

_ADDED_SCORE: Final = -1000.0  # of added tokens, as llama.cpp's converter writes it
_BYTE: Final = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_PRE: Final = "default"

# Tokens that the chat parser must see (llama.cpp's converter, gemma.py).
_GEMMA4_SHOWN: Final = frozenset(
    f"<{name}>" for name in ("|channel", "channel|", "|tool_call", "tool_call|", '|"|')
) | {"<|tool_response>", "<tool_response|>"}


def model_file_vocab(
    files: TokenizerFiles, name: str, data: bytes, vocab_size: int | None
) -> ReadVocab:
    """Read a SentencePiece model file, and the tokens that were added to it since.

    Raises:
        CheckpointError: it is damaged, or its kind is unknown to llama.cpp.
    """
    model = parse_sentencepiece(data, name)
    pieces = Pieces(max(vocab_size or 0, 1) if vocab_size else None, name)
    for token, piece in enumerate(zip(model.pieces, model.types, model.scores, strict=True)):
        if pieces.fits(
            token
        ):  # some tokenizers are larger than their model; nobody can use those pieces
            text, kind, score = piece
            pieces.put(token, text, kind, score)
    _add_tokens(files, pieces)
    return _finished(files, pieces, model)


def xlm_roberta_vocab(
    files: TokenizerFiles, name: str, data: bytes, vocab_size: int | None
) -> ReadVocab:
    """Read the model file of an XLM-RoBERTa, whose ids are those of fairseq: four own tokens first, and `<mask>` last.

    Raises:
        CheckpointError: it is damaged.
    """
    model = parse_sentencepiece(data, name)
    own = (
        ("<s>", TokenType.CONTROL),
        ("<pad>", TokenType.CONTROL),
        ("</s>", TokenType.CONTROL),
        ("<unk>", TokenType.UNKNOWN),
    )
    pieces = Pieces(vocab_size, name)
    for token, (text, own_kind) in enumerate(own):
        pieces.put(token, text, own_kind)
    rest = zip(model.pieces[3:], model.types[3:], model.scores[3:], strict=True)
    for token, (text, kind, score) in enumerate(rest, start=len(own)):
        pieces.put(token, text, kind, score)
    mask = len(own) + len(model.pieces[3:])
    if pieces.fits(mask):
        pieces.put(mask, "<mask>", TokenType.CONTROL)
    return _finished(files, pieces, model)


def _add_tokens(files: TokenizerFiles, pieces: Pieces) -> None:
    """Added tokens, but those of tokenizer.json that the model file has itself: their types and scores are the better ones."""
    settled = files.settings.table("added_tokens_decoder").values
    news = [
        token
        for token in added_tokens(files)
        if str(token.id) in settled or pieces.text(token.id) != token.content
    ]
    pieces.add(news, _ADDED_SCORE)


def _finished(files: TokenizerFiles, pieces: Pieces, model: SentencePieceModel) -> ReadVocab:
    if model.is_unigram:
        facts = ReadVocab(
            model="t5",
            pre=_PRE,
            scores=(),
            add_space_prefix=model.add_dummy_prefix,
            remove_extra_whitespaces=model.remove_extra_whitespaces,
            charsmap=model.charsmap or None,
        )
        return finish(files, pieces, facts)
    # Where nothing is put in front, it must be said: llama.cpp's default for such vocabularies is a space.
    prefix = None if model.add_dummy_prefix else False
    facts = ReadVocab(model="llama", pre=_PRE, scores=(), add_space_prefix=prefix)
    return finish(files, pieces, facts)


def merging_vocab(files: TokenizerFiles, vocab_size: int | None) -> ReadVocab:
    """Read a tokenizer.json with a BPE over pieces with byte fallback, as transformers makes it of a `tokenizer.model`.

    Scores are not in it. llama.cpp joins the pair whose piece has the best score, so a piece gets the rank of the first merge
    that makes it. (llama.cpp's own converter gives all pieces one score, which merges from the left.)

    Raises:
        CheckpointError: it is damaged.
    """
    model = files.tokenizer.table("model")
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(read_merges(model)):
        ranks.setdefault(left + right, rank)
    pieces = Pieces(vocab_size, files.tokenizer.where)
    for token, text, kind in _typed(model):
        pieces.put_new(token, text, kind, 0.0 - ranks.get(text, 0))
    _add_tokens(files, pieces)
    prefix = None if _has_prefix(files.tokenizer) else False
    facts = ReadVocab(model="llama", pre=_PRE, scores=(), add_space_prefix=prefix)
    return finish(files, pieces, facts)


def gemma4_vocab(files: TokenizerFiles, vocab_size: int | None) -> ReadVocab:
    """Read Gemma 4's tokenizer.json: merges of pieces with spaces written as SentencePiece does, which have a GGUF model of their own.

    Raises:
        CheckpointError: it is damaged.
    """
    model = files.tokenizer.table("model")
    merges = write_merges(read_merges(model))
    pieces = Pieces(vocab_size, files.tokenizer.where)
    for token, text, kind in _typed(model):
        pieces.put_new(token, text, kind, _ADDED_SCORE)
    for added in added_tokens(files):
        pieces.add([added], _ADDED_SCORE)
        if added.content in _GEMMA4_SHOWN and pieces.fits(added.id):
            pieces.put(added.id, added.content, TokenType.USER_DEFINED, _ADDED_SCORE)
    facts = ReadVocab(
        model="gemma4", scores=(), merges=merges, add_space_prefix=False, add_bos=True
    )
    return attrs.evolve(finish(files, pieces, facts), add_bos=True)


def _typed(model: Hparams) -> Iterator[tuple[int, str, TokenType]]:
    """Pieces of a BPE with byte fallback: id, text, type."""
    unknown = model.get("unk_token")
    vocab = model.table("vocab")
    if not vocab.values:
        raise CheckpointError(f"{vocab.where}: no tokens in it")
    for text, token in token_ids(vocab):
        kind = TokenType.NORMAL
        if text == unknown:
            kind = TokenType.UNKNOWN
        elif _BYTE.fullmatch(text):
            kind = TokenType.BYTE
        yield token, text, kind


def unigram_vocab(files: TokenizerFiles, vocab_size: int | None) -> ReadVocab:
    """Read a tokenizer.json with unigrams (T5, XLM-RoBERTa).

    Raises:
        CheckpointError: it is damaged.
    """
    model = files.tokenizer.table("model")
    where = f"{files.tokenizer.where}: model: vocab"
    entries = model.get("vocab")
    if not isinstance(entries, list) or not entries:
        raise CheckpointError(f"{where}: wanted a list of pieces with scores")
    unknown = model.find_integer("unk_id")
    pieces = Pieces(vocab_size, files.tokenizer.where)
    for token, entry in enumerate(entries):
        text, score = _scored(entry, f"{where}: entry {token}")
        kind = TokenType.NORMAL
        if token == unknown:
            kind = TokenType.UNKNOWN
        elif _BYTE.fullmatch(text):
            kind = TokenType.BYTE
        pieces.put_new(token, text, kind, score)
    for added in added_tokens(files):
        if added.id != unknown:  # which is listed as an added token too, but stays the unknown one
            is_old = added.id < len(entries)
            pieces.add([added], _scored(entries[added.id], where)[1] if is_old else 0.0)
    facts = ReadVocab(
        model="t5",
        pre=_PRE,
        scores=(),
        add_space_prefix=_has_prefix(files.tokenizer),
        remove_extra_whitespaces=_removes_spaces(files.tokenizer),
        charsmap=_charsmap(files.tokenizer),
    )
    return finish(files, pieces, facts)


def _scored(entry: object, where: str) -> tuple[str, float]:
    match entry:
        case [str(text), int(score) | float(score)]:
            return text, float(score)
        case _:
            raise CheckpointError(f"{where}: wanted a piece with its score")


def _stages(tokenizer: Hparams, name: str, inner: str) -> Sequence[Hparams]:
    """A normalizer or pre-tokenizer as a flat list of its stages."""
    found: list[Hparams] = []
    waiting = [tokenizer.table(name)]
    while waiting:
        stage = waiting.pop(0)
        several = stage.get(inner)
        if isinstance(several, list):
            waiting = [table(entry, stage.where) for entry in several] + waiting
        elif stage.values:
            found.append(stage)
    return found


def _has_prefix(tokenizer: Hparams) -> bool:
    """Whether a space is put before every text."""
    for stage in _stages(tokenizer, "normalizer", "normalizers"):
        if stage.get("type") == "Prepend":
            return stage.get("prepend") in (SPACE, " ")
    for stage in _stages(tokenizer, "pre_tokenizer", "pretokenizers"):
        if stage.get("type") == "Metaspace":
            scheme = stage.get("prepend_scheme")
            return (
                scheme != "never"
                if scheme is not None
                else stage.flag("add_prefix_space", default=True)
            )
    return False


def _removes_spaces(tokenizer: Hparams) -> bool:
    """Whether runs of spaces become one: a replacement of ` {2,}`, or splitting at white space."""
    for stage in _stages(tokenizer, "normalizer", "normalizers"):
        pattern = stage.get("pattern")
        if stage.get("type") == "Replace" and pattern == {"Regex": " {2,}"}:
            return True
    return any(
        stage.get("type") == "WhitespaceSplit"
        for stage in _stages(tokenizer, "pre_tokenizer", "pretokenizers")
    )


def _charsmap(tokenizer: Hparams) -> bytes | None:
    for stage in _stages(tokenizer, "normalizer", "normalizers"):
        if stage.get("type") == "Precompiled" and "precompiled_charsmap" in stage:
            try:
                return base64.b64decode(stage.text("precompiled_charsmap"), validate=True) or None
            except (binascii.Error, ValueError) as exc:
                raise CheckpointError(f"{stage.where}: precompiled_charsmap is not base64") from exc
    return None
