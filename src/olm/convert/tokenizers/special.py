"""Which tokens are special, and which of them go around every text: from tokenizer_config.json, the post-processor, config.json.

The rules are those of llama.cpp's converter (`SpecialVocab` of gguf-py), so that the same checkpoint gets the same keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from olm.convert.hparams import Hparams
from olm.convert.tokenizers.files import TokenizerFiles, table
from olm.convert.tokenizers.pieces import Pieces
from olm.errors import CheckpointError

__all__ = ["Special", "special_tokens"]

_KINDS: Final = ("bos", "eos", "unk", "sep", "pad", "mask")

_KNOWN_ENDS: Final = frozenset(
    {
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "</s>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end_of_text|>",
        "<end_of_utterance>",
        "<eos>",
        "<turn|>",
        "<|tool_response>",
        "<｜end▁of▁sentence｜>",
        "[e~[",
    }
)
"""Tokens that end generation by their text alone (`special_eog_ids` in llama-vocab.cpp)."""


@attrs.frozen
class Special:
    """Special tokens of a vocabulary; `add_*` is None where nothing says.

    Attributes:
        ids: names of `SPECIAL_KEYS` -> token.
        eos_ids: all end tokens, if there are several.
    """

    ids: Mapping[str, int]
    eos_ids: Sequence[int]
    add_bos: bool | None
    add_eos: bool | None
    add_sep: bool | None


def special_tokens(files: TokenizerFiles, pieces: Pieces) -> Special:
    """Find the special tokens of these pieces.

    Raises:
        CheckpointError: one of the files is damaged.
    """
    names = _Names(files)
    names.read_post_processor(files.tokenizer)
    ids: dict[str, int] = {}
    for kind in (*_KINDS, *names.more):
        token = pieces.ids.get(names.texts.get(kind, ""))
        if token is None:
            token = _config_id(files, kind, pieces)
        if token is not None:
            ids[kind] = token
    ends = _ends(files, pieces)
    if ends and "eos" not in ids:
        ids["eos"] = ends[0]
    eos = ids.get("eos")
    if eos is not None and ends and eos not in ends:
        ends = [eos, *ends]
    if "eot" not in ids:
        unknown = [e for e in ends if e != eos and pieces.text(e) not in _KNOWN_ENDS]
        ids |= {"eot": unknown[0]} if unknown else {}
    add = names.add
    return Special(ids, tuple(ends), add.get("bos"), add.get("eos"), add.get("sep"))


def _config_id(files: TokenizerFiles, kind: str, pieces: Pieces) -> int | None:
    value = files.config.get(f"{kind}_token_id")
    return value if _is_token(value, pieces) and isinstance(value, int) else None


def _is_token(value: object, pieces: Pieces) -> bool:
    # -1 and ids beyond the vocabulary are how some checkpoints say that there is none.
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(pieces)


def _ends(files: TokenizerFiles, pieces: Pieces) -> list[int]:
    """All end tokens, where a list of them is kept."""
    for source in (files.generation, files.config):
        value = source.get("eos_token_id")
        if isinstance(value, list):
            found = [v for v in value if isinstance(v, int) and _is_token(v, pieces)]
            return list(dict.fromkeys(found))
    return []


class _Names:
    """Texts of special tokens by kind, and what is put around a text.

    Attributes:
        texts: kind -> text.
        add: kind -> whether it is put there.
        more: kinds besides the usual ones.
    """

    def __init__(self, files: TokenizerFiles) -> None:
        self.texts: dict[str, str] = {}
        self.add: dict[str, bool] = {}
        self.more: list[str] = []
        settings = files.settings
        for kind in (*_KINDS, "cls"):
            for source in (settings, files.special_map):
                text = _text_of(source.get(f"{kind}_token"))
                if text:
                    self.texts.setdefault(kind, text)
        self._has_settings = bool(settings.values)
        if files.tokenizer.values:
            self._fill("bos", self.texts.get("cls"))
            self._fill("eos", self.texts.get("sep"))
        self._settings = settings

    def _fill(self, kind: str, text: str | None) -> None:
        if text and not self.texts.get(kind):
            self.texts[kind] = text

    def read_post_processor(self, tokenizer: Hparams) -> None:
        """Learn from the post-processor, and then from the settings what it left open."""
        processor = tokenizer.table("post_processor")
        if processor.values:
            several = processor.get("processors")
            for entry in several if isinstance(several, list) else [processor.values]:
                self._processor(table(entry, processor.where))
        for kind in ("bos", "eos", "sep"):
            value = self._settings.get(f"add_{kind}_token")
            if isinstance(value, bool):
                self.add.setdefault(kind, value)

    def _processor(self, processor: Hparams) -> None:
        kind = processor.get("type")
        if kind == "ByteLevel":
            self.add.setdefault("bos", False)
            self.add.setdefault("eos", False)
        elif kind == "RobertaProcessing":  # BertProcessing is llama.cpp's default for WordPiece
            self.add |= {"bos": True, "eos": True, "sep": True}
            self._fill("bos", _first(processor.get("cls")))
            self._fill("eos", _first(processor.get("sep")))
            self._fill("cls", _first(processor.get("cls")))
            self._fill("sep", _first(processor.get("sep")))
        elif kind == "TemplateProcessing":
            self._template(processor)

    def _template(self, processor: Hparams) -> None:
        single = _entries(processor, "single")
        first = single[0] if len(single) > 1 else ""
        last = single[-1] if len(single) > 1 else ""
        if first:
            self._first(first)
        if last:
            self._last(last)
        pair = _entries(processor, "pair")
        if pair:
            start = 1 if first and pair[0] == first else 0
            stop = len(pair) - 1 if last and pair[-1] == last else len(pair)
            self._between(pair[start:stop], has_last=bool(last))

    def _first(self, text: str) -> None:
        if text not in (self.texts.get("bos"), self.texts.get("cls")):
            self._fill("bos", text)
            self._fill("cls", text)
        self.add["bos"] = text in (self.texts.get("bos"), self.texts.get("cls"))

    def _last(self, text: str) -> None:
        """The token that ends every text is the EOS; the one that was said to be it ends a turn."""
        said = self.texts.get("eos")
        if said and said != text and self._has_settings and len(self.more) < 2:
            kind = "eom" if self.more else "eot"
            self.more.append(kind)
            self.texts[kind] = said
        self.texts["eos"] = text
        self.add["eos"] = True

    def _between(self, pair: Sequence[str], *, has_last: bool) -> None:
        """What stands between two texts, `pair` being "" A "" … B: texts are empty, special tokens are not."""
        inner = pair[1:-1]
        if len(pair) < 3 or pair[0] or pair[-1]:
            return
        ends = (self.texts.get("sep"), self.texts.get("eos"))
        self.add["sep"] = (inner[0] in ends and not has_last) or (
            len(inner) == 2 and inner[1] in ends
        )
        if self.add["sep"]:
            self._fill("sep", self.texts.get("eos"))


def _text_of(value: object) -> str:
    """A token as settings write it: its text, or an object with it."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _first(value: object) -> str | None:
    """Of `["</s>", 2]` the text."""
    return value[0] if isinstance(value, list) and value and isinstance(value[0], str) else None


def _entries(processor: Hparams, name: str) -> Sequence[str]:
    """A template as texts of its special tokens, "" for where a text goes."""
    value = processor.get(name)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise CheckpointError(f"{processor.where}: wanted a list in {name!r}")
    return [
        table(entry, processor.where).table("SpecialToken").text("id", default="")
        for entry in value
    ]
