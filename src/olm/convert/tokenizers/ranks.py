"""Byte-level BPE as tables of bytes and ranks: tiktoken's files (Llama 3, Qwen 1, Kimi K2) and Mistral's tekken.json. GGUF model `gpt2`.

A rank is both the id and the order of merging. How text is split, and which tokens are special, is in the models' code; the facts
of the known ones are here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from olm.convert.hparams import Hparams
from olm.convert.tokenizers.byte_level import write_byte_level
from olm.convert.tokenizers.files import TokenizerFiles, table
from olm.convert.tokenizers.known_splits import KIMI_PATTERN, LLAMA3_PATTERN, QWEN2_PATTERN
from olm.convert.tokenizers.pieces import AddedToken, added_tokens
from olm.convert.tokenizers.result import ReadVocab
from olm.errors import CheckpointError

__all__ = ["is_tiktoken", "tekken_vocab", "tiktoken_vocab"]

_TEKKEN: Final = "tekken.json"

_LLAMA3_NAMED: Final = {
    0: "<|begin_of_text|>",
    1: "<|end_of_text|>",
    4: "<|finetune_right_pad_id|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    8: "<|eom_id|>",
    9: "<|eot_id|>",
    10: "<|python_tag|>",
}
"""Of Llama 3.1's 256 special tokens those with names (llama_models, tokenizer.py); the others are reserved."""

_QWEN_NAMED: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_N_QWEN_EXTRA: Final = 205

# What a tekken.json without a list of special tokens has (mistral-common, tekken.py).
_TEKKEN_NAMED: Final = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]"),
    *("[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]"),
)


def _alphabet() -> Sequence[str]:
    """The character that byte-level BPE writes for each byte: itself where it can be seen, else one from 256 up (GPT-2's encoder.py)."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in visible else next(others)) for byte in range(256)]


_WRITTEN: Final = dict(enumerate(_alphabet()))


def _text(token: bytes) -> str:
    return token.decode("latin-1").translate(_WRITTEN)


def is_tiktoken(data: bytes) -> bool:
    """Whether a file's bytes begin like a table of ranks: base64, a space, a number."""
    word, _, rank = data[:512].partition(b"\n")[0].partition(b" ")
    return rank.strip().isdigit() and _decoded(word) is not None


def tiktoken_vocab(
    files: TokenizerFiles, name: str, data: bytes, vocab_size: int | None
) -> ReadVocab:
    """Read a tiktoken file; by its name it is Llama 3's, Qwen's or Kimi's.

    Raises:
        CheckpointError: it is damaged.
    """
    ranks = _ranks(data, name)
    n_ranks = max(ranks.values()) + 1
    pattern, special = LLAMA3_PATTERN, _llama3_special(n_ranks)
    ends = ("<|begin_of_text|>", "<|end_of_text|>")
    if name == "qwen.tiktoken":
        extra = [f"<|extra_{i}|>" for i in range(_N_QWEN_EXTRA)]
        pattern = QWEN2_PATTERN
        special = _numbered((*_QWEN_NAMED, *extra), n_ranks)
        ends = ("<|endoftext|>", "<|endoftext|>")
    elif name == "tiktoken.model":
        pattern, special, ends = KIMI_PATTERN, [], ("[BOS]", "[EOS]")
    _say_ends(files, *ends)
    return _vocab(files, name, ranks, vocab_size, pattern, special)


def _llama3_special(first: int) -> Sequence[AddedToken]:
    reserved = (f"<|reserved_special_token_{i}|>" for i in range(256))
    return _numbered([_LLAMA3_NAMED.get(i) or next(reserved) for i in range(256)], first)


def _numbered(texts: Sequence[str], first: int) -> Sequence[AddedToken]:
    return [AddedToken(first + i, text, special=True) for i, text in enumerate(texts)]


