"""Tensors that are known by two factors only, as a LoRA adapter has them: B @ A, which is never multiplied out.

Architectures rearrange such a tensor like any other (`olm.convert.lazy`), for they never look at values. What they have
done is then read off the readers they made: rows of the product are rows of B, its columns are columns of A.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import attrs
import numpy as np
from numpy.typing import NDArray

from olm.checkpoint.types import RowReader
from olm.convert.lazy import (
    _Beside,
    _Columns,
    _Joined,
    _Mapped,
    _Reshaped,
    _Sliced,
    columns,
    concat,
    map_values,
    reshape,
    stack,
    take,
    widen,
)
from olm.convert.rows import Array, Taken, n_rows, row_length
from olm.convert.transposing import Swapped, transpose
from olm.errors import CheckpointError

__all__ = ["Factors", "Product", "factors_of", "times"]

_PROBES: Final = np.array([[0.0, 1.0, -1.0, 0.25, 3.0, -7.5]], dtype=np.float32)


@attrs.frozen(eq=False)
class Product:
    """B @ A as a tensor of a checkpoint: it has a shape, but no values.

    Attributes:
        name: in the checkpoint.
        a: [rank, columns]; b: [rows, rank].
        scale: what the product is multiplied with.
    """

    name: str
    a: RowReader
    b: RowReader
    scale: float = 1.0
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """[rows, columns]."""
        return (self.b.shape[0], self.a.shape[1])

    def read(self, start: int, stop: int) -> Array:
        """Refuse: raises CheckpointError."""
        raise CheckpointError("this architecture computes with its values, an adapter has factors")


@attrs.frozen(eq=False)
class Factors:
    """What became of products: for each run of rows of `b` its own A.

    Attributes:
        a: one for all rows, or one for each entry of the first dimension (experts); each [rank, columns].
        b: [all rows, rank].
        shape: of the product; rows are all dimensions but the last.
        scale: as in `Product`.
        sources: names of the products in it.
        is_swapped: rows and columns have changed places.
    """

    a: tuple[RowReader, ...]
    b: RowReader
    shape: tuple[int, ...]
    scale: float
    sources: frozenset[str]
    is_swapped: bool = False

    @property
    def rank(self) -> int:
        """Columns of B."""
        return row_length(self.b)

    def pair(self) -> tuple[RowReader, RowReader]:
        """A and B as llama.cpp wants them: [..., rank, columns] and [..., rows, rank], with as many dimensions as the product."""
        outer = len(self.shape) - 2
        a = self.a[0] if len(self.a) == 1 else stack(self.a)
        if len(self.a) == 1 and outer:
            a = reshape(a, (*[1] * outer, *a.shape))
        return a, reshape(self.b, (*self.shape[:-1], self.rank))


def factors_of(reader: RowReader) -> Factors:
    """Read off what an architecture has made of products.

    Raises:
        CheckpointError: something that factors cannot follow.
    """
    match reader:
        case Product():
            source = frozenset((reader.name,))
            return Factors((reader.a,), reader.b, reader.shape, reader.scale, source)
        case Taken():
            return _rows(factors_of(reader.source), reader.index, reader.shape)
        case _Sliced():
            index = np.arange(reader.first, reader.first + n_rows(reader), dtype=np.int64)
            return _rows(factors_of(reader.source), index, reader.shape)
        case _Reshaped():
            return _reshaped(factors_of(reader.source), reader.shape)
        case _Columns():
            inner = factors_of(reader.source)
            a = tuple(columns(part, reader.index) for part in inner.a)
            return attrs.evolve(inner, a=a, shape=reader.shape)
        case Swapped():
            return _swapped(factors_of(reader.source))
        case _Mapped():
            inner = factors_of(reader.source)
            return attrs.evolve(inner, scale=inner.scale * _multiplier(reader.function))
        case _Joined():
            return _joined([factors_of(part) for part in reader.parts], reader.shape)
        case _Beside():
            return _beside([factors_of(part) for part in reader.parts], reader.shape)
    raise CheckpointError("this architecture changes the tensor in a way that an adapter cannot")


def _rows(inner: Factors, index: NDArray[np.int64], shape: tuple[int, ...]) -> Factors:
    b = take(inner.b, index)
    if len(inner.a) == 1 or not len(index):
        return attrs.evolve(inner, b=b, shape=shape)
    groups = index // (n_rows(inner.b) // len(inner.a))
    if shape[-2:-1] == () or len(index) % shape[0]:
        raise CheckpointError("an adapter cannot take rows of experts apart")
    by_entry = groups.reshape(shape[0], -1)
    if (by_entry != by_entry[:, :1]).any():
        raise CheckpointError("an adapter cannot mix the rows of experts")
    return attrs.evolve(inner, a=tuple(inner.a[i] for i in by_entry[:, 0]), b=b, shape=shape)


def _reshaped(inner: Factors, shape: tuple[int, ...]) -> Factors:
    if len(shape) < 2 or shape[-1] != inner.shape[-1]:
        raise CheckpointError(f"an adapter's {inner.shape} cannot become {shape}")
    if len(inner.a) > 1 and shape[0] != len(inner.a):
        raise CheckpointError(f"an adapter of {len(inner.a)} experts cannot become {shape}")
    return attrs.evolve(inner, shape=shape)


def _swapped(inner: Factors) -> Factors:
    """The product the other way round: (B @ A)^T = A^T @ B^T."""
    if len(inner.shape) != 2:
        raise CheckpointError("an adapter of experts or heads cannot be transposed")
    return attrs.evolve(
        inner,
        a=(transpose(inner.b),),
        b=transpose(inner.a[0]),
        shape=inner.shape[::-1],
        is_swapped=not inner.is_swapped,
    )


def _multiplier(function: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None) -> float:
    """What `map_values`' function multiplies with; anything else would not act on a product as on its factors."""
    if function is None:
        return 1.0
    found = np.asarray(function(_PROBES.copy()), dtype=np.float32)
    factor = float(found[0, 1])
    if not np.allclose(found, _PROBES * factor, rtol=1e-6, atol=0):
        raise CheckpointError("this architecture changes values, which an adapter cannot follow")
    return factor


