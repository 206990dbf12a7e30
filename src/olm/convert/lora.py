"""A LoRA adapter in PEFT's or MLX's format becomes a GGUF, for every architecture that `olm.convert` knows.

The base's family decides names and the order of rows, by the same hooks as for whole weights (`olm.convert.factors`).
Keys and bytes are those of llama.cpp's `convert_lora_to_gguf.py` (tree of `native/ggml/UPSTREAM.toml`), where that can
convert an adapter; besides, rank-stabilised scales and those that differ from module to module are carried over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

from olm.checkpoint.types import Checkpoint, RowReader, Source
from olm.convert.architecture import Architecture, Options
from olm.convert.base_config import base_configs
from olm.convert.factors import Factors, Product, factors_of, times
from olm.convert.hparams import Hparams
from olm.convert.lazy import transpose
from olm.convert.metadata import Metadata
from olm.convert.model_file import ModelFile, OutTensor
from olm.convert.names import TensorNames
from olm.convert.output_types import output_type
from olm.convert.peft import CONFIG, Adapter, read_adapter
from olm.convert.registry import architecture_of
from olm.errors import CheckpointError
from olm.gguf import Header
from olm.gguf.adapters import check_fit

__all__ = ["is_adapter", "plan_adapter"]

_BASE_CONFIG: Final = "config.json"
_EMBEDDING: Final = "token_embd.weight"
_NORM_NOTE: Final = "the adapter replaces norms, which llama.cpp does not apply; merge it into its base to keep them"
_F32: Final = Options("F32")
_QUANTIZATION_VERSION: Final = 2  # GGML_QNT_VERSION of ggml.h


def is_adapter(names: Iterable[str]) -> bool:
    """Whether files of these names are an adapter's folder, and no model's."""
    return CONFIG in names


def plan_adapter(checkpoint: Checkpoint, base: Header | None, options: Options = _F32) -> ModelFile:
    """Plan the GGUF that an adapter becomes. Reads no weights.

    Args:
        checkpoint: the adapter's folder: `adapter_config.json` and its weights. A `config.json` in it is the base's.
        base: the GGUF of the model it was made for; names and shapes are held against it.
        options: the factors' type, F32 as llama.cpp's converter has it; the adapter's name.

    Raises:
        CheckpointError: what cannot be run as an adapter, names the tensor; an unknown base, or one that does not fit.
    """
    adapter = read_adapter(checkpoint)
    make = _family(checkpoint, adapter, base, options)
    tensors = tuple(_tensors(make, adapter, options))
    architecture = make().architecture()
    if base is not None:
        check_fit(architecture, {t.name: t.reader.shape[::-1] for t in tensors}, base)
    meta = Metadata(architecture)
    meta.text("general.type", "adapter")
    meta.text("adapter.type", "lora")
    meta.text("general.name", options.name or checkpoint.folder.name)
    meta.f32("adapter.lora.alpha", adapter.alpha)
    meta.u32("general.quantization_version", _QUANTIZATION_VERSION)
    return ModelFile("adapter", meta, tensors, notes=(_NORM_NOTE,) if adapter.norms else ())


# -- the base --------------------------------------------------------------------------------------------------------

_Make = Callable[[], Architecture]


@attrs.frozen
class _BaseOnly:
    """The checkpoint that an adapter's base is to its family: a config, and no weights."""

    config: Mapping[str, object]
    folder: Path = Path()
    tensors: Mapping[str, Source] = attrs.field(factory=dict)

    def json(self, name: str) -> object | None:
        return self.config if name == _BASE_CONFIG else None

    def text(self, name: str) -> str | None:
        return None

    def part(self, name: str) -> Checkpoint:
        raise CheckpointError(f"{name}: is missing")

    def close(self) -> None:
        pass


