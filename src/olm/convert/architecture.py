"""The base of every architecture: from a checkpoint to metadata and tensors, with a few hooks for what is particular.

A family is a class in a small file of `olm.convert.architectures`; `architectures/llama.py` is the model of style, and
docs/convert.md shows how to add one. What several families share is in `parts` and `keys`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Final, Literal

import attrs

from olm.checkpoint.types import Checkpoint, RowReader
from olm.convert.dequantize import F8_TYPES, dequantized
from olm.convert.hparams import Hparams, text_hparams
from olm.convert.keys import BLOCK_COUNT, Rope, rope_notes, rope_of, write_common
from olm.convert.lazy import stack
from olm.convert.metadata import Metadata
from olm.convert.model_file import ModelFile, OutTensor
from olm.convert.names import TensorNames
from olm.convert.output_types import output_type
from olm.convert.registry import architecture_of, projector_of
from olm.convert.sizes import size_label
from olm.convert.vocab import Vocab, write_vocab
from olm.errors import CheckpointError

__all__ = ["Architecture", "NamedTensor", "Options", "convert_checkpoint"]

NamedTensor = tuple[str, RowReader]

_QUANTIZATION_VERSION: Final = 2  # GGML_QNT_VERSION of ggml.h
_MAX_LAYERS: Final = 512  # LLAMA_MAX_LAYERS
_EXPERT: Final = re.compile(r"^(.*\.experts)\.(\d+)\.(.*)$")
# Buffers that old checkpoints saved and nobody reads.
_BUFFERS: Final = (".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq")
# Towers beside a language model, by parts of their tensors' names (as llama.cpp's converter tells them).
_TOWER_STARTS: Final = (
    "mlp",
    "vit.",
    "vpm.",
    "siglip2.",
    "conformer.",
    "merger.",
    "resampler.",
    "sound_encoder.",
    "sound_projection.",
    "speech_embeddings.",
)
_TOWERS: Final = re.compile(
    r"visual\.|vision[._]|audio[._]|talker\.|token2wav\.|code2wav\.|projector\.|pre_mm_projector_norm"
    r"|image_newline|view_seperator|patch_embed|patch_merger\.|patch_merge_mlp\.|model\.connector\."
)


@attrs.frozen
class Options:
    """How a checkpoint is to be converted.

    Attributes:
        type_name: type of the matrices: `auto` (F16; BF16 stays), `F32`, `F16`, `BF16`. Any other type is a matter of
            `olm.convert.quantize`.
        name: `general.name`; the folder's name when empty.
    """

    type_name: str = "auto"
    name: str = ""


class Architecture:
    """One model family. Subclasses set `gguf_name` and override the hooks they need.

    Attributes:
        gguf_name: `general.architecture`. May be set again for one model in `__init__` (dense or with experts).
        names: names that the `gguf` package's tables lack, see `TensorNames`.
        skipped: a regular expression for tensors that llama.cpp does not want, matched anywhere in the name.
        hparams: settings of the language model.
        checkpoint: where everything else is.
    """

    gguf_name: ClassVar[str]
    kind: ClassVar[Literal["model", "projector"]] = "model"
    names: ClassVar[Mapping[str, str]] = {}
    skipped: ClassVar[str] = ""

    def __init__(self, checkpoint: Checkpoint, hf_name: str, options: Options) -> None:
        self.checkpoint = checkpoint
        self.hf_name = hf_name
        self.options = options
        self.hparams: Hparams = self.read_hparams(checkpoint.config)

    # -- hooks ---------------------------------------------------------------------------------------------------

    def read_hparams(self, config: Mapping[str, object]) -> Hparams:
        """Choose the settings: nested `text_config` is laid over the outer ones. Fill in defaults here."""
        return text_hparams(config)

    def architecture(self) -> str:
        """`general.architecture`, where one class writes several."""
        return self.gguf_name

    def write_keys(self, meta: Metadata) -> None:
        """Write the architecture's keys: the common ones here, then the particular ones in an override."""
        write_common(meta, self.hparams, self.n_blocks)

    def keep(self, name: str) -> str | None:
        """A tensor's name as `modify` is to get it, or None to leave it out: towers, buffers, what `skipped` says."""
        if name.startswith(_TOWER_STARTS) or _TOWERS.search(name) or name.endswith(_BUFFERS):
            return None
        if self.skipped and re.search(self.skipped, name):
            return None
        name = name.replace("e_score_correction_bias", "e_score_correction.bias")
        return name.replace("language_model.", "")

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        """Turn one tensor into those of the GGUF: none, itself, or several, under names of the checkpoint or the GGUF.

        Numbered experts come stacked, [n_experts, rows, columns], with their number gone from the name.
        """
        yield name, tensor

    def extra(self) -> Iterable[NamedTensor]:
        """Tensors that no checkpoint holds, under the GGUF's names (rope factors)."""
        return ()

    def forced_type(self, name: str, tensor: RowReader) -> str | None:
        """A type that this tensor must have, by its name in the GGUF; None for the ordinary rule."""
        return None

    def vocab(self) -> Vocab | None:
        """The tokenizer; None for files without one."""
        from olm.convert.tokenizers import read_vocab

        return read_vocab(self.checkpoint, vocab_size=self.hparams.find_integer("vocab_size"))

    def is_present(self) -> bool:
        """Whether the checkpoint holds tensors of this: text-only copies of models with towers are common."""
        return any(self.keep(name) is not None for name in self.checkpoint.tensors)

    # -- shared facts --------------------------------------------------------------------------------------------

    @property
    def n_blocks(self) -> int:
        """Layers."""
        count = self.hparams.integer(*BLOCK_COUNT)
        if count > _MAX_LAYERS:
            raise CheckpointError(f"config.json: {count} layers, more than {_MAX_LAYERS}")
        return count

    @property
    def n_heads(self) -> int:
        """Attention heads."""
        return self.hparams.integer("num_attention_heads", "n_head", "n_heads")

    @property
    def n_kv_heads(self) -> int:
        """Heads of keys and values."""
        count = self.hparams.find_integer("num_key_value_heads", "n_kv_heads")
        return self.n_heads if count is None else count

    @property
    def head_dim(self) -> int:
        """Elements of a head: said, or worked out."""
        said = self.hparams.find_integer("head_dim")
        if said is not None:
            return said
        return self.hparams.integer("hidden_size", "n_embd", "dim") // max(self.n_heads, 1)

    @property
    def rope(self) -> Rope:
        """Rope's settings."""
        return rope_of(self.hparams)

    # -- the work ------------------------------------------------------------------------------------------------

    def build(self) -> ModelFile:
        """Decide everything: metadata, tensors and their types. Reads no weights but small ones.

        Raises:
            CheckpointError: a setting or tensor is missing, unknown or of the wrong shape; names it.
        """
        tensors = tuple(self._tensors())
        meta = Metadata(self.architecture())
        meta.text("general.type", "mmproj" if self.kind == "projector" else "model")
        meta.text("general.name", self.options.name or self.checkpoint.folder.name)
        meta.text("general.size_label", size_label(tensors))
        self.write_keys(meta)
        meta.u32("general.quantization_version", _QUANTIZATION_VERSION)
        vocab = self.vocab()
        if vocab is not None:
            write_vocab(meta, vocab)
        n_f8 = sum(source.dtype in F8_TYPES for source in self.checkpoint.tensors.values())
        notes = () if vocab is None else (*vocab.notes, *rope_notes(self.rope))
        return ModelFile(self.kind, meta, tensors, n_f8, notes)

    def _tensors(self) -> Iterator[OutTensor]:
        names = TensorNames(self.architecture(), self.n_blocks, self.names)
        seen: dict[str, str] = {}
        for source, name, tensor in self._modified():
            target = names.find(name)
            if target is None:
                raise CheckpointError(
                    f"tensor {source!r} is not known to architecture {self.architecture()!r}"
                )
            if target in seen:
                raise CheckpointError(
                    f"tensors {seen[target]!r} and {source!r} both become {target!r}"
                )
            seen[target] = source
            kind = self.forced_type(target, tensor)
            yield OutTensor(
                target, tensor, kind or output_type(target, tensor, self.options.type_name)
            )

    def _modified(self) -> Iterator[tuple[str, str, RowReader]]:
        """(name in the checkpoint, name that `modify` gave, tensor)."""
        for name, tensor in self.extra():
            yield name, name, tensor
        yield from self.transformed(dequantized(self.checkpoint.tensors, self.hparams))

    def transformed(self, tensors: Mapping[str, RowReader]) -> Iterator[tuple[str, str, RowReader]]:
        """Put tensors of the checkpoint through `keep` and `modify`; also the factors of adapters (`olm.convert.lora`).

        Yields:
            (name in the checkpoint, name that `modify` gave, tensor).
        """
        kept: dict[str, RowReader] = {}
        for name, tensor in tensors.items():
            target = self.keep(name)
            if target is not None:
                kept[target] = tensor
        for name, tensor in _experts_stacked(kept).items():
            try:
                yield from ((name, new, modified) for new, modified in self.modify(name, tensor))
            except CheckpointError as exc:
                raise CheckpointError(f"tensor {name!r}: {exc}") from exc


