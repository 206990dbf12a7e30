"""Write the PyTorch files of this folder and what is in them, with PyTorch itself (made with 2.15). Not run by tests.

`python make_torch_files.py` in an environment that has torch writes `*.bin`, `*.pt`, `*.pth` and `expected.json`: for each
file its tensors, with dtype (as safetensors calls it), shape, and bytes in C order as hexadecimal digits.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import torch  # type: ignore[import-not-found, unused-ignore]  # only where these files are made

__all__: list[str] = []

HERE = Path(__file__).parent
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def weights() -> OrderedDict[str, torch.Tensor]:
    """Every kind of element, and every way in which a tensor can be a part of its storage."""
    table = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    return OrderedDict(
        {
            "bf16": torch.linspace(-3, 3, 24).reshape(4, 6).to(torch.bfloat16),
            "transposed": table.t(),
            "slice": table[1:3, 2:5],
            "row": table[2],
            "column": table[:, 1],
            "tied": table,
            "permuted": torch.arange(60, dtype=torch.int16).reshape(3, 4, 5).permute(2, 0, 1),
            "i8": torch.arange(-4, 4, dtype=torch.int8).reshape(2, 4),
            "u8": torch.arange(5, dtype=torch.uint8),
            "i64": torch.tensor([1 << 40, -3]),
            "i32": torch.tensor([7, -8], dtype=torch.int32),
            "f64": torch.tensor([[0.5]], dtype=torch.float64),
            "f16": torch.tensor([1.5, -2.5, 0.25], dtype=torch.float16),
            "bool": torch.tensor([True, False, True]),
            "scalar": torch.tensor(3.25),
            "empty": torch.empty(0, 3),
            "expanded": torch.tensor([[2.0]]).expand(3, 4),
            "parameter": torch.nn.Parameter(torch.tensor([1.0, 2.0])),
        }
    )


def newer() -> OrderedDict[str, torch.Tensor]:
    """Element types that have no storage class of their own, and tensors with attributes."""
    numbers = torch.tensor([[0.5, -1.0, 448.0]])
    noted = torch.tensor([1.0, 2.0])
    noted.note = "n"
    parameter = torch.nn.Parameter(torch.tensor([5.0]))
    parameter.note = 1
    return OrderedDict(
        {
            "e4m3": numbers.to(torch.float8_e4m3fn),
            "e5m2": numbers.to(torch.float8_e5m2),
            "e8m0": torch.tensor([1.0, 4.0]).to(torch.float8_e8m0fnu),
            "noted": noted,
            "noted_parameter": parameter,
        }
    )


def described(tensors: OrderedDict[str, torch.Tensor]) -> dict[str, object]:
    """What a reader must find."""
    return {
        name: {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "hex": bytes(tensor.detach().contiguous().flatten().view(torch.uint8).tolist()).hex()
            if tensor.numel()
            else "",
        }
        for name, tensor in tensors.items()
    }


def main() -> None:
    """Write all."""
    plain, new = weights(), newer()
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    state = module.state_dict()
    training = {
        "step": 3,
        "optimizer": {"state": {0: {"moment": torch.zeros(2)}}},
        "hyper": {"rate": 0.1, "sizes": [1, 2]},
        "state_dict": plain,
    }
    good = {
        "zip.bin": (plain, plain, {}),
        "legacy.bin": (plain, plain, {"_use_new_zipfile_serialization": False}),
        "wrapped.pth": (training, plain, {}),
        "protocol4.pt": (plain, plain, {"pickle_protocol": 4}),
        "newer.bin": (new, new, {}),
        "module.pt": (state, state, {}),
        "module_legacy.pt": (state, state, {"_use_new_zipfile_serialization": False}),
    }
    refused = {
        "whole_model.pt": module,
        "complex.pt": {"c": torch.tensor([1 + 2j])},
        "sparse.pt": {"s": torch.eye(3).to_sparse()},
        "unsigned.pt": {"u": torch.tensor([1], dtype=torch.uint16)},
        "meta.pt": {"m": torch.empty(2, device="meta")},
    }
    for name, (saved, _, options) in good.items():
        torch.save(saved, HERE / name, **options)
    for name, saved in refused.items():
        torch.save(saved, HERE / name)
    expected = {name: described(tensors) for name, (_, tensors, _) in good.items()}
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    torch.manual_seed(1)
    main()
