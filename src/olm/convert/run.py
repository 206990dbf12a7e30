"""A whole conversion, blocking: open the source, plan, quantize, write. What a converting child does in a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from olm.checkpoint.folder import open_files
from olm.convert.architecture import Options, convert_checkpoint
from olm.convert.gguf_source import GgufSource
from olm.convert.imatrix import ImportanceMatrix, read_imatrix
from olm.convert.job import projector_path
from olm.convert.lora import is_adapter, plan_adapter
from olm.convert.model_file import ModelFile
from olm.convert.output_types import with_file_type
from olm.convert.quantize import importance, quantized
from olm.convert.recipe import Recipe, TypeOverride
from olm.convert.verify import verify
from olm.convert.wire import Convert, Converted, ConvertEvent, ConvertStep, Kind, Quantization
from olm.convert.writer import write_gguf
from olm.errors import CheckpointError
from olm.gguf import read_header
from olm.native.quantize import CancelFlag

__all__ = ["convert"]

# File types that a checkpoint is written in directly: no recipe chooses types then.
_PLAIN: Final = ("F32", "F16", "BF16")
_OF_F8: Final = "Q8_0"

Send = Callable[[ConvertEvent], None]


def convert(request: Convert, send: Send, cancel: CancelFlag) -> None:
    """Do what `request` says; `send` gets a step after each chunk, and a `Converted` after each file.

    Raises:
        CheckpointError, GgufError, InvalidRequest: the source cannot be converted so; names file and tensor.
        DiskFull, StoreError: the disk said no.
        Cancelled: `cancel` was set.
    """
    send(ConvertStep("model", 0, 0))
    with _planned(request) as files:
        _check_kinds(files)
        for file in files:
            if (
                file.kind == "model" and not request.ggufs
            ):  # a GGUF has been loaded before, or never will be
                verify(file, Path(request.target))
            _write(file, request, send, cancel)


@contextmanager
def _planned(request: Convert) -> Iterator[Sequence[ModelFile]]:
    wanted = request.quantization
    if request.ggufs:
        with GgufSource([Path(path) for path in request.ggufs]) as source:
            yield [_quantized(source.file, wanted)]
        return
    paths = {name: Path(path).resolve() for name, path in request.files.items()}
    plain = wanted.file_type.upper() if wanted is not None else "auto"
    is_plain = plain in ("AUTO", *_PLAIN) or wanted is None
    options = Options(plain if is_plain else "auto", request.name)
    with open_files(paths) as checkpoint:
        if is_adapter(checkpoint.names):
            base = read_header(Path(request.base).resolve()) if request.base else None
            yield [plan_adapter(checkpoint, base, Options("F32", request.name))]
            return
        files = convert_checkpoint(checkpoint, options)
        if files[0].metadata.get("tokenizer.ggml.model") in (None, "none"):
            raise CheckpointError(
                "no tokenizer among the files: wanted tokenizer.json, tokenizer.model, vocab.json or vocab.txt"
            )
        if wanted is None and files[0].n_f8:
            wanted, is_plain = Quantization(file_type=_OF_F8), False
        files = tuple(with_file_type(file) for file in files)
        yield files if is_plain else [_quantized(file, wanted) for file in files]


def _quantized(file: ModelFile, wanted: Quantization | None) -> ModelFile:
    """Only models are quantized; what lies beside them is small and wants its precision."""
    if wanted is None or file.kind != "model":
        return file
    return quantized(file, _recipe(wanted), _imatrix(wanted))


def _imatrix(wanted: Quantization) -> ImportanceMatrix | None:
    if not wanted.imatrix:
        return None
    return read_imatrix(Path(wanted.imatrix).resolve(), wanted.imatrix_name)


def _recipe(wanted: Quantization) -> Recipe:
    return Recipe(
        file_type=wanted.file_type,
        overrides=tuple(TypeOverride(pattern, name) for pattern, name in wanted.overrides),
        output_type=wanted.output_type,
        embedding_type=wanted.embedding_type,
        pure=wanted.pure,
        keep_output=wanted.keep_output,
        allow_requantize=wanted.allow_requantize,
    )


def _check_kinds(files: Sequence[ModelFile]) -> None:
    kinds = [file.kind for file in files]
    if len(set(kinds)) != len(kinds):
        raise CheckpointError(f"the checkpoint became files of the same kind: {', '.join(kinds)}")


def _write(file: ModelFile, request: Convert, send: Send, cancel: CancelFlag) -> None:
    path = Path(request.target)
    if file.kind == "projector" and not request.ggufs:
        path = projector_path(path)
    wanted = request.quantization
    imatrix = None if wanted is None or file.kind != "model" else _imatrix(wanted)
    weights = importance(file.tensors, imatrix) if imatrix is not None else None
    written = write_gguf(
        file,
        path,
        n_threads=request.n_threads,
        imatrix=weights,
        progress=partial(_step, send, file.kind),
        cancel=cancel,
        digest=True,
    )
    send(Converted(file.kind, str(path), written.sha256, written.size_bytes, tuple(file.notes)))


def _step(send: Send, kind: Kind, completed: int, total: int) -> None:
    send(ConvertStep(kind, completed, total))
