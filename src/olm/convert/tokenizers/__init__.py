"""From tokenizer files to a `Vocab`: tokenizer.json, SentencePiece, vocab.txt, tiktoken's ranks; chat templates; special tokens.

Nothing here tokenizes text, and no tokenizer library is needed: the engine does that, from the keys that a `Vocab` becomes.
"""

from olm.convert.tokenizers.reading import read_vocab

__all__ = ["read_vocab"]
