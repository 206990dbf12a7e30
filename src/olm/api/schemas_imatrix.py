"""Wire structs of `/api/imatrix`."""

from __future__ import annotations

import msgspec

__all__ = ["ImatrixBody", "ImatrixLine"]


class ImatrixBody(msgspec.Struct, frozen=True, kw_only=True):
    """`model` reads `text`, in chunks of `ctx` tokens (512), `chunks` of them at most (all).

    `dataset` is what the file says of the text. `parse_special`: special tokens written in the text are such.
    `num_thread`, `num_gpu`: threads, and layers that a GPU computes (none).
    """

    model: str | None = None
    text: str | None = None
    dataset: str | None = None
    ctx: int | None = None
    chunks: int | None = None
    parse_special: bool | None = None
    num_thread: int | None = None
    num_gpu: int | None = None
    stream: bool | None = None


class ImatrixLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of the stream: how far it is, in tokens; then the file, in base64; at the end its digest and its size."""

    status: str
    total: int = 0
    completed: int = 0
    data: bytes = b""
    digest: str = ""
