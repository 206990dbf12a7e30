"""Nomic's embedding models, dense and with experts. GGUF architectures `nomic-bert` and `nomic-bert-moe`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from olm.checkpoint.types import RowReader
from olm.convert.architecture import NamedTensor
from olm.convert.architectures.bert import Bert
from olm.convert.hparams import Hparams
from olm.convert.lazy import reshape, transpose
from olm.convert.metadata import Metadata
from olm.convert.registry import register
from olm.convert.vocab import Vocab
from olm.errors import CheckpointError

__all__ = ["NomicBert"]

# What its configs promise and what they were trained with (llama.cpp's converter): v1 and v1.5, v2.
_TRAINED: Final = {8192: 2048, 2048: 512}
_TRAINED_SAID: Final = 2048


@register("NomicBertModel", "NomicBertMoEModel")
class NomicBert(Bert):
    """Rope, no biases without experts; a layer in so many has experts."""

    gguf_name = "nomic-bert"
    skipped = rf"{Bert.skipped}|mlp\.experts\.bias"

    def architecture(self) -> str:
        return "nomic-bert-moe" if self.is_moe else self.gguf_name

    @property
    def is_moe(self) -> bool:
        """Whether some layers have experts."""
        return bool(self.hparams.get("moe_every_n_layers"))

    def read_hparams(self, config: Mapping[str, object]) -> Hparams:
        found = super().read_hparams(config)
        _check(found)
        n_positions = found.integer("n_positions")
        said = found.integer("max_trained_positions", default=_TRAINED_SAID)
        if n_positions not in _TRAINED or said != _TRAINED_SAID:
            raise CheckpointError(
                f"config.json: n_positions {n_positions} with max_trained_positions {said} is not known"
            )
        return found.with_values(n_positions=_TRAINED[n_positions])

    def write_keys(self, meta: Metadata) -> None:
        super().write_keys(meta)
        if self.is_moe:
            meta.u32(".moe_every_n_layers", self.hparams.integer("moe_every_n_layers"))
            meta.u32(".expert_used_count", self.hparams.integer("moe_top_k"))

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if name.endswith(("mlp.experts.mlp.w1", "mlp.experts.mlp.w2")):
            n_experts = self.hparams.integer("num_local_experts", "num_experts")
            tensor = reshape(tensor, (n_experts, self.hparams.integer("n_inner"), -1))
            if name.endswith("w2"):
                tensor = transpose(tensor)
            name = f"{name}.weight"
        yield from super().modify(name, tensor)

    def vocab(self) -> Vocab | None:
        vocab = super().vocab()
        if vocab is None:
            return None
        n_types = self.hparams.integer("type_vocab_size", default=1)
        return attrs.evolve(vocab, n_token_types=n_types)


def _check(hparams: Hparams) -> None:
    """Variants that its code allows and llama.cpp does not run."""
    is_moe = bool(hparams.get("moe_every_n_layers"))
    wanted = {
        "activation_function": "gelu" if is_moe else "swiglu",
        "causal": False,
        "qkv_proj_bias": is_moe,
        "mlp_fc1_bias": is_moe,
        "mlp_fc2_bias": is_moe,
        "prenorm": False,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None,
    }
    for name, value in wanted.items():
        found = hparams.get(name)
        if found != value:
            raise CheckpointError(f"config.json: wanted {name!r} to be {value!r}, found {found!r}")
