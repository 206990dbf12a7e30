"""What is fuzzed: each target takes any bytes, and fails only if a reader does something other than read or refuse them.

The tests beside this file feed them from Hypothesis's grammars; `atheris_targets.py` from a coverage-guided fuzzer.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from olm.checkpoint.jsons import parse_json
from olm.checkpoint.mapped import FlatTensor, MappedFile, Residency, StridedTensor
from olm.checkpoint.pickle_stream import PickleStream
from olm.checkpoint.safetensors import read_safetensors
from olm.checkpoint.torch_file import read_torch
from olm.checkpoint.torch_values import NAMES, state_dict, storage_of_id
from olm.checkpoint.types import DTYPES
from olm.checkpoint.unpickle import unpickle
from olm.checkpoint.zip_directory import read_directory
from olm.errors import CheckpointError, GgufError, ModelfileError
from olm.gguf import facts_of, kv_json, read_header
from olm.modelfile import format_modelfile, parse_modelfile, spec_of

__all__ = ["TARGETS"]

_MAX_READ_BYTES: Final = 1 << 20


@contextmanager
def in_memory(data: bytes) -> Iterator[int]:
    """A file that is on no disk: its descriptor, which the caller owns."""
    fd = os.memfd_create("fuzz", os.MFD_CLOEXEC)
    os.write(fd, data)
    yield fd


@contextmanager
def mapped(data: bytes) -> Iterator[MappedFile]:
    with in_memory(data) as fd:
        file = MappedFile(fd, Path("fuzz.bin"), Residency())
        try:
            yield file
        finally:
            file.close()


def read_rows(one: FlatTensor | StridedTensor, size_bytes: int) -> int:
    """Read a tensor's ends, or all of a small one; returns its size in bytes."""
    n_rows = math.prod(one.shape[:-1])
    row_bytes = (one.shape[-1] if one.shape else 1) * DTYPES[one.dtype].itemsize
    n_read = min(n_rows, max(1, _MAX_READ_BYTES // max(row_bytes, 1)))
    for start in {0, n_rows - n_read}:
        rows = one.read(start, start + n_read)
        assert rows.shape == (n_read, row_bytes // DTYPES[one.dtype].itemsize)
        assert rows.dtype == DTYPES[one.dtype]
        assert rows.size == 0 or rows.view("u1").max() <= 255, "every byte can be touched"
    if isinstance(one, FlatTensor):
        assert one.offset + n_rows * row_bytes <= size_bytes or not n_rows * row_bytes
    return n_rows * row_bytes


def safetensors(data: bytes) -> None:
    """Accepted files are covered by their tensors, byte for byte."""
    with mapped(data) as file, suppress(CheckpointError):
        tensors = read_safetensors(file)
        covered = sum(read_rows(one, len(data)) for one in tensors)
        assert covered == len(data) - 8 - int.from_bytes(data[:8], "little")


def pickles(data: bytes) -> None:
    """Whatever a pickle makes is of a few plain kinds, and looking for tensors in it comes to an end."""
    with mapped(data) as file, suppress(CheckpointError):
        value = unpickle(PickleStream(file, 0, len(data)), NAMES, storage_of_id)
        state_dict(value, file.name)


def torch_files(data: bytes) -> None:
    """Accepted files have only tensors that can be read."""
    with mapped(data) as file, suppress(CheckpointError):
        for one in read_torch(file):
            read_rows(one, len(data))


def zip_directories(data: bytes) -> None:
    """Accepted directories list stretches of the file that do not overlap."""
    with mapped(data) as file, suppress(CheckpointError):
        end = 0
        for entry in sorted(read_directory(file).values(), key=lambda entry: entry.offset):
            assert entry.offset >= end
            end = entry.offset + entry.size_bytes
        assert end <= len(data)


def jsons(data: bytes) -> None:
    """Anything is JSON or is refused."""
    for strict in (False, True):
        with suppress(CheckpointError):
            parse_json(data, "fuzz.json", strict=strict)


def gguf_headers(data: bytes) -> None:
    """Accepted headers have tensors inside the file, and can be told as facts and as JSON."""
    with in_memory(data) as fd:
        path = Path(f"/proc/self/fd/{fd}")
        try:
            for arrays in (False, True):
                header = read_header(path, arrays=arrays)
                for tensor in header.tensors:
                    assert header.data_offset + tensor.offset + tensor.size_bytes <= len(data)
                facts_of(header)
                kv_json(header, verbose=arrays)
        except GgufError:
            pass
        finally:
            os.close(fd)


def modelfiles(data: bytes) -> None:
    """What parses can be written, and is the same when it is read again, wherever the language can say it."""
    try:
        commands = parse_modelfile(data)
    except ModelfileError:
        return
    written = format_modelfile(commands)
    if not any('"""' in one.value or one.value.endswith('"') for one in commands):
        assert parse_modelfile(written) == commands
    with suppress(ModelfileError):
        spec_of(commands)


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "safetensors": safetensors,
    "pickles": pickles,
    "torch_files": torch_files,
    "zip_directories": zip_directories,
    "jsons": jsons,
    "gguf_headers": gguf_headers,
    "modelfiles": modelfiles,
}
"""Targets by the name that `atheris_targets.py` takes."""
