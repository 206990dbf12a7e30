"""Gather an importance matrix: a loaded model reads chunks of tokens, and what its weights are multiplied with is summed up.

Only for converting processes; the functions behind it are in `native/decl/imatrix.h`. Files of it are `olm.convert`'s business.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import msgspec
import numpy as np
from numpy.typing import NDArray

from olm.native.handles import Handle, Model
from olm.native.lib import check, ffi, lib, new_pointer, take_text
from olm.native.quantize import CancelFlag

__all__ = ["Collector", "Gathered"]


@attrs.frozen
class Gathered:
    """What was gathered for one weight.

    Attributes:
        name: the tensor's.
        sums: of squares, [n_counts, columns] f32; of a weight of several matrices with one count, all their columns in one row.
        counts: rows that were summed, [n_counts] f32: one, or one for each expert.
    """

    name: str
    sums: NDArray[np.float32]
    counts: NDArray[np.float32]


class _Entry(msgspec.Struct, frozen=True):
    name: str
    n_values: int
    n_counts: int


class Collector(Handle):
    """A context of its own over a model, which it keeps alive. For one thread at a time."""

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int,
        n_chunks: int = 1,
        n_threads: int = 0,
        cancel: CancelFlag | None = None,
    ) -> None:
        """Make the context.

        Args:
            n_ctx: tokens of a chunk, 16 or more.
            n_chunks: how many of them `read` takes at most.
            n_threads: 0 for the physical cores.

        Raises:
            InvalidArgument: `n_ctx` is more than the model was trained for.
            ContextFailed: there is no memory for it.
            Unsupported: the model is an encoder with a decoder.
        """
        self._cancel = cancel or CancelFlag()  # lent to C: it lives as long as this object
        out = new_pointer("olm_imatrix **")
        options = {"n_ctx": n_ctx, "n_chunks": n_chunks, "n_threads": n_threads}
        flag = ffi.from_buffer("int32_t[]", self._cancel.memory)
        check(lib.olm_imatrix_new(model.pointer, msgspec.json.encode(options), flag, out))
        self._flag = flag
        super().__init__(out[0], lib.olm_imatrix_free, "an importance matrix")

    def read(self, tokens: NDArray[np.int32]) -> None:
        """Let the model read whole chunks. Blocks, without Python's lock.

        Raises:
            Cancelled: the flag was set.
            DecodeFailed: the model computes numbers that are not finite. Nothing may be read afterwards.
        """
        ids = np.ascontiguousarray(tokens, dtype=np.int32)  # held until the call returns
        check(lib.olm_imatrix_read(self.pointer, ffi.from_buffer("int32_t[]", ids), len(ids)))

    def gathered(self) -> Iterator[Gathered]:
        """What there is by now, sorted by name."""
        text = take_text(lambda out: lib.olm_imatrix_entries_json(self.pointer, out))
        for entry in msgspec.json.decode(text, type=list[_Entry]):
            sums = np.empty(entry.n_values, dtype=np.float32)
            counts = np.empty(entry.n_counts, dtype=np.float32)
            check(
                lib.olm_imatrix_entry(
                    self.pointer,
                    entry.name.encode(),
                    ffi.from_buffer("float[]", sums),
                    ffi.from_buffer("float[]", counts),
                )
            )
            yield Gathered(entry.name, sums.reshape(entry.n_counts, -1), counts)
