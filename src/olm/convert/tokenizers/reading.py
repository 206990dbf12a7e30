"""Choose which of a checkpoint's tokenizer files to read, and have it read.

A SentencePiece model file comes first, as in Ollama: its scores are in no other file. Then tokenizer.json, and what came before it.
"""

from __future__ import annotations

from olm.checkpoint.types import Checkpoint
from olm.convert.tokenizers.byte_level import byte_level_vocab, two_file_vocab
from olm.convert.tokenizers.files import TokenizerFiles
from olm.convert.tokenizers.ranks import is_tiktoken, tekken_vocab, tiktoken_vocab
from olm.convert.tokenizers.result import ReadVocab
from olm.convert.tokenizers.sentencepiece import (
    gemma4_vocab,
    merging_vocab,
    model_file_vocab,
    unigram_vocab,
    xlm_roberta_vocab,
)
from olm.convert.tokenizers.wordpiece import text_file_vocab, wordpiece_vocab
from olm.errors import CheckpointError

__all__ = ["read_vocab"]


def read_vocab(checkpoint: Checkpoint, *, vocab_size: int | None) -> ReadVocab | None:
    """Read a checkpoint's tokenizer; None when it has none.

    Args:
        checkpoint: an open one.
        vocab_size: rows of the model's embedding: the vocabulary is filled up to it. None for as many as there are pieces.

    Raises:
        CheckpointError: a file is damaged, or of a kind that llama.cpp cannot run; names the file.
    """
    files = TokenizerFiles(checkpoint)
    for name in ("tokenizer.model", "spiece.model"):
        data = files.read(name)
        if data is not None and not is_tiktoken(data):
            return model_file_vocab(files, name, data, vocab_size)
    if files.tokenizer.values:
        return _of_tokenizer_json(files, vocab_size)
    if "tekken.json" in files.names:
        return tekken_vocab(files, vocab_size)
    for name in ("tokenizer.model", "tiktoken.model", "qwen.tiktoken"):
        data = files.read(name)
        if data is not None:
            return tiktoken_vocab(files, name, data, vocab_size)
    return _of_older_files(files, vocab_size)


def _of_tokenizer_json(files: TokenizerFiles, vocab_size: int | None) -> ReadVocab:
    model = files.tokenizer.table("model")
    kind = model.get("type") or _guessed(model.get("vocab"), has_merges="merges" in model)
    match kind:
        case "BPE" if str(files.config.get("model_type")).startswith("gemma4"):
            return gemma4_vocab(files, vocab_size)
        case "BPE" if model.flag("byte_fallback"):
            return merging_vocab(files, vocab_size)
        case "BPE":
            return byte_level_vocab(files, vocab_size)
        case "Unigram":
            return unigram_vocab(files, vocab_size)
        case "WordPiece":
            return wordpiece_vocab(files, vocab_size)
        case _:
            raise CheckpointError(
                f"tokenizer.json: llama.cpp has no tokenizer for a model of type {kind!r}; "
                "BPE, Unigram and WordPiece are known"
            )


def _guessed(vocab: object, *, has_merges: bool) -> str:
    """Old files do not name their model's type; tokenizers tells by what is there, and so do we."""
    if has_merges:
        return "BPE"
    return "Unigram" if isinstance(vocab, list) else "WordPiece"


def _of_older_files(files: TokenizerFiles, vocab_size: int | None) -> ReadVocab | None:
    name = "sentencepiece.bpe.model"
    data = files.read(name)
    if data is not None:
        return xlm_roberta_vocab(files, name, data, vocab_size)
    if files.json("vocab.json") is not None:
        return two_file_vocab(files, vocab_size)
    text = files.text("vocab.txt")
    return None if text is None else text_file_vocab(files, text, vocab_size)
