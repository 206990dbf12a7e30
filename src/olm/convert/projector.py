"""The base of towers that see or hear: their settings, preprocessing and keys. What becomes of their tensors is the families' matter.

Keys are those of llama.cpp's `clip` files (`gguf-py/gguf/constants.py`, `Keys.ClipVision` and `Keys.ClipAudio`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Final

from olm.checkpoint.types import Checkpoint, RowReader
from olm.convert.architecture import Architecture, Options
from olm.convert.hparams import Hparams, text_hparams
from olm.convert.metadata import Metadata
from olm.convert.tokenizers.files import table
from olm.convert.vocab import Vocab
from olm.errors import CheckpointError

__all__ = ["Projector"]

_BLOCKS: Final = (
    "n_layers",
    "num_hidden_layers",
    "n_layer",
    "num_layers",
    "depth",
    "layers",
    "encoder_layers",
    "vt_num_hidden_layers",
)
_MIN_NUMBERED: Final = 8
_BOTH_NUMBERED: Final = 128  # layers that the table numbers where two towers share a file
_COUNTS: Final = (
    (".vision.image_size", ("image_size",)),
    (".vision.patch_size", ("patch_size",)),
    (".vision.embedding_length", ("hidden_size", "width", "vt_hidden_size")),
    (".vision.feed_forward_length", ("intermediate_size", "vt_intermediate_size")),
    (".vision.block_count", _BLOCKS),
    (
        ".vision.attention.head_count",
        ("num_attention_heads", "num_heads", "heads", "vt_num_attention_heads"),
    ),
)


_AUDIO_COUNTS: Final = (
    (".audio.embedding_length", ("d_model", "hidden_size")),
    (".audio.feed_forward_length", ("encoder_ffn_dim", "intermediate_size")),
    (".audio.block_count", _BLOCKS),
    (".audio.attention.head_count", ("encoder_attention_heads", "num_attention_heads")),
)


class Projector(Architecture):
    """A tower that turns pictures or sound into rows of the language model's embedding: a file of its own.

    Attributes:
        projector_type: `clip.projector_type`; empty where each of two towers has its own.
        prefixes: how the names of its tensors begin; others are not its.
        vision_defaults, audio_defaults: what published configs leave out, as Transformers' config classes have it.
        has_vision, has_audio: what it takes in. May be set again for one model in `__init__`.
        vision, audio: settings of the towers.
        processor: how pictures are prepared.
    """

    gguf_name = "clip"
    kind = "projector"
    projector_type: ClassVar[str] = ""
    prefixes: ClassVar[tuple[str, ...]]
    vision_defaults: ClassVar[Mapping[str, object]] = {}
    audio_defaults: ClassVar[Mapping[str, object]] = {}
    has_vision: bool = True
    has_audio: bool = False

    def __init__(self, checkpoint: Checkpoint, hf_name: str, options: Options) -> None:
        super().__init__(checkpoint, hf_name, options)
        self.processor = self.read_processor(_processor(checkpoint))
        self.vision = self.read_vision(
            _completed(self.towers.table("vision_config"), self.vision_defaults)
        )
        self.audio = self.read_audio(
            _completed(self.towers.table("audio_config"), self.audio_defaults)
        )

    def read_hparams(self, config: Mapping[str, object]) -> Hparams:
        return Hparams(config)

    @property
    def towers(self) -> Hparams:
        """The settings that hold those of the towers."""
        return self.hparams

    def read_vision(self, found: Hparams) -> Hparams:
        """Fill in what the tower's settings leave out."""
        return found

    def read_audio(self, found: Hparams) -> Hparams:
        """The same for the tower that hears."""
        return found

    def read_processor(self, found: Hparams) -> Hparams:
        """Fill in what the folder does not say about preparing pictures."""
        return found

    @property
    def n_blocks(self) -> int:
        """Layers; or more, for the table numbers the projector's few matrices like layers."""
        if self.has_vision and self.has_audio:
            return _BOTH_NUMBERED
        tower = self.vision if self.has_vision else self.audio
        return max(tower.integer(*_BLOCKS), _MIN_NUMBERED)

    def projector_name(self) -> str:
        """`clip.projector_type`, where one class writes several."""
        return self.projector_type

    @property
    def n_embd_text(self) -> int:
        """Width of the language model."""
        return text_hparams(self.checkpoint.config).integer("hidden_size", "n_embd", "dim")

    def write_keys(self, meta: Metadata) -> None:
        meta.u32("general.file_type", 0)  # its place; the value is known when all types are
        if self.has_vision:
            self._write_vision(meta)
        if self.has_audio:
            meta.flag(".has_audio_encoder", value=True)
            meta.u32(".audio.projection_dim", self.n_embd_text)
            for key, names in _AUDIO_COUNTS:
                meta.u32(key, self.audio.integer(*names))
        if self.projector_name():
            meta.text(".projector_type", self.projector_name())

    def _write_vision(self, meta: Metadata) -> None:
        meta.flag(".has_vision_encoder", value=True)
        meta.u32(".vision.projection_dim", self.n_embd_text)
        for key, names in _COUNTS:
            meta.u32(key, self.vision.integer(*names))
        for key, name in ((".vision.image_mean", "image_mean"), (".vision.image_std", "image_std")):
            values = self.processor.numbers(name)
            if not values:
                raise CheckpointError(f"{self.processor.where}: {name!r} is missing")
            meta.f32s(key, values)

    def keep(self, name: str) -> str | None:
        if "language_model." in name or not name.startswith(self.prefixes):
            return None
        return None if self.skipped and re.search(self.skipped, name) else name

    def forced_type(self, name: str, tensor: RowReader) -> str | None:
        if ".patch_embd.weight" in name or ".patch_merger.weight" in name:
            return "F16" if self.options.type_name in ("F16", "auto") else "F32"
        return None

    def vocab(self) -> Vocab | None:
        return None


def _completed(found: Hparams, defaults: Mapping[str, object]) -> Hparams:
    """The settings with defaults for what they leave out; where there are none at all, there is no tower."""
    if not found.values:
        return found
    return found.with_values(**{k: v for k, v in defaults.items() if k not in found})


def _processor(checkpoint: Checkpoint) -> Hparams:
    """How pictures are prepared: two files may say it, each perhaps one level down; the later wins."""
    merged: dict[str, object] = {}
    for name, inner in (
        ("preprocessor_config.json", "media_proc_cfg"),
        ("processor_config.json", "image_processor"),
    ):
        value = checkpoint.json(name)
        if value is not None:
            settings = table(value, name)
            merged |= {**settings.values, **settings.table(inner).values}
    return Hparams(merged, "preprocessor_config.json")
