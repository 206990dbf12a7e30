"""The files that a tokenizer is made of, read once each and asked by typed questions.

What they mean is the other modules' business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, runtime_checkable

from olm.checkpoint.types import Checkpoint
from olm.convert.hparams import Hparams
from olm.errors import CheckpointError

__all__ = ["TokenizerFiles", "table"]

_TEXT_CONFIGS: Final = ("text_config", "llm_config", "language_config")


@runtime_checkable
class _Readable(Protocol):
    """What an opened checkpoint offers beyond the `Checkpoint` protocol: binary files, and the names of all."""

    @property
    def names(self) -> Sequence[str]: ...

    def read(self, name: str) -> bytes | None: ...


def table(value: object, where: str) -> Hparams:
    """An object as typed questions; none where there is null. Raises CheckpointError for anything else."""
    if value is None:
        return Hparams({}, where)
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{where}: wanted an object, found {type(value).__name__}")
    return Hparams(value, where)


class TokenizerFiles:
    """Tables of the JSON files; an absent file is an empty table.

    Attributes:
        tokenizer: `tokenizer.json`.
        settings: `tokenizer_config.json`.
        special_map: `special_tokens_map.json`.
        added: `added_tokens.json`.
        generation: `generation_config.json`.
        config: `config.json`, with a nested language model's settings laid over it.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.tokenizer = self._json("tokenizer.json")
        self.settings = self._json("tokenizer_config.json")
        self.special_map = self._json("special_tokens_map.json")
        self.added = self._json("added_tokens.json")
        self.generation = self._json("generation_config.json")
        self.config = Hparams(self._config())

    @property
    def names(self) -> Sequence[str]:
        """All files of the checkpoint, as far as it tells."""
        return self._checkpoint.names if isinstance(self._checkpoint, _Readable) else ()

    def text(self, name: str) -> str | None:
        """A text file; None when it is not there."""
        return self._checkpoint.text(name)

    def read(self, name: str) -> bytes | None:
        """A binary file; None when it is not there."""
        if isinstance(self._checkpoint, _Readable):
            return self._checkpoint.read(name)
        return None

    def json(self, name: str) -> object | None:
        """A JSON file; None when it is not there."""
        return self._checkpoint.json(name)

    def _json(self, name: str) -> Hparams:
        return table(self._checkpoint.json(name), name)

    def _config(self) -> Mapping[str, object]:
        outer = table(self._checkpoint.json("config.json"), "config.json").values
        merged = dict(outer)
        for name in _TEXT_CONFIGS:
            nested = outer.get(name)
            if isinstance(nested, Mapping):
                # The outer one first: that is where whole models say their special tokens.
                merged |= {key: value for key, value in nested.items() if merged.get(key) is None}
        return merged