def _same_scale(parts: Sequence[Factors]) -> list[Factors]:
    """All of one scale: where they differ it goes into B."""
    if len({part.scale for part in parts}) == 1:
        return list(parts)
    return [attrs.evolve(part, b=times(part.b, part.scale), scale=1.0) for part in parts]


def times(reader: RowReader, factor: float) -> RowReader:
    """A tensor times a number, f32."""
    return map_values(reader, lambda values: values * np.float32(factor))


def _joined(found: Sequence[Factors], shape: tuple[int, ...]) -> Factors:
    """Under one another: a stack of experts, rows that share their A, or rows that do not."""
    parts = _same_scale(found)
    sources = frozenset().union(*(part.sources for part in parts))
    if any(part.is_swapped for part in parts) and not all(part.is_swapped for part in parts):
        raise CheckpointError("only some of the joined tensors are transposed")
    first = attrs.evolve(parts[0], sources=sources, shape=shape)
    all_a = [a for part in parts for a in part.a]
    if all(a is all_a[0] for a in all_a):
        return attrs.evolve(first, a=(all_a[0],), b=concat([part.b for part in parts]))
    if len(shape) > 2:
        if len(all_a) != shape[0] or len({part.rank for part in parts}) > 1:
            raise CheckpointError("experts of an adapter must have one rank, each its own")
        return attrs.evolve(first, a=tuple(all_a), b=concat([part.b for part in parts]))
    n_columns, start = sum(part.rank for part in parts), 0
    blocks: list[RowReader] = []
    for part in parts:
        blocks.append(_Placed(widen(part.b), n_columns, start))
        start += part.rank
    return attrs.evolve(first, a=(concat(all_a),), b=concat(blocks))


def _beside(found: Sequence[Factors], shape: tuple[int, ...]) -> Factors:
    """Beside one another: columns that share their B."""
    parts = _same_scale(found)
    if any(part.b is not parts[0].b or len(part.a) > 1 for part in parts):
        raise CheckpointError("an adapter's tensors cannot be joined by their columns")
    sources = frozenset().union(*(part.sources for part in parts))
    a = (concat([part.a[0] for part in parts], axis=-1),)
    return attrs.evolve(parts[0], a=a, shape=shape, sources=sources)


@attrs.frozen(eq=False)
class _Placed:
    """A block of B among zeros: its rows know only their own part of the joined A."""

    source: RowReader
    n_columns: int
    first: int
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        return (n_rows(self.source), self.n_columns)

    def read(self, start: int, stop: int) -> Array:
        out = np.zeros((stop - start, self.n_columns), dtype=np.float32)
        out[:, self.first : self.first + row_length(self.source)] = self.source.read(start, stop)
        return out
