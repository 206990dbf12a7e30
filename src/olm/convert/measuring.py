"""Make an importance matrix, blocking: load the model, let it read the text, write the file. For a converting child's thread.

The file is llama.cpp's, with the keys, names and numbers of its `llama-imatrix` (tools/imatrix of the pinned tree);
reading such files is `olm.convert.imatrix`' business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from olm.convert.lazy import constant
from olm.convert.measure_wire import Measured, MeasureEvent, MeasureImportance, MeasureStep
from olm.convert.metadata import Metadata
from olm.convert.model_file import ModelFile, OutTensor
from olm.convert.writer import write_gguf
from olm.errors import CheckpointError, InvalidRequest, OlmError
from olm.native.devices import choose_cpu_variant, plugin_paths
from olm.native.handles import Model, initialize
from olm.native.imatrix import Collector, Gathered
from olm.native.lib import Cancelled
from olm.native.quantize import CancelFlag

__all__ = ["imatrix_file", "measure"]

_N_CTX: Final = 512  # llama-imatrix' chunk
# Chunks smaller than a step of the engine are read side by side.
_STEP_TOKENS: Final = 512
# As llama-imatrix has it: less says nothing about a model.
_FEWEST_CHUNKS: Final = 2

Send = Callable[[MeasureEvent], None]


def measure(request: MeasureImportance, send: Send, cancel: CancelFlag) -> None:
    """Do what `request` says; `send` gets a step after each chunk, and `Measured` at the end.

    Raises:
        InvalidRequest: the text is too short, or a chunk longer than the model's context.
        LoadFailed, NotSupported, NativeError: the model cannot be run.
        DiskFull, StoreError: the disk said no.
        Cancelled: `cancel` was set.
    """
    send(MeasureStep(0, 0))
    with _portable(request):
        variant = choose_cpu_variant()
        initialize(variant.path, plugin_paths() if request.n_gpu_layers else ())
        with Model.load(request.model, options={"n_gpu_layers": request.n_gpu_layers}) as model:
            n_ctx = request.n_ctx or min(_N_CTX, model.info.n_ctx_train)
            tokens = _tokens(model, request, n_ctx)
            gathered = _gather(model, tokens, n_ctx, request, send, cancel)
        if not gathered:
            raise CheckpointError("the model has no weights whose importance could be measured")
        file = imatrix_file(gathered, request.dataset, n_ctx)
        written = write_gguf(file, Path(request.target), n_threads=1, cancel=cancel, digest=True)
    send(Measured(written.sha256, written.size_bytes))


def imatrix_file(gathered: Sequence[Gathered], dataset: str, n_ctx: int) -> ModelFile:
    """The GGUF of an importance matrix, as llama-imatrix lays it out.

    Args:
        dataset: what the text was called; "" for nothing.
        n_ctx: tokens of a chunk.
    """
    meta = Metadata("")
    meta.remove("general.architecture")  # it is no model
    meta.text("general.type", "imatrix")
    meta.texts("imatrix.datasets", [dataset] if dataset else [])
    n_rows = max(int(item.counts.max()) for item in gathered)
    meta.u32("imatrix.chunk_count", n_rows // n_ctx)
    meta.u32("imatrix.chunk_size", n_ctx)
    tensors = []
    for item in gathered:
        # GGUF drops the dimension of a single matrix.
        is_one = len(item.counts) == 1
        sums, counts = (item.sums[0], item.counts) if is_one else (item.sums, item.counts[:, None])
        tensors.append(OutTensor(f"{item.name}.in_sum2", constant(sums), "F32"))
        tensors.append(OutTensor(f"{item.name}.counts", constant(counts), "F32"))
    return ModelFile("model", meta, tensors)


def _tokens(model: Model, request: MeasureImportance, n_ctx: int) -> NDArray[np.int32]:
    """Whole chunks, one after another. A line end at the end of the text does not count, as in llama.cpp's tools."""
    raw = Path(request.text).read_bytes()
    text = raw.removesuffix(b"\n").decode("utf-8", "replace")
    found = model.tokenize(text, add_special=True, parse_special=request.parse_special)
    n_chunks = len(found) // n_ctx
    if n_chunks < _FEWEST_CHUNKS:
        raise InvalidRequest(
            f"the text has {len(found)} tokens, and {_FEWEST_CHUNKS * n_ctx} are needed for chunks of {n_ctx}:"
            " give more text, or smaller chunks"
        )
    wanted = min(request.n_chunks or n_chunks, n_chunks)
    return np.array(found[: wanted * n_ctx], dtype=np.int32)


def _gather(
    model: Model,
    tokens: NDArray[np.int32],
    n_ctx: int,
    request: MeasureImportance,
    send: Send,
    cancel: CancelFlag,
) -> list[Gathered]:
    n_beside = min(max(1, _STEP_TOKENS // n_ctx), len(tokens) // n_ctx)
    step = n_beside * n_ctx
    with Collector(
        model, n_ctx=n_ctx, n_chunks=n_beside, n_threads=request.n_threads, cancel=cancel
    ) as collector:
        send(MeasureStep(0, len(tokens)))
        for start in range(0, len(tokens), step):
            if cancel.is_set:
                raise Cancelled("cancelled", code="CANCELLED")
            part = tokens[start : start + step]
            collector.read(part)
            send(MeasureStep(start + len(part), len(tokens)))
        return list(collector.gathered())


@contextmanager
def _portable(request: MeasureImportance) -> Iterator[None]:
    """Errors that the daemon knows, without the paths of the store."""
    from olm.native.loaded import portable  # imports all that turns need

    try:
        yield
    except Cancelled:
        raise
    except OlmError as exc:
        known = portable(exc)
        text = known.message.replace(request.model, "the model file")
        raise type(known)(text, **known.details) from exc
