"""Messages between the daemon and a child that makes an importance matrix. Values only, and no numpy: the daemon imports this."""

from __future__ import annotations

import msgspec

from olm.actors.runtime import StreamMessage

__all__ = ["MeasureEvent", "MeasureImportance", "MeasureStep", "Measured"]


class MeasureStep(msgspec.Struct, frozen=True, tag="step"):
    """How far the text is read: tokens, and tokens in all (0 while the model is loaded)."""

    completed: int
    total: int


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    """The file is whole; it is not flushed."""

    sha256: str
    size_bytes: int


MeasureEvent = MeasureStep | Measured


class MeasureImportance(StreamMessage[MeasureEvent], frozen=True, kw_only=True, omit_defaults=True):
    """Let a model read a text and write how much each column of its weights matters. Closing the stream stops the work.

    Attributes:
        model: path of its weights.
        text: path of the text, UTF-8.
        target: where the file goes.
        dataset: what the file says the text was.
        n_ctx: tokens of a chunk; 0 for 512, or what the model can if that is less.
        n_chunks: chunks read at most; 0 for all.
        parse_special: special tokens written in the text are such.
        n_threads: 0 for the physical cores.
        n_gpu_layers: layers computed by a GPU; 0 leaves GPUs alone.
    """

    model: str
    text: str
    target: str
    dataset: str = ""
    n_ctx: int = 0
    n_chunks: int = 0
    parse_special: bool = False
    n_threads: int = 0
    n_gpu_layers: int = 0
