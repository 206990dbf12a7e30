"""Byte-level BPE (GPT-2's way): from tokenizer.json, or from vocab.json and merges.txt. GGUF model `gpt2`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from olm.convert.hparams import Hparams
from olm.convert.tokenizers.files import TokenizerFiles, table
from olm.convert.tokenizers.finishing import finish
from olm.convert.tokenizers.known_splits import QWEN2_PATTERN
from olm.convert.tokenizers.merges import read_merges, write_merges
from olm.convert.tokenizers.normalizers import normalizer_flags
from olm.convert.tokenizers.pieces import AddedToken, Pieces, added_tokens, token_ids
from olm.convert.tokenizers.recognize import recognize
from olm.convert.tokenizers.result import ReadVocab
from olm.convert.tokenizers.special import special_tokens
from olm.convert.vocab import TokenType
from olm.errors import CheckpointError

__all__ = ["byte_level_vocab", "two_file_vocab", "write_byte_level"]

_VOCAB: Final = "vocab.json"
_MERGES: Final = "merges.txt"

_GPT2: Final[Mapping[str, object]] = {"type": "ByteLevel", "use_regex": True}


def byte_level_vocab(files: TokenizerFiles, vocab_size: int | None) -> ReadVocab:
    """Read a tokenizer.json with a byte-level BPE.

    Raises:
        CheckpointError: it is damaged, has no merges, or more tokens than the model.
    """
    model = files.tokenizer.table("model")
    vocab = model.table("vocab")
    merges = write_merges(read_merges(model))
    ignore_merges = model.flag("ignore_merges")
    pre = files.tokenizer.get("pre_tokenizer")
    added = added_tokens(files)
    return write_byte_level(
        files, vocab, merges, vocab_size, pre, ignore_merges=ignore_merges, added=added
    )


def two_file_vocab(files: TokenizerFiles, vocab_size: int | None) -> ReadVocab:
    """Read vocab.json and merges.txt, as transformers' slow tokenizers keep them.

    How they split text is in their code alone: GPT-2's way, but for the Qwen family.

    Raises:
        CheckpointError: one is missing or damaged.
    """
    vocab = table(files.json(_VOCAB), _VOCAB)
    text = files.text(_MERGES)
    if text is None:
        raise CheckpointError(f"{_MERGES}: is missing; {_VOCAB} alone cannot split text")
    merges = write_merges(_lines(text))
    name = str(files.settings.get("tokenizer_class") or "")
    pre: object = _GPT2
    if name.startswith("Qwen2"):
        pre = {"type": "Split", "pattern": {"Regex": QWEN2_PATTERN}, "behavior": "Isolated"}
    added = added_tokens(files)
    return write_byte_level(files, vocab, merges, vocab_size, pre, ignore_merges=False, added=added)


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.splitlines() if "\r" in text else text.split("\n"), 1):
        if not line.strip() or (number == 1 and line.startswith("#")):
            continue
        parts = line.split(" ")
        if len(parts) != 2 or not all(parts):
            raise CheckpointError(f"{_MERGES}: line {number} is not a pair")
        yield parts[0], parts[1]


def write_byte_level(
    files: TokenizerFiles,
    vocab: Hparams,
    merges: Sequence[str],
    vocab_size: int | None,
    pre_tokenizer: object,
    *,
    ignore_merges: bool,
    added: Iterable[AddedToken],
) -> ReadVocab:
    """Make a vocabulary of a table of texts and ids, merges, and a pre-tokenizer as tokenizer.json writes it.

    Raises:
        CheckpointError: an id is no number, there twice, or beyond the model's embedding.
    """
    if not vocab.values:
        raise CheckpointError(f"{vocab.where}: no tokens in it")
    if not merges:
        raise CheckpointError(f"{vocab.where}: no merges, and llama.cpp knows no BPE without them")
    pieces = Pieces(vocab_size, vocab.where)
    for text, token in token_ids(vocab):
        pieces.put_new(token, text, TokenType.NORMAL)
    pieces.add(added)
    found = recognize(
        pre_tokenizer,
        ignore_merges=ignore_merges,
        has_bos="bos" in special_tokens(files, pieces).ids,
    )
    lowercase, strip_accents = normalizer_flags(files.tokenizer)
    facts = ReadVocab(
        model="gpt2",
        pre=found.name,
        merges=merges,
        # Some names make llama.cpp add a BOS unless told otherwise; a tokenizer that says nothing adds none.
        add_bos=False if found.adds_bos else None,
        lowercase=lowercase,
        strip_accents=strip_accents,
        notes=found.notes,
    )
    return finish(files, pieces, facts)