def _family(
    checkpoint: Checkpoint, adapter: Adapter, base: Header | None, options: Options
) -> _Make:
    """How to make the base's family; each made one is used once, for it may gather tensors.

    The config beside the adapter counts; without one it is guessed from the base's GGUF.
    """
    config = checkpoint.json(_BASE_CONFIG)
    if isinstance(config, dict):
        return _maker(config, options)
    if base is None:
        raise CheckpointError(
            f"it is unknown what the adapter was made for: name its base in FROM, or put its {_BASE_CONFIG} beside it"
        )
    wanted, reason = base.text("general.architecture"), ""
    for guess in base_configs(base, adapter.hint):
        make = _maker(guess, options)
        try:
            if make().architecture() == wanted:
                return make
        except CheckpointError as exc:
            reason = reason or f" ({exc.message})"
    raise CheckpointError(
        f"adapters for architecture {wanted!r} cannot be converted without the base's {_BASE_CONFIG}{reason}"
    )


def _maker(config: Mapping[str, object], options: Options) -> _Make:
    name, family = architecture_of(Hparams(config))
    return lambda: family(_BaseOnly(config), name, options)


# -- tensors ---------------------------------------------------------------------------------------------------------


def _tensors(make: _Make, adapter: Adapter, options: Options) -> Iterator[OutTensor]:
    found, norms = _transformed(make(), adapter.products, adapter.norms)
    swapped = frozenset[str]().union(*(f.sources for f in found.values() if f.is_swapped))
    if swapped:
        # A family turns only what Transformers keeps as [inputs, outputs] (GPT-2's Conv1D); PEFT's factors of such a
        # layer lie as everywhere, so their product has to be turned before.
        turned = {
            name: _turned(product) if name in swapped else product
            for name, product in adapter.products.items()
        }
        found, norms = _transformed(make(), turned, adapter.norms)
    used = frozenset[str]().union(*(f.sources for f in found.values()))
    for name in adapter.products:
        if name not in used:
            raise CheckpointError(
                f"tensor {name!r}: the base has nothing like it that an adapter could change alone"
            )
    for name, factors in found.items():
        yield from _pair(name, factors, adapter.alpha, options)
    for name, norm in norms.items():
        yield OutTensor(name, norm, output_type(name, norm, options.type_name))


def _transformed(
    family: Architecture, products: Mapping[str, Product], norms: Mapping[str, RowReader]
) -> tuple[dict[str, Factors], dict[str, RowReader]]:
    """Factors and norms by their names in the GGUF."""
    names = TensorNames(family.architecture(), family.n_blocks, family.names)
    found: dict[str, Factors] = {}
    vectors: dict[str, RowReader] = {}
    for source, name, tensor in family.transformed({**products, **norms}):
        target = names.find(name)
        if target is None:
            raise CheckpointError(
                f"tensor {source!r} is not known to architecture {family.architecture()!r}"
            )
        if target in found or target in vectors:
            raise CheckpointError(f"tensor {source!r}: {target!r} is there twice")
        if len(tensor.shape) == 1:
            vectors[target] = tensor
            continue
        try:
            found[target] = factors_of(tensor)
        except CheckpointError as exc:
            raise CheckpointError(f"tensor {source!r}: {exc.message}") from exc
    return found, vectors


def _turned(product: Product) -> Product:
    return attrs.evolve(product, a=transpose(product.b), b=transpose(product.a))


def _pair(name: str, factors: Factors, alpha: float, options: Options) -> Iterator[OutTensor]:
    """The two tensors of a GGUF; B makes up for a scale that is not alpha / rank."""
    a, b = factors.pair()
    factor = factors.scale * factors.rank / alpha
    if not math.isclose(factor, 1.0, rel_tol=1e-6):
        b = times(b, factor)
    if name == _EMBEDDING:
        # llama.cpp looks rows of the embedding up in the first factor (llm_graph_context::build_inp_embd).
        a, b = b, transpose(a)
    for suffix, reader in ((".lora_a", a), (".lora_b", b)):
        target = name + suffix
        yield OutTensor(target, reader, output_type(target, reader, options.type_name))
