"""Which bytes of a blob are here, which are to be fetched, and how that is remembered. Pure.

The record beside a partial download has the shape of Ollama's own (`server/download.go`, `jsonBlobDownloadPart`), one
part over the whole blob, with the bytes from the beginning as its progress, and one more field for what lies behind
a gap. So each of the two programs resumes what the other began.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

import msgspec

__all__ = ["Coverage", "backoff_s", "decode_record", "encode_record", "split"]

Span = tuple[int, int]
"""Bytes from the first up to, but without, the second."""

_MAX_WAIT_S = 32.0


class Coverage:
    """The bytes of one blob that are on disk: sorted spans that do not touch each other."""

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._spans: list[Span] = []
        for start, end in spans:
            self.add(start, end)

    @property
    def spans(self) -> tuple[Span, ...]:
        """All spans, in order."""
        return tuple(self._spans)

    @property
    def n_bytes(self) -> int:
        """How many bytes are here."""
        return sum(end - start for start, end in self._spans)

    @property
    def frontier(self) -> int:
        """How many bytes are here from the beginning, without a gap."""
        return self._spans[0][1] if self._spans and self._spans[0][0] == 0 else 0

    def add(self, start: int, end: int) -> None:
        """Note a span. It may overlap what is here."""
        if start >= end:
            return
        first = bisect_left(self._spans, start, key=lambda span: span[1])
        last = bisect_right(self._spans, end, key=lambda span: span[0])
        touched = self._spans[first:last]
        if touched:
            start, end = min(start, touched[0][0]), max(end, touched[-1][1])
        self._spans[first:last] = [(start, end)]

    def gaps(self, size_bytes: int) -> Iterator[Span]:
        """What is missing of a blob, in order."""
        at = 0
        for start, end in self._spans:
            if at < start:
                yield at, start
            at = end
        if at < size_bytes:
            yield at, size_bytes


def split(spans: Iterable[Span], part_bytes: int) -> Iterator[Span]:
    """Cut spans into parts of at most `part_bytes`, in order, so that what is fetched first is at the beginning."""
    for start, end in spans:
        for at in range(start, end, part_bytes):
            yield at, min(at + part_bytes, end)


class _Record(msgspec.Struct):
    number: int = msgspec.field(name="N", default=0)
    offset: int = msgspec.field(name="Offset", default=0)
    size: int = msgspec.field(name="Size", default=0)
    completed: int = msgspec.field(name="Completed", default=0)
    spans: list[Span] = msgspec.field(name="olm", default_factory=list)


def encode_record(coverage: Coverage, size_bytes: int) -> bytes:
    """Write the record of a partial download."""
    record = _Record(0, 0, size_bytes, coverage.frontier, list(coverage.spans))
    return msgspec.json.encode(record)


def decode_record(data: bytes, size_bytes: int) -> tuple[Span, ...]:
    """Read one record, of olm or of Ollama; what makes no sense gives nothing, and is then fetched again."""
    try:
        record = msgspec.json.decode(data, type=_Record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ()
    # Ollama notes how far the part has come; of ours that is the first span.
    spans = [*record.spans, (record.offset, record.offset + min(record.completed, record.size))]
    return tuple((start, end) for start, end in spans if 0 <= start < end <= size_bytes)


def backoff_s(n_failures: int, jitter_frac: float, first_s: float) -> float:
    """How long to wait after the n-th failure in a row (from 1): twice as long each time, between 50 and 100 %."""
    longest: float = min(first_s * 2.0 ** (n_failures - 1), _MAX_WAIT_S)
    return longest * (0.5 + jitter_frac / 2)