def _experts_stacked(tensors: Mapping[str, RowReader]) -> dict[str, RowReader]:
    """Experts by number become one tensor, in the place of the first."""
    result: dict[str, RowReader] = {}
    groups: dict[str, dict[int, RowReader]] = {}
    for name, tensor in tensors.items():
        found = _EXPERT.match(name)
        if found is None:
            result[name] = tensor
            continue
        merged = f"{found[1]}.{found[3]}"
        groups.setdefault(merged, {})[int(found[2])] = tensor
        result.setdefault(merged, tensor)
    for merged, experts in groups.items():
        missing = next((i for i in range(len(experts)) if i not in experts), None)
        if missing is not None:
            raise CheckpointError(f"tensor {merged!r}: expert {missing} is missing")
        result[merged] = stack(_in_order(experts))
    return result


def _in_order(experts: Mapping[int, RowReader]) -> Sequence[RowReader]:
    return [experts[number] for number in range(len(experts))]


def convert_checkpoint(checkpoint: Checkpoint, options: Options) -> tuple[ModelFile, ...]:
    """Plan the GGUFs that a checkpoint becomes: the model, and a projector where it has a tower that is known.

    Raises:
        CheckpointError: an unknown architecture, or anything `Architecture.build` says.
    """
    config = Hparams(checkpoint.config)
    hf_name, family = architecture_of(config)
    files = [family(checkpoint, hf_name, options).build()]
    projector = projector_of(config)
    if projector is not None:
        tower = projector(checkpoint, hf_name, options)
        if tower.is_present():
            files.append(tower.build())
    return tuple(files)
