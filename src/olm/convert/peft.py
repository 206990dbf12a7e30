"""What lies in an adapter's folder: `adapter_config.json`, and which tensors are factors of which weight.

PEFT's format (peft/tuners/lora/config.py, its saved names), and MLX's, which Ollama reads too. What acts on a model in
another way than by `W + scale * B @ A` is refused by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Final, Literal

import attrs

from olm.checkpoint.types import Checkpoint, RowReader
from olm.convert.factors import Product
from olm.convert.hparams import Hparams
from olm.convert.lazy import transpose
from olm.errors import CheckpointError

__all__ = ["CONFIG", "Adapter", "read_adapter"]

CONFIG: Final = "adapter_config.json"

_PREFIX: Final = re.compile(r"^(?:base_model\.model\.|base_model\.)?(.*)$")
_PEFT: Final = re.compile(r"(.+)\.lora_(embedding_)?([AB])(?:\.[\w-]+)?(?:\.weight)?")
_MLX: Final = re.compile(r"(.+)\.lora_([ab])")
_NORM: Final = re.compile(r"_layernorm|\.norm|_norm\.|\.ln_|layer_norm")
# Ways to begin that change the base's own weights; such an adapter fits none but the changed base.
_CHANGED_BASE: Final = ("pissa", "olora", "corda")

Side = Literal["a", "b"]


@attrs.frozen
class Adapter:
    """An adapter's tensors, by the names of the weights they act on.

    Attributes:
        products: B @ A with the scale it is to be applied with.
        norms: whole norm vectors, which replace the model's.
        alpha: `adapter.lora.alpha`: llama.cpp's scale is alpha / rank.
        hint: the base's name in `architectures`, where the config tells it.
    """

    products: Mapping[str, Product]
    norms: Mapping[str, RowReader]
    alpha: float
    hint: str = ""


def read_adapter(checkpoint: Checkpoint) -> Adapter:
    """Read an adapter's folder.

    Raises:
        CheckpointError: no config, a kind of adapter that is none of factors, tensors without their counterpart.
    """
    config = _read_config(checkpoint)
    pairs, norms = _sorted(checkpoint.tensors, config)
    if not pairs:
        raise CheckpointError("there are no tensors of a LoRA adapter in it")
    products = dict(_products(pairs, config))
    hint = config.table("auto_mapping").text("base_model_class", default="")
    return Adapter(products, norms, _alpha(config), hint)


def _read_config(checkpoint: Checkpoint) -> Hparams:
    value = checkpoint.json(CONFIG)
    if not isinstance(value, dict):
        what = "is missing" if value is None else "is not a JSON object"
        raise CheckpointError(f"{CONFIG}: {what}")
    config = Hparams(value, CONFIG)
    kind = config.text("peft_type", default="LORA").upper()
    if kind != "LORA":
        raise CheckpointError(f"{CONFIG}: a {kind} adapter cannot be converted, only LoRA can")
    for key in ("use_dora", "lora_bias", "use_qalora", "use_bdlora"):
        if config.get(key):
            raise CheckpointError(f"{CONFIG}: {key!r} is set, which llama.cpp cannot run")
    if config.get("alora_invocation_tokens", "invocation_string"):
        raise CheckpointError(
            f"{CONFIG}: an adapter that is switched on by an invocation (aLoRA) cannot be run"
        )
    if config.get("layer_replication"):
        raise CheckpointError(f"{CONFIG}: 'layer_replication' makes another model of the base")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGED_BASE):
        raise CheckpointError(
            f"{CONFIG}: began as {start!r}, which changes the base's weights; "
            "save it as an ordinary LoRA (`path_initial_model_for_weight_conversion`)"
        )
    return config


def _sorted(
    tensors: Mapping[str, RowReader], config: Hparams
) -> tuple[dict[str, dict[Side, RowReader]], dict[str, RowReader]]:
    """Factors by the weight they belong to, oriented as PEFT's linear layers; and norms."""
    pairs: dict[str, dict[Side, RowReader]] = {}
    norms: dict[str, RowReader] = {}
    for name, tensor in tensors.items():
        found = _PREFIX.match(name)
        path = found[1] if found else name
        if path.endswith(".base_layer.weight"):
            continue
        try:
            factor = _factor(path, tensor)
        except CheckpointError as exc:
            raise CheckpointError(f"tensor {name!r}: {exc}") from exc
        if factor is not None:
            weight, side, reader = factor
            if side in pairs.setdefault(weight, {}):
                raise CheckpointError(f"tensor {name!r}: there are two of {weight!r}")
            pairs[weight][side] = reader
        elif _NORM.search(path) and len(tensor.shape) == 1 and path.endswith(".weight"):
            norms[path] = tensor
        else:
            raise CheckpointError(f"tensor {name!r}: {_refusal(path, config)}")
    return pairs, norms


