"""WordPiece (BERT): from tokenizer.json or vocab.txt. GGUF model `bert`.

llama.cpp wants words marked where they begin, as SentencePiece does, not their continuations: `##ing` becomes `ing`, `play`
becomes `▁play`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from olm.convert.tokenizers.files import TokenizerFiles
from olm.convert.tokenizers.finishing import finish
from olm.convert.tokenizers.normalizers import normalizer_flags
from olm.convert.tokenizers.pieces import SPACE, AddedToken, Pieces, added_tokens, token_ids
from olm.convert.tokenizers.result import ReadVocab
from olm.convert.vocab import TokenType

__all__ = ["text_file_vocab", "wordpiece_vocab"]

_PRE: Final = (
    "bert-bge"  # llama.cpp splits for this model in one way; the name is what its converter writes
)
_SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def wordpiece_vocab(files: TokenizerFiles, vocab_size: int | None) -> ReadVocab:
    """Read a tokenizer.json with WordPiece.

    Raises:
        CheckpointError: it is damaged.
    """
    model = files.tokenizer.table("model")
    vocab = model.table("vocab")
    lowercase, strip_accents = normalizer_flags(files.tokenizer)
    prefix = model.text("continuing_subword_prefix", default="##")
    entries = token_ids(vocab)
    return _vocab(files, entries, vocab_size, prefix, added_tokens(files), lowercase, strip_accents)


def text_file_vocab(files: TokenizerFiles, text: str, vocab_size: int | None) -> ReadVocab:
    """Read a vocab.txt, a piece to a line.

    Raises:
        CheckpointError: it has more pieces than the model.
    """
    lines = text.removesuffix("\n").split("\n")
    pieces = [line.rstrip("\r") for line in lines]
    added = added_tokens(files) or [
        AddedToken(i, piece, True) for i, piece in enumerate(pieces) if piece in _SPECIAL
    ]
    lowercase = files.settings.get("do_lower_case")
    accents = files.settings.get("strip_accents")
    entries = ((piece, i) for i, piece in enumerate(pieces))
    return _vocab(
        files,
        entries,
        vocab_size,
        "##",
        added,
        lowercase if isinstance(lowercase, bool) else None,
        accents if isinstance(accents, bool) else None,
    )


def _vocab(
    files: TokenizerFiles,
    entries: Iterable[tuple[str, int]],
    vocab_size: int | None,
    prefix: str,
    added: Iterable[AddedToken],
    lowercase: bool | None,
    strip_accents: bool | None,
) -> ReadVocab:
    # Special tokens keep their text; of the others also added ones are words.
    special = {token.id: token for token in added if token.special}
    pieces = Pieces(vocab_size, files.tokenizer.where)
    for text, token in entries:
        if token in special:
            pieces.put_new(token, text, TokenType.CONTROL)
        else:
            begins = not text.startswith(prefix)
            pieces.put_new(
                token, SPACE + text if begins else text.removeprefix(prefix), TokenType.NORMAL
            )
    pieces.add(special.values())
    pieces.add(token for token in added if not token.special)
    facts = ReadVocab(
        model="bert",
        pre=_PRE,
        n_token_types=files.config.integer("type_vocab_size", default=1),
        lowercase=lowercase,
        strip_accents=strip_accents,
    )
    return finish(files, pieces, facts)
