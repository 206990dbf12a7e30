"""What a PyTorch pickle says about tensors: the names it may use, and the plain values that stand for them.

A tensor is a window of a storage; where the storages lie is the archive's business (`torch_zip`, `torch_legacy`). The
names and their arguments are those of `torch/_utils.py`, `torch/serialization.py` and `torch/_tensor.py` (2.15, and
the older forms that it still reads).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from olm.checkpoint.unpickle import Function, Global
from olm.errors import CheckpointError

__all__ = ["NAMES", "StorageRef", "TensorRef", "state_dict", "storage_of_id"]

_DTYPES: Final[Mapping[str, str]] = {
    "float64": "F64",
    "double": "F64",
    "float32": "F32",
    "float": "F32",
    "float16": "F16",
    "half": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    "int64": "I64",
    "long": "I64",
    "int32": "I32",
    "int": "I32",
    "int16": "I16",
    "short": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_STORAGES: Final[Mapping[str, str]] = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
_WRAPPERS: Final = ("state_dict", "model_state_dict", "model", "module")
"""Keys under which trainers put the weights beside their own state, in the order they are tried."""
_MAX_WRAPPED: Final = 4
_MAX_SHOWN: Final = 5
_MAX_DIMS: Final = 64
_INT64: Final = range(-(1 << 63), 1 << 63)


@attrs.frozen
class _ElementType:
    """A torch dtype, or the class of storages of that dtype; `name` is None for bytes without a type."""

    name: str | None


@attrs.frozen
class StorageRef:
    """A run of elements in an archive.

    Attributes:
        key: its name in the archive.
        dtype: of its elements; None: bytes, the tensor knows more.
        n_elements: as claimed.
        begin: the first element, for a storage that is a window of another one.
    """

    key: str
    dtype: str | None
    n_elements: int
    begin: int = 0


@attrs.frozen
class TensorRef:
    """A window of a storage; offset and strides in elements. Nothing is checked against the storage yet."""

    storage: StorageRef
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def storage_of_id(value: object) -> StorageRef:
    """Read a persistent id: `("storage", type, key, device, n_elements[, view])`. Raises ValueError for another."""
    match value:
        case ("storage", _ElementType(name=dtype), str(key), str(), int(n_elements)) | (
            "storage",
            _ElementType(name=dtype),
            str(key),
            str(),
            int(n_elements),
            None,
        ) if 0 <= n_elements in _INT64:
            return StorageRef(key, dtype, n_elements)
        case (
            "storage",
            _ElementType(name=dtype),
            str(key),
            str(),
            int(n_elements),
            (str(), int(begin), int(n_view)),
        ) if begin >= 0 <= n_view <= n_elements - begin and n_elements in _INT64:
            return StorageRef(key, dtype, n_view, begin)
        case _:
            raise ValueError("a persistent id that is no storage")


def _rebuild_tensor(arguments: Sequence[object]) -> TensorRef:
    """`(storage, offset, shape, strides, ...)`: both the first version and the second, which adds gradients."""
    match arguments:
        case (StorageRef() as storage, int(offset), tuple(shape), tuple(strides), *_) if (
            storage.dtype is not None
        ):
            return _tensor(storage, storage.dtype, offset, shape, strides)
        case _:
            raise ValueError("_rebuild_tensor with other arguments than torch gives it")


def _rebuild_tensor_v3(arguments: Sequence[object]) -> TensorRef:
    """The third version has the dtype at the end: `(storage, offset, shape, strides, grad, hooks, dtype, ...)`."""
    match arguments:
        case (
            StorageRef() as storage,
            int(offset),
            tuple(shape),
            tuple(strides),
            _,
            _,
            _ElementType(name=str(dtype)),
            *_,
        ):
            return _tensor(storage, dtype, offset, shape, strides)
        case _:
            raise ValueError("_rebuild_tensor_v3 with other arguments than torch gives it")


def _tensor(
    storage: StorageRef, dtype: str, offset: int, shape: Sequence[object], strides: Sequence[object]
) -> TensorRef:
    if len(shape) != len(strides) or offset < 0:
        raise ValueError("a tensor of impossible shape")
    return TensorRef(storage, dtype, offset, _sizes(shape), _sizes(strides))


def _sizes(numbers: Sequence[object]) -> tuple[int, ...]:
    # A pickle may hand over the same long tuple again and again: its length comes before all else.
    if len(numbers) > _MAX_DIMS:
        raise ValueError(f"a tensor of {len(numbers)} dimensions")
    sizes = tuple(n for n in numbers if type(n) is int and 0 <= n in _INT64)
    if len(sizes) != len(numbers):
        raise ValueError("a tensor of impossible shape")
    return sizes


def _rebuild_parameter(arguments: Sequence[object]) -> TensorRef:
    """`(tensor, ...)`: a parameter is a tensor to us."""
    match arguments:
        case (TensorRef() as tensor, *_):
            return tensor
        case _:
            raise ValueError("_rebuild_parameter with other arguments than torch gives it")


def _rebuild_from_type(arguments: Sequence[object]) -> object:
    """`(function, class, arguments, state)`: a tensor that has attributes, or a subclass of ours to know."""
    match arguments:
        case (Function() as function, _Class(), tuple(inner), *_) if function.call in _REBUILDERS:
            return function.call(inner)
        case _:
            raise ValueError("_rebuild_from_type_v2 with other arguments than torch gives it")


@attrs.frozen
class _Class:
    """A class that is named and not called."""


def _ordered_dict(arguments: Sequence[object]) -> dict[object, object]:
    if arguments:
        raise ValueError("an OrderedDict that is given its contents, as Python 2 writes it")
    return {}


def _size(arguments: Sequence[object]) -> tuple[int, ...]:
    match arguments:
        case (tuple(sizes) | list(sizes),):
            return _sizes(sizes)
        case _:
            raise ValueError("a torch.Size of what are not numbers")


def _device(arguments: Sequence[object]) -> None:
    """Where a tensor was when it was saved: of no interest."""


_REBUILDERS: Final[Sequence[Callable[[Sequence[object]], TensorRef]]] = (
    _rebuild_tensor,
    _rebuild_tensor_v3,
    _rebuild_parameter,
)

NAMES: Final[Mapping[str, Global]] = {
    "collections.OrderedDict": Function(_ordered_dict),
    "torch._utils._rebuild_tensor": Function(_rebuild_tensor),
    "torch._utils._rebuild_tensor_v2": Function(_rebuild_tensor),
    "torch._utils._rebuild_tensor_v3": Function(_rebuild_tensor_v3),
    "torch._utils._rebuild_parameter": Function(_rebuild_parameter),
    "torch._utils._rebuild_parameter_with_state": Function(_rebuild_parameter),
    "torch._tensor._rebuild_from_type_v2": Function(_rebuild_from_type),
    "torch.Size": Function(_size),
    "torch.device": Function(_device),
    "torch.Tensor": _Class(),
    "torch.nn.parameter.Parameter": _Class(),
    "torch.storage.UntypedStorage": _ElementType(None),
    **{f"torch.{name}": _ElementType(dtype) for name, dtype in _STORAGES.items()},
    **{f"torch.{name}": _ElementType(dtype) for name, dtype in _DTYPES.items()},
}
"""All that a pickle of weights may refer to."""


def state_dict(value: object, file: str) -> Mapping[str, TensorRef]:
    """Find the tensors by name: those of the dictionary itself, or of the one that a trainer wrapped.

    Other values beside tensors (steps, settings) are let pass.

    Raises:
        CheckpointError: no dictionary with tensors, or tensors under keys that are no names.
    """
    for _ in range(_MAX_WRAPPED):
        if not isinstance(value, dict):
            break
        inner = next(
            (value[key] for key in _WRAPPERS if isinstance(value.get(key), dict) and value[key]),
            None,
        )
        tensors = {key: item for key, item in value.items() if isinstance(item, TensorRef)}
        if tensors and (inner is None or len(tensors) >= len(inner)):
            if not all(isinstance(key, str) for key in tensors):
                raise CheckpointError(f"{file}: holds tensors that have no names")
            return tensors
        if inner is None:
            keys = [str(key)[:80] for key in list(value)[:_MAX_SHOWN] if isinstance(key, str | int)]
            raise CheckpointError(f"{file}: holds no tensors by name, only {keys!a}")
        value = inner
    raise CheckpointError(f"{file}: is no dictionary of tensors")