def _factor(path: str, tensor: RowReader) -> tuple[str, Side, RowReader] | None:
    """(weight, side, [rank, columns] or [rows, rank]); None for a tensor that is no factor."""
    if path.endswith((".lora_B.bias", ".bias")):
        return None
    if found := _PEFT.fullmatch(path):
        _check_matrix(tensor)
        side: Side = "a" if found[3] == "A" else "b"
        if not found[2]:
            return f"{found[1]}.weight", side, tensor
        # An embedding's A is [rank, tokens] and its B [length, rank]: the weight, [tokens, length], is A^T @ B^T.
        return f"{found[1]}.weight", "b" if side == "a" else "a", transpose(tensor)
    if found := _MLX.fullmatch(path):
        _check_matrix(tensor)
        # MLX multiplies from the left: x @ a @ b.
        return f"{found[1]}.weight", "a" if found[2] == "a" else "b", transpose(tensor)
    return None


def _check_matrix(tensor: RowReader) -> None:
    if len(tensor.shape) != 2:
        raise CheckpointError(f"a factor must be a matrix, this is {tensor.shape}")


def _refusal(path: str, config: Hparams) -> str:
    """Why a tensor that is no factor cannot be carried over."""
    if "lora_magnitude_vector" in path:
        return "this is a DoRA adapter, which llama.cpp cannot run"
    if path.endswith(".bias"):
        return "trained biases cannot be carried in a LoRA adapter"
    saved = config.get("modules_to_save")
    hint = f" ('modules_to_save': {saved})" if saved else ""
    return (
        f"a whole weight was trained{hint}, which a LoRA adapter cannot carry; "
        "merge the adapter into its base and create the model from that"
    )


def _products(
    pairs: Mapping[str, Mapping[Side, RowReader]], config: Hparams
) -> Iterator[tuple[str, Product]]:
    for weight, sides in pairs.items():
        a, b = sides.get("a"), sides.get("b")
        if a is None or b is None:
            raise CheckpointError(f"tensor {weight!r}: one of its two factors is missing")
        rank = a.shape[0]
        if b.shape[1] != rank or not rank:
            raise CheckpointError(
                f"tensor {weight!r}: factors of {b.shape} and {a.shape} do not fit each other"
            )
        yield weight, Product(weight, a, b, _scale(weight.removesuffix(".weight"), rank, config))


def _scale(module: str, rank: int, config: Hparams) -> float:
    """What PEFT multiplies B @ A with; MLX has it in `lora_parameters`."""
    mlx = config.table("lora_parameters")
    if "lora_alpha" not in config and mlx.values:
        scale = mlx.find_number("scale")
        return scale if scale is not None else mlx.number("alpha") / rank
    alpha = config.number("lora_alpha")
    patterns = config.table("alpha_pattern")
    for pattern in patterns.values:
        try:
            is_meant = re.fullmatch(rf"(.*\.)?({pattern})", module) is not None
        except re.error as exc:
            raise CheckpointError(f"{patterns.where}: {pattern!r} is no pattern: {exc}") from exc
        if is_meant:
            alpha = patterns.number(pattern)
            break
    return alpha / (math.sqrt(rank) if config.flag("use_rslora") else rank)


def _alpha(config: Hparams) -> float:
    """The alpha that leaves most tensors as they are: llama.cpp divides by the rank, never by its root."""
    mlx = config.table("lora_parameters")
    if "lora_alpha" in config or not mlx.values:
        alpha = config.number("lora_alpha")
        rank = config.integer("r", default=0)
        alpha *= math.sqrt(rank) if config.flag("use_rslora") and rank else 1
    else:
        alpha = mlx.number("scale", default=1.0) * mlx.integer("rank", default=1)
    if not alpha:
        raise CheckpointError(f"{CONFIG}: 'lora_alpha' is 0, the adapter would do nothing")
    return alpha
