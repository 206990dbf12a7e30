"""What a tokenizer is to a GGUF: pieces, types, scores, merges, special tokens and chat templates, as one value.

`olm.convert.tokenizers` makes it from a checkpoint's files; here it becomes keys.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from olm.convert.metadata import Metadata

__all__ = ["SPECIAL_KEYS", "TokenType", "Vocab", "with_special", "write_vocab"]


class TokenType(enum.IntEnum):
    """Values of `tokenizer.ggml.token_type` (`llama_token_type`)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


SPECIAL_KEYS: Final[Mapping[str, str]] = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",  # sic: the specification's spelling
    "pad": "padding_token_id",
    "cls": "cls_token_id",
    "mask": "mask_token_id",
    "eot": "eot_token_id",
    "eom": "eom_token_id",
    "prefix": "prefix_token_id",
    "suffix": "suffix_token_id",
    "middle": "middle_token_id",
    "fim_pre": "fim_pre_token_id",
    "fim_suf": "fim_suf_token_id",
    "fim_mid": "fim_mid_token_id",
    "fim_pad": "fim_pad_token_id",
    "fim_rep": "fim_rep_token_id",
    "fim_sep": "fim_sep_token_id",
}
"""Names of special tokens -> keys behind `tokenizer.ggml.`."""


@attrs.frozen(kw_only=True)
class Vocab:
    """A tokenizer, complete. Absent facts (None) leave their key out, so that llama.cpp's default holds.

    Attributes:
        model: `tokenizer.ggml.model`: llama (SentencePiece BPE), gpt2 (byte-level BPE), t5 (Unigram), bert, rwkv, none.
        pre: `tokenizer.ggml.pre`, the name of a pre-tokenizer; "" for none.
        tokens: pieces by id, no gaps. Bytes where a piece is not UTF-8.
        types: one for each token.
        scores: one for each token (SentencePiece and Unigram).
        merges: `left right`, best first (BPE).
        special: names of `SPECIAL_KEYS` -> token id.
        eos_ids: all end tokens, when there are several (Ollama's `tokenizer.ggml.eos_token_ids`).
        n_token_types: BERT's segments.
        charsmap: SentencePiece's precompiled normalizer.
        lowercase, strip_accents: what BERT's tokenizer does to text first.
        chat_template: the default one, "" for none; named ones are in `chat_templates`.
        notes: sentences for the user: what could not be carried over exactly.
    """

    model: str
    tokens: Sequence[str | bytes]
    types: Sequence[int]
    pre: str = ""
    scores: Sequence[float] | None = None
    merges: Sequence[str] | None = None
    special: Mapping[str, int] = attrs.field(factory=dict)
    eos_ids: Sequence[int] = ()
    add_bos: bool | None = None
    add_eos: bool | None = None
    add_sep: bool | None = None
    add_space_prefix: bool | None = None
    remove_extra_whitespaces: bool | None = None
    charsmap: bytes | None = None
    n_token_types: int | None = None
    lowercase: bool | None = None
    strip_accents: bool | None = None
    chat_template: str = ""
    chat_templates: Mapping[str, str] = attrs.field(factory=dict)
    notes: Sequence[str] = ()


def with_special(vocab: Vocab, pieces: Mapping[str, str]) -> Vocab:
    """The same vocabulary with some special tokens set by their pieces: `{"eot": "<|user|>"}`. Pieces it lacks are left out."""
    ids = {piece: number for number, piece in enumerate(vocab.tokens)}
    found = {name: ids[piece] for name, piece in pieces.items() if piece in ids}
    return attrs.evolve(vocab, special={**vocab.special, **found})


def write_vocab(meta: Metadata, vocab: Vocab) -> None:
    """Add the tokenizer's keys, in the order of llama.cpp's converter."""
    prefix = "tokenizer.ggml."
    meta.text(f"{prefix}model", vocab.model)
    if vocab.pre:
        meta.text(f"{prefix}pre", vocab.pre)
    meta.texts(f"{prefix}tokens", vocab.tokens)
    if vocab.scores is not None:
        meta.f32s(f"{prefix}scores", vocab.scores)
    meta.i32s(f"{prefix}token_type", vocab.types)
    if vocab.n_token_types is not None:
        meta.u32(f"{prefix}token_type_count", vocab.n_token_types)
    if vocab.merges is not None:
        meta.texts(f"{prefix}merges", vocab.merges)
    for name, token in vocab.special.items():
        meta.u32(prefix + SPECIAL_KEYS[name], token)
    if len(vocab.eos_ids) > 1:
        meta.i32s(f"{prefix}eos_token_ids", vocab.eos_ids)
    _write_flags(meta, prefix, vocab)
    if vocab.charsmap is not None:
        meta.u8s(f"{prefix}precompiled_charsmap", vocab.charsmap)
    _write_templates(meta, vocab)


def _write_flags(meta: Metadata, prefix: str, vocab: Vocab) -> None:
    flags = {
        "add_bos_token": vocab.add_bos,
        "add_eos_token": vocab.add_eos,
        "add_sep_token": vocab.add_sep,
        "add_space_prefix": vocab.add_space_prefix,
        "remove_extra_whitespaces": vocab.remove_extra_whitespaces,
        "normalizer.lowercase": vocab.lowercase,
        "normalizer.strip_accents": vocab.strip_accents,
    }
    for key, flag in flags.items():
        if flag is not None:
            meta.flag(prefix + key, flag)


def _write_templates(meta: Metadata, vocab: Vocab) -> None:
    if vocab.chat_templates:
        meta.texts("tokenizer.chat_templates", tuple(vocab.chat_templates))
        for name, template in vocab.chat_templates.items():
            meta.text(f"tokenizer.chat_template.{name}", template)
    if vocab.chat_template:
        meta.text("tokenizer.chat_template", vocab.chat_template)