def _ranks(data: bytes, name: str) -> Mapping[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        word, _, rank = line.partition(b" ")
        token = _decoded(word)
        if not token or not rank.isdigit() or len(rank) > 9:
            raise CheckpointError(f"{name}: line {number} is not a token with its rank")
        ranks[token] = int(rank)
    if not ranks:
        raise CheckpointError(f"{name}: no tokens in it")
    return ranks


def _decoded(word: bytes) -> bytes | None:
    try:
        return base64.b64decode(word, validate=True)
    except (binascii.Error, ValueError):
        return None


def tekken_vocab(files: TokenizerFiles, vocab_size: int | None) -> ReadVocab:
    """Read Mistral's tekken.json: special tokens first, then bytes by rank.

    Raises:
        CheckpointError: it is damaged.
    """
    tekken = table(files.json(_TEKKEN), _TEKKEN)
    config = tekken.table("config")
    n_special = config.integer("default_num_special_tokens", default=1000)
    size = min(config.integer("default_vocab_size", default=1 << 17), vocab_size or 1 << 21)
    entries = tekken.get("vocab")
    if not isinstance(entries, list) or n_special > size:
        raise CheckpointError(f"{_TEKKEN}: 'vocab' is missing, wanted a list of tokens")
    ranks: dict[bytes, int] = {}
    for entry in entries[: size - n_special]:
        values = table(entry, f"{_TEKKEN}: vocab")
        token = _decoded(values.text("token_bytes").encode())
        if not token:
            raise CheckpointError(f"{_TEKKEN}: vocab: a token that is not base64")
        ranks[token] = n_special + values.integer("rank")
    special = _tekken_special(tekken, n_special)
    _say_ends(files, "<s>", "</s>")
    return _vocab(files, _TEKKEN, ranks, vocab_size, config.text("pattern"), special)


def _tekken_special(tekken: Hparams, n_special: int) -> Sequence[AddedToken]:
    texts = {i: f"<SPECIAL_{i}>" for i in range(n_special)}
    entries = tekken.get("special_tokens")
    if isinstance(entries, list):
        for entry in entries:
            values = table(entry, f"{_TEKKEN}: special_tokens")
            texts[values.integer("rank")] = values.text("token_str")
    else:
        texts |= dict(enumerate(_TEKKEN_NAMED))
    return [AddedToken(i, text, special=True) for i, text in texts.items() if i < n_special]


def _say_ends(files: TokenizerFiles, bos: str, eos: str) -> None:
    """Fill in the tokens around texts, which for these models only their code says, where no file does."""
    missing = {
        f"{kind}_token": text
        for kind, text in (("bos", bos), ("eos", eos))
        if f"{kind}_token_id" not in files.config
    }
    files.settings = Hparams({**missing, **files.settings.values}, files.settings.where)


def _vocab(
    files: TokenizerFiles,
    name: str,
    ranks: Mapping[bytes, int],
    vocab_size: int | None,
    pattern: str,
    special: Sequence[AddedToken],
) -> ReadVocab:
    vocab = Hparams({_text(token): rank for token, rank in ranks.items()}, name)
    read = write_byte_level(
        files,
        vocab,
        _merges(ranks),
        vocab_size,
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"},
        ignore_merges=True,
        added=(*special, *added_tokens(files)),
    )
    said = files.settings.get("add_bos_token")
    # Their code puts the BOS there too, but Qwen's.
    adds = said if isinstance(said, bool) else pattern != QWEN2_PATTERN
    return attrs.evolve(read, add_bos=adds and "bos" in read.special)


def _merges(ranks: Mapping[bytes, int]) -> Sequence[str]:
    """Pairs that make each token, in the order of their ranks.

    Of one token all ways come, those of early parts first, as transformers converts such files: the order among them does not
    matter, for they all make the same token.
    """
    found: list[str] = []
    for token in sorted(ranks, key=ranks.__getitem__):
        pairs = [
            (ranks[token[:cut]], ranks[token[cut:]], cut)
            for cut in range(1, min(len(token), 256))
            if token[:cut] in ranks and token[cut:] in ranks
        ]
        text = _text(token)
        found += [f"{text[:cut]} {text[cut:]}" for _, _, cut in sorted(pairs)]
    return found
