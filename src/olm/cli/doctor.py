"""The `doctor` command: why does it not work? Looks at the surroundings, and through the store.

A running server looks through its own store; without one the command does it itself, under the store's lock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Final, Self

import click

from olm.cli.client import Client, ServerUnreachable
from olm.cli.progress import Bar, Progress
from olm.cli.surroundings import Check, look_around, store_settings
from olm.cli.wire import Json, integer, mapping, text, texts
from olm.errors import NotFound, OlmError
from olm.units import human_bytes

__all__ = ["doctor_command"]

_HARMLESS: Final = frozenset({"orphan", "partial", "stray"})
"""Findings that take room and break no model."""
_SHORT: Final = len("sha256:") + 12


@click.command("doctor", short_help="Check the store and its surroundings")
@click.option("--repair", is_flag=True, help="Mend what can be mended.")
@click.option("--quick", is_flag=True, help="Read no weights: sizes and small files only.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def doctor_command(*, repair: bool, quick: bool, as_json: bool) -> int:
    """Look for what keeps olm from working: settings, folders, the engine, damage in the store.

    The exit status is 1 when something is wrong and was not repaired.
    """
    client = Client()
    checks = look_around(client)
    with _Report() as report:
        try:
            _check_store(client, report, repair=repair, quick=quick)
        except OlmError as exc:
            checks.append(Check("store", "wrong", str(exc)))
    is_well = not report.broken and all(check.state != "wrong" for check in checks)
    if as_json:
        click.echo(json.dumps(_as_json(checks, report, is_well=is_well), ensure_ascii=False))
    else:
        for line in _as_text(checks, report, repair=repair):
            click.echo(line)
    return 0 if is_well else 1


class _Report:
    """What the look through the store gave; shows how far it is on the way."""

    def __init__(self) -> None:
        self.findings: list[Json] = []
        self.notes: list[str] = []
        self.summary = ""
        self._progress = Progress()
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._progress.clear()

    @property
    def broken(self) -> list[Json]:
        """Findings that break a model and are not repaired."""
        return [found for found in self.findings if _is_broken(found)]

    def take(self, line: Json) -> None:
        """Note one line of the check."""
        status, total = text(line, "status"), integer(line, "total")
        if found := mapping(line, "finding"):
            self.findings.append(found)
        elif total:
            if self._bar is None:
                self._bar = self._progress.bar(f"{status}:", total)
            self._progress.advance(self._bar, integer(line, "completed"))
        elif status.startswith("checked "):
            self.summary = status


def _is_broken(found: Json) -> bool:
    return text(found, "kind") not in _HARMLESS and found.get("repaired") is not True


def _check_store(client: Client, report: _Report, *, repair: bool, quick: bool) -> None:
    body: Json = {"repair": repair, "quick": quick}
    try:
        with closing(client.stream("POST", "/api/store/check", body)) as lines:
            for line in lines:
                report.take(line)
        _compare_folders(client, report)
    except (ServerUnreachable, NotFound) as exc:
        if not client.is_local:
            raise
        if isinstance(exc, NotFound):
            report.notes.append("the server is another than olm's; this is the folder as it is")
        _check_here(report, repair=repair, quick=quick)


def _compare_folders(client: Client, report: _Report) -> None:
    """Say so where the server's folder is not the one that the look around told of."""
    folder = report.summary.partition(" in ")[2]
    if client.is_local and folder not in ("", str(store_settings().models)):
        report.notes.append(f"the server's folder is {folder}, not that of this shell's settings")


def _check_here(report: _Report, *, repair: bool, quick: bool) -> None:
    root = store_settings().models
    if not root.is_dir():
        return
    # The actors cost a tenth of a second, which a server that answers saves.
    from olm.actors.jobs_client import CheckRequest
    from olm.cli.check_here import check_here

    note = check_here(root, CheckRequest(repair=repair, quick=quick), report.take)
    report.notes += [note] if note else []


# -- the report ------------------------------------------------------------------------------------------------------


def _as_json(checks: list[Check], report: _Report, *, is_well: bool) -> Json:
    return {
        "ok": is_well,
        "checks": [check._asdict() for check in checks],
        "notes": report.notes,
        "summary": report.summary,
        "findings": report.findings,
    }


def _as_text(checks: list[Check], report: _Report, *, repair: bool) -> Iterator[str]:
    signs = {"ok": " ", "note": "-", "wrong": "!"}
    for check in checks:
        yield f"{signs[check.state]} {check.name:9} {check.text}"
    for note in report.notes:
        yield f"- {'store':9} {note}"
    if report.summary:
        sign = "!" if report.broken else " "
        yield f"{sign} {'store':9} {report.summary}; {_counted(report)}"
    for found in sorted(report.findings, key=_rank):
        yield ""
        yield from _paragraph(found)
    if not repair and any(text(found, "kind") != "partial" for found in report.findings):
        yield ""
        yield "'olm doctor --repair' mends what can be mended."


def _counted(report: _Report) -> str:
    n_broken = len(report.broken)
    n_rest = len(report.findings) - n_broken
    found = [f"{n_broken} broken"] if n_broken else []
    found += [f"{n_rest} other finding{'s' if n_rest > 1 else ''}"] if n_rest else []
    return ", ".join(found) or "all well"


def _rank(found: Json) -> tuple[bool, str, str]:
    return (not _is_broken(found), text(found, "kind"), text(found, "what"))


def _paragraph(found: Json) -> Iterator[str]:
    what = text(found, "what")
    shown = what[:_SHORT] if what.startswith("sha256:") else what
    size = integer(found, "size")
    words = [text(found, "kind"), shown, human_bytes(size) if size else ""]
    needed = ", ".join(texts(found, "models"))
    if needed and needed != what:
        words.append(f"needed by {needed}")
    sign = "!" if _is_broken(found) else "-"
    done = " [repaired]" if found.get("repaired") else ""
    yield f"{sign} {'  '.join(word for word in words if word)}{done}"
    yield f"    {text(found, 'detail')}"
