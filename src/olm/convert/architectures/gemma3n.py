"""Gemma 3n, the language model. GGUF architecture `gemma3n`."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Final

from olm.checkpoint.types import RowReader
from olm.convert.architecture import NamedTensor
from olm.convert.architectures.gemma3 import Gemma3
from olm.convert.lazy import concat, stack, zeros
from olm.convert.metadata import Metadata
from olm.convert.registry import register
from olm.errors import CheckpointError

__all__ = ["Gemma3n"]

_N_ALTUP: Final = 4  # the only number that llama.cpp runs
_VOCAB: Final = 262400
_ALTUP: Final = ("altup_projections", "altup_unembed_projections")


@register("Gemma3nForCausalLM", "Gemma3nForConditionalGeneration")
class Gemma3n(Gemma3):
    """Several streams beside one another (AltUp), an embedding for each layer, sparse activations. Norms are stored as they are."""

    gguf_name = "gemma3n"

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        hparams = self.hparams
        if hparams.integer("altup_num_inputs") != _N_ALTUP:
            raise CheckpointError(f"config.json: wanted 'altup_num_inputs' to be {_N_ALTUP}")
        meta.u32(".altup.active_idx", hparams.integer("altup_active_idx"))
        meta.u32(".altup.num_inputs", _N_ALTUP)
        meta.u32(
            ".embedding_length_per_layer_input", hparams.integer("hidden_size_per_layer_input")
        )
        meta.u32(".attention.shared_kv_layers", hparams.integer("num_kv_shared_layers"))
        sparsity = [_quantile(part) for part in hparams.numbers("activation_sparsity_pattern")]
        meta.f32s(".activation_sparsity_scale", sparsity)
        kinds = hparams.texts("layer_types")
        is_sliding = [kind == "sliding_attention" for kind in kinds]
        meta.flags(".attention.sliding_window_pattern", is_sliding)

    def keep(self, name: str) -> str | None:
        return super().keep(f"{name}.weight" if name.endswith("_scale") else name)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if any(f"{kind}." in name for kind in _ALTUP):
            return
        if "embed_tokens" in name:
            tensor = self._padded(tensor)
        yield name, tensor

    def extra(self) -> Iterable[NamedTensor]:
        """AltUp's numbered matrices in one tensor."""
        for kind in _ALTUP:
            found = {
                name.removesuffix(".weight").rpartition(".")[2]: tensor
                for name, tensor in self.checkpoint.tensors.items()
                if f".{kind}." in name
            }
            numbers = [str(number) for number in range(_N_ALTUP - 1)]
            if sorted(found) != numbers:
                raise CheckpointError(f"{kind}: wanted {', '.join(numbers)}, found {sorted(found)}")
            yield f"model.{kind}.weight", stack([found[number] for number in numbers])

    def _padded(self, tensor: RowReader) -> RowReader:
        """Rows for pictures' and sounds' tokens, which a tower fills."""
        n_missing = self.hparams.integer("vocab_size", default=_VOCAB) - tensor.shape[0]
        if n_missing <= 0:
            return tensor
        return concat([tensor, zeros((n_missing, tensor.shape[1]), tensor.dtype)])


def _quantile(part: float) -> float:
    """How many standard deviations leave this part of a normal distribution below."""
    if part <= 0:
        return -float("inf")
    return statistics.NormalDist().inv_cdf(part) if part < 1 else float("inf")
