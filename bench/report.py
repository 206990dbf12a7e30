"""Turn measurements into numbers for people: medians, pairwise ratios, markdown tables, and their place in the docs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

__all__ = ["DOCS", "Ratio", "markdown_table", "pairwise_ratio", "publish"]

DOCS: Final = Path(__file__).resolve().parents[1] / "docs" / "performance.md"


@attrs.frozen
class Ratio:
    """Median and range of the ratios of the pairs."""

    median: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.lowest:.2f}–{self.highest:.2f})"


def pairwise_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Compare run i of one system with run i of the other: neighbours in time share what the machine was doing."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a markdown table; the first column is text, the others are aligned right."""
    lines = [" | ".join(head), " | ".join(["---", *["---:"] * (len(head) - 1)])]
    lines += [" | ".join(row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def publish(section: str, text: str, path: Path = DOCS) -> None:
    """Replace what stands between `<!-- section -->` and `<!-- /section -->` of a document.

    Raises ValueError when the document has no such place.
    """
    document = path.read_text("utf-8")
    begin, end = f"<!-- {section} -->", f"<!-- /{section} -->"
    before, found, rest = document.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{path}: wanted {begin} … {end}, found no such place")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", "utf-8")
