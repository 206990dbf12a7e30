"""Wire structs of `/api/store/check`, and how a step of a check becomes a line. The command line reads them, too."""

from __future__ import annotations

import msgspec

from olm.actors.jobs_client import Finding, Progress

__all__ = ["CheckAnswer", "CheckBody", "CheckLine", "FoundObject", "line_of"]


class CheckBody(msgspec.Struct, frozen=True, kw_only=True):
    """`repair` mends what can be mended; `quick` reads no weights."""

    repair: bool | None = None
    quick: bool | None = None
    stream: bool | None = None


class FoundObject(msgspec.Struct, frozen=True, kw_only=True):
    """Something wrong in the store, or in the way.

    `kind`: `damaged`, `missing`, `manifest`, `link` (a model does not work), `orphan`, `partial`, `stray` (only takes room).
    `what`: the blob's digest, the model's name or the file's. `size`: bytes. `repaired`: it is in order now.
    """

    kind: str
    what: str
    detail: str
    models: tuple[str, ...] = ()
    size: int = 0
    repaired: bool = False


class CheckLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of the stream: how far it is, in bytes, or what was found."""

    status: str
    total: int = 0
    completed: int = 0
    finding: FoundObject | None = None


class CheckAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer without a stream."""

    status: str
    findings: list[FoundObject]


def line_of(step: Progress | Finding) -> CheckLine:
    """Write a step of a check as a line."""
    if isinstance(step, Progress):
        return CheckLine(status=step.status, total=step.total, completed=step.completed)
    found = FoundObject(
        kind=step.kind,
        what=step.what,
        detail=step.detail,
        models=tuple(step.models),
        size=step.size_bytes,
        repaired=step.is_repaired,
    )
    return CheckLine(status=f"found {step.kind} {step.what}", finding=found)
