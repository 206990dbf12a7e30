"""Mamba, Falcon Mamba and Mamba 2. GGUF architectures `mamba`, `mamba2`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from olm.checkpoint.types import RowReader
from olm.convert.architecture import Architecture, NamedTensor
from olm.convert.lazy import reshape
from olm.convert.metadata import Metadata
from olm.convert.parts import is_same, negative_exp, squeeze
from olm.convert.registry import register
from olm.convert.vocab import Vocab
from olm.errors import CheckpointError

__all__ = ["Mamba", "Mamba2"]

_CONTEXT_LENGTH: Final = (
    1 << 20
)  # arbitrary, as llama.cpp's converter has it: the state has no length
_EMBEDDINGS: Final = ("backbone.embeddings.weight", "backbone.embedding.weight")


class _StateSpace(Architecture):
    """What both have: no attention, a vocabulary rounded up, an output that may be the embedding once more."""

    n_vocab_multiple: int

    @property
    def d_model(self) -> int:
        """Elements of an embedding."""
        return self.hparams.integer("hidden_size", "d_model", "dim")

    def write_base(self, meta: Metadata) -> None:
        """Keys that loaders ask for, whatever the mixer."""
        meta.u32(".context_length", _CONTEXT_LENGTH)
        meta.u32(".embedding_length", self.d_model)
        meta.u32(".feed_forward_length", 0)
        meta.u32(".attention.head_count", 0)
        meta.u32(".block_count", self.n_blocks)
        meta.u32(".ssm.conv_kernel", self.hparams.integer("conv_kernel", "d_conv", default=4))
        eps = self.hparams.number("layer_norm_epsilon", "rms_norm_eps", default=1e-5)
        meta.f32(".attention.layer_norm_rms_epsilon", eps)
        meta.u32("general.file_type", 0)

    def is_tied_output(self, name: str, tensor: RowReader) -> bool:
        """Whether this is the output and nothing but the embedding again, which old checkpoints saved twice."""
        if name != "lm_head.weight":
            return False
        tensors = self.checkpoint.tensors
        found = next((tensors[other] for other in _EMBEDDINGS if other in tensors), None)
        return found is not None and is_same(found, tensor)

    def vocab(self) -> Vocab | None:
        from olm.convert.tokenizers import read_vocab

        multiple = self.hparams.integer("pad_vocab_size_multiple", default=self.n_vocab_multiple)
        n_vocab = -(self.hparams.integer("vocab_size") // -max(multiple, 1)) * max(multiple, 1)
        return read_vocab(self.checkpoint, vocab_size=n_vocab)


@register("MambaForCausalLM", "MambaLMHeadModel", "FalconMambaForCausalLM")
class Mamba(_StateSpace):
    """Falcon Mamba norms B, C and the time step too."""

    gguf_name = "mamba"
    n_vocab_multiple = 8

    def write_keys(self, meta: Metadata) -> None:
        hparams = self.hparams
        d_inner = hparams.integer("intermediate_size", "d_inner", default=2 * self.d_model)
        if d_inner != 2 * self.d_model:
            raise CheckpointError(
                f"config.json: Mamba's inner size is twice {self.d_model}, found {d_inner}"
            )
        self.write_base(meta)
        rank = hparams.get("time_step_rank", "dt_rank")
        rounded = -(self.d_model // -16)
        meta.u32(".ssm.inner_size", d_inner)
        meta.u32(".ssm.state_size", hparams.integer("state_size", "d_state", default=16))
        meta.u32(
            ".ssm.time_step_rank",
            rounded if rank in (None, "auto") else hparams.integer("time_step_rank", "dt_rank"),
        )
        has_norms = hparams.text("model_type", default="") == "falcon_mamba"
        meta.flag(".ssm.dt_b_c_rms", value=has_norms)

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if self.is_tied_output(name, tensor):
            return
        if name.endswith(".A_log"):
            tensor = negative_exp(tensor)
        elif name.endswith(".conv1d.weight"):
            tensor = squeeze(tensor)
        yield name, tensor


@register("Mamba2ForCausalLM")
class Mamba2(_StateSpace):
    """One number of A and D for each head, and a norm by groups."""

    gguf_name = "mamba2"
    n_vocab_multiple = 16

    @property
    def d_inner(self) -> int:
        """Elements of all heads."""
        expand = self.hparams.integer("mamba_expand", "expand", default=2)
        return self.hparams.integer(
            "mamba_d_ssm", "intermediate_size", "d_inner", default=expand * self.d_model
        )

    @property
    def n_groups(self) -> int:
        """Groups that share B and C."""
        return self.hparams.integer("n_groups", default=1)

    def write_keys(self, meta: Metadata) -> None:
        head_dim = self.hparams.integer("mamba_d_head", "head_dim", default=64)
        if self.d_inner % max(head_dim, 1):
            raise CheckpointError(
                f"config.json: {self.d_inner} elements do not divide into heads of {head_dim}"
            )
        self.write_base(meta)
        meta.u32(".ssm.inner_size", self.d_inner)
        meta.u32(".ssm.state_size", self.hparams.integer("state_size", "d_state", default=128))
        meta.u32(".ssm.time_step_rank", self.d_inner // head_dim)
        meta.u32(".ssm.group_count", self.n_groups)

    def keep(self, name: str) -> str | None:
        if name.startswith(("model.backbone", "model.lm_head")):  # Codestral Mamba
            name = name.removeprefix("model.")
        return super().keep(name.replace(".dt_bias", ".dt_proj.bias"))

    def modify(self, name: str, tensor: RowReader) -> Iterable[NamedTensor]:
        if self.is_tied_output(name, tensor):
            return
        if name.endswith(".A_log"):
            tensor = reshape(negative_exp(tensor), (-1, 1))
        elif name.endswith(".mixer.D"):
            tensor = reshape(tensor, (-1, 1))
        elif name.endswith(".conv1d.weight"):
            tensor = squeeze(tensor)
        elif name.endswith(".mixer.norm.weight"):
            tensor = reshape(tensor, (self.n_groups, -1))
        yield name, tensor
