"""What becomes a GGUF: its metadata, and its tensors with the types they are to have. Values only.

`olm.convert.architecture` makes one from a checkpoint, `olm.convert.gguf_source` from another GGUF, `olm.convert.quantize` changes
types, `olm.convert.writer` writes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import attrs

from olm.checkpoint.types import RowReader
from olm.convert.metadata import Metadata

__all__ = ["ModelFile", "OutTensor"]


@attrs.frozen
class OutTensor:
    """One tensor of a GGUF to be.

    Attributes:
        name: in the GGUF.
        reader: its values, in numpy's order of dimensions.
        type_name: the ggml type it is written in.
    """

    name: str
    reader: RowReader
    type_name: str

    @property
    def n_elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.reader.shape)


@attrs.frozen
class ModelFile:
    """A whole GGUF to be.

    Attributes:
        kind: what it is for: a `projector` lies beside its `model`.
        n_f8: tensors that were 8-bit floats in the checkpoint.
        notes: sentences for the user: what could not be carried over exactly.
    """

    kind: Literal["model", "projector", "adapter"]
    metadata: Metadata
    tensors: Sequence[OutTensor]
    n_f8: int = 0
    notes: Sequence[str] = ()

    @property
    def n_elements(self) -> int:
        """Parameters of the model."""
        return sum(tensor.n_elements for tensor in self.tensors)
