"""Make small checkpoints byte by byte, right or wrong, for the tests of their readers."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from olm.checkpoint import DTYPES
from olm.checkpoint.mapped import MappedFile, Residency, open_regular

__all__ = [
    "DATA",
    "global_",
    "hostile_pickles",
    "legacy",
    "mapped",
    "safetensors",
    "safetensors_of",
    "short",
    "tensor",
    "torch_zip",
    "zipped",
]

DATA = Path(__file__).parent / "data"


def mapped(path: Path, data: bytes) -> MappedFile:
    """Write a file and map it. Close it, or leave that to the end of the test's process."""
    path.write_bytes(data)
    return MappedFile(open_regular(path, path), path, Residency())


def safetensors_of(header: object, data: bytes = b"") -> bytes:
    """A file of any header: JSON's text as bytes, or what becomes JSON."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def safetensors(tensors: Mapping[str, tuple[str, Sequence[int], bytes]], pad: int = 8) -> bytes:
    """A good file: name -> dtype, shape, bytes; the data begins at a multiple of `pad`."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [at, at + len(data)],
        }
        at += len(data)
    raw = json.dumps(header).encode()
    raw += b" " * (-(len(raw) + 8) % pad)
    return safetensors_of(raw, b"".join(data for _, _, data in tensors.values()))


# --- pickles by hand


def short(text: str) -> bytes:
    """Push a string."""
    raw = text.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def global_(name: str) -> bytes:
    """Push `module.name`."""
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def _number(n: int) -> bytes:
    return pickle.dumps(n, 2)[2:-1]


def _tuple(items: Sequence[int]) -> bytes:
    return b"(" + b"".join(_number(n) for n in items) + b"t"


def tensor(
    shape: Sequence[int],
    strides: Sequence[int],
    *,
    key: str = "0",
    offset: int = 0,
    n_elements: int = 6,
    kind: str = "torch.FloatStorage",
    rebuild: str = "torch._utils._rebuild_tensor_v2",
    view: bytes = b"",
) -> bytes:
    """Push a tensor as torch does; `view` is what a legacy storage's id ends with."""
    storage = (
        b"("
        + short("storage")
        + global_(kind)
        + short(key)
        + short("cpu")
        + _number(n_elements)
        + view
    )
    rest = _number(offset) + _tuple(shape) + _tuple(strides)
    end = b"\x89" + global_("collections.OrderedDict") + b")R"
    return global_(rebuild) + b"(" + storage + b"tQ" + rest + end + b"tR"


def state(tensors: Mapping[str, bytes]) -> bytes:
    """A whole pickle: a dictionary of what the values push."""
    items = b"".join(short(name) + push for name, push in tensors.items())
    return b"\x80\x02}(" + items + b"u."


def zipped(entries: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=method)
    return out.getvalue()


def torch_zip(
    tensors: Mapping[str, bytes] | bytes, storages: Mapping[str, bytes], **more: bytes
) -> bytes:
    """A file as `torch.save` writes it; the first argument may be a whole pickle, `more` are further entries."""
    pickled = tensors if isinstance(tensors, bytes) else state(tensors)
    return zipped(
        {
            "archive/data.pkl": pickled,
            **{f"archive/{name}": data for name, data in more.items()},
            **{f"archive/data/{key}": data for key, data in storages.items()},
        }
    )


def legacy(
    tensors: Mapping[str, bytes] | bytes,
    storages: Mapping[str, bytes],
    width: int = 4,
    *,
    magic: int = 0x1950A86A20F9469CFC6C,
    version: object = 1001,
    little_endian: bool = True,
) -> bytes:
    """A file as `torch.save` wrote it before 1.6; the first argument may be a whole pickle."""
    pickled = tensors if isinstance(tensors, bytes) else state(tensors)
    machine = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {"int": 4}}
    heads = b"".join(pickle.dumps(value, 2) for value in (magic, version, machine))
    tail = b"".join(struct.pack("<q", len(data) // width) + data for data in storages.values())
    return heads + pickled + pickle.dumps(list(storages), 2) + tail


def hostile_pickles(command: str) -> Mapping[str, tuple[bytes, str]]:
    """Pickles that run `command` when Python loads them, and the global each needs."""
    argument = b"(" + short(command) + b"tR."
    head = b"\x80\x02"
    line = command.encode()
    return {
        "reduce": (head + global_("os.system") + argument, "os.system"),
        "posix": (head + global_("posix.system") + argument, "posix.system"),
        "eval": (head + global_("builtins.eval") + argument, "builtins.eval"),
        "python 2": (head + global_("__builtin__.eval") + argument, "__builtin__.eval"),
        "stack global": (
            b"\x80\x04" + short("os") + short("system") + b"\x93" + argument,
            "os.system",
        ),
        "instance": (head + b"(" + short(command) + b"ios\nsystem\n.", "os.system"),
        "object": (head + b"(" + global_("os.system") + short(command) + b"o.", "os.system"),
        "new object": (
            head + global_("subprocess.Popen") + b"(" + short(command) + b"t\x81.",
            "subprocess.Popen",
        ),
        "dotted name": (
            b"\x80\x04" + short("torch") + short("serialization.os.system") + b"\x93" + argument,
            "torch.serialization.os.system",
        ),
        "torch itself": (
            head + global_("torch.hub.load") + argument,
            "torch.hub.load",
        ),
        "attributes": (
            head + global_("types.CodeType") + b"}" + short("a") + short(line.decode()) + b"sb.",
            "types.CodeType",
        ),
        "inside a tensor": (
            state({"w": tensor([2, 3], [3, 1], rebuild="os.system")}),
            "os.system",
        ),
        "after a tensor": (
            state({"w": tensor([2, 3], [3, 1]), "x": global_("nt.system") + argument[:-1]}),
            "nt.system",
        ),
    }


WIDTHS = {name: dtype.itemsize for name, dtype in DTYPES.items()}
