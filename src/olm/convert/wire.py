"""Messages between the daemon and a converting child: what to make of which files, how far it is, what came out.

Values only, and no numpy: the daemon imports this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from olm.actors.runtime import StreamMessage

__all__ = ["Convert", "ConvertEvent", "ConvertStep", "Converted", "Kind", "Quantization"]

Kind = Literal["model", "projector", "adapter"]


class Quantization(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the model is quantized to; `olm.convert.recipe.Recipe` says what the fields mean.

    Attributes:
        overrides: (regular expression, tensor type).
        imatrix: path of an importance matrix; "" for none.
        imatrix_name: what the new file says of it, instead of the path's name: blobs have none.
    """

    file_type: str
    overrides: Sequence[tuple[str, str]] = ()
    output_type: str = ""
    embedding_type: str = ""
    pure: bool = False
    keep_output: bool = False
    allow_requantize: bool = False
    imatrix: str = ""
    imatrix_name: str = ""


class ConvertStep(msgspec.Struct, frozen=True, tag="step"):
    """How far one file is: bytes written, and bytes in all (0 while it is being planned)."""

    kind: Kind
    completed: int
    total: int


class Converted(msgspec.Struct, frozen=True, tag="converted"):
    """A file is whole, at the place that was asked for; it is not flushed. `notes` are sentences for the user."""

    kind: Kind
    path: str
    sha256: str
    size_bytes: int
    notes: tuple[str, ...] = ()


ConvertEvent = ConvertStep | Converted


class Convert(StreamMessage[ConvertEvent], frozen=True, kw_only=True, omit_defaults=True):
    """Make GGUF files of a checkpoint or of a GGUF. Closing the stream stops the work.

    Attributes:
        files: a checkpoint: name in its folder -> path of the file, which may be a blob.
        ggufs: instead, a GGUF, or all parts of a split one in order.
        base: when the checkpoint is an adapter, the GGUF it is for; of a split one the first part.
        target: where the model goes; a projector goes beside it (`job.projector_path`).
        name: `general.name` of what a checkpoint becomes.
        quantization: None keeps the types: a GGUF's as they are, a checkpoint's 16 bits (Q8_0 for 8-bit floats).
        n_threads: 0 for one for each CPU.
    """

    target: str
    files: Mapping[str, str] = {}
    ggufs: Sequence[str] = ()
    base: str = ""
    name: str = ""
    quantization: Quantization | None = None
    n_threads: int = 0
