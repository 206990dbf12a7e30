"""What can be wrong with a store, as values: problems, what mends them, and what is still to be read.

How they are found is in `check` and `leftovers`, how they are mended in `mend`.
"""

from __future__ import annotations

from typing import Final, Literal

import attrs

from olm.store.names import Digest

__all__ = [
    "Kind",
    "Mend",
    "Problem",
    "Prune",
    "Remove",
    "Restore",
    "SetAside",
    "Survey",
    "Suspect",
    "age_text",
    "printable",
]

Kind = Literal["damaged", "missing", "orphan", "partial", "manifest", "link", "stray"]
_DAY_S: Final = 86400.0


@attrs.frozen
class SetAside:
    """Take a damaged blob out of the way, if it still is the file that was read."""

    digest: Digest
    inode: int


@attrs.frozen
class Prune:
    """Remove a blob that no manifest and no job needs."""

    digest: Digest


@attrs.frozen
class Remove:
    """Remove a leftover, named from the store's folder, if it is still as old as it has to be."""

    path: str
    min_age_s: float


@attrs.frozen
class Restore:
    """Put the built-in model's own blob back."""

    digest: Digest
    size_bytes: int


Mend = SetAside | Prune | Remove | Restore


@attrs.frozen(kw_only=True)
class Problem:
    """Something wrong, or in the way; fields as those of `olm.actors.jobs_client.Finding`.

    Attributes:
        detail: what is wrong; `advice`: what the user can do while it is.
        mend: what would put it in order; None where only the user can.
    """

    kind: Kind
    what: str
    detail: str
    advice: str = ""
    models: tuple[str, ...] = ()
    size_bytes: int = 0
    mend: Mend | None = None


@attrs.frozen
class Suspect:
    """A blob that models need and that is there: to be read.

    Attributes:
        size_bytes: as it is now; `wanted_bytes` as manifests say.
        models: those that need it, in their shortest form.
        advice: how the user gets it again.
    """

    digest: Digest
    size_bytes: int
    wanted_bytes: int
    models: tuple[str, ...]
    advice: str


@attrs.frozen
class Survey:
    """What the folders say. `suspects` come largest first, so that threads end about together."""

    problems: tuple[Problem, ...]
    suspects: tuple[Suspect, ...]
    n_models: int


def age_text(seconds: float) -> str:
    """How old something is, roughly: `5 minutes`, `30 hours`, `12 days`."""
    if seconds >= 2 * _DAY_S:
        return f"{seconds / _DAY_S:.0f} days"
    return (
        f"{max(seconds, 0) / 3600:.0f} hours"
        if seconds >= 7200
        else f"{max(seconds, 0) / 60:.0f} minutes"
    )


def printable(path: str) -> str:
    """A file name as one line of text, whatever somebody called it."""
    return path.encode("utf-8", "backslashreplace").decode() if path.isprintable() else ascii(path)
