"""What the commands print: rows of `list` and `ps`, the sections of `show`, the statistics of `--verbose`. Pure.

Layouts, units and words are Ollama's (spec §3, commit fb30760); the clock is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

from olm.cli.text import table
from olm.cli.wire import Json, children, integer, mapping, number, text, texts
from olm.units import format_duration, human_bytes, human_number, human_time

__all__ = ["list_view", "processor", "ps_view", "show_view", "statistics", "until"]

FOREVER_S: Final = 20 * 365 * 86400.0
SHORT_ID: Final = 12
LONG_TEXT_WIDTH: Final = 100
HEAD_LINES: Final = 2
ARRAY_WIDTH: Final = 10


def _seconds_ahead(stamp: str, now: datetime) -> float | None:
    """How far an RFC 3339 stamp lies in the future; None for Go's zero time and what cannot be read."""
    try:
        moment = datetime.fromisoformat(stamp)
    except ValueError:
        return None
    if moment.year == 1:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - now).total_seconds()


def _matching(models: Iterable[Json], prefix: str) -> Iterator[Json]:
    return (model for model in models if text(model, "name").lower().startswith(prefix.lower()))


def list_view(tags: Json, prefix: str, now: datetime) -> list[str]:
    """The table of `olm list` out of an answer of /api/tags."""
    rows = [["NAME", "ID", "SIZE", "MODIFIED"]]
    for model in _matching(children(tags, "models"), prefix):
        ahead = _seconds_ahead(text(model, "modified_at"), now)
        rows.append(
            [
                text(model, "name"),
                text(model, "digest")[:SHORT_ID],
                "-" if text(model, "remote_model") else human_bytes(integer(model, "size")),
                "Never" if ahead is None else human_time(ahead),
            ]
        )
    return table(rows)


def processor(size_bytes: int, gpu_bytes: int) -> str:
    """Where a loaded model lies: `100% CPU`, `100% GPU`, `48%/52% CPU/GPU`, `Unknown`."""
    if gpu_bytes == 0:
        return "100% CPU"
    if gpu_bytes == size_bytes:
        return "100% GPU"
    if gpu_bytes > size_bytes:
        return "Unknown"
    on_cpu = int((size_bytes - gpu_bytes) / size_bytes * 100 + 0.5)
    return f"{on_cpu}%/{100 - on_cpu}% CPU/GPU"


def until(stamp: str, now: datetime) -> str:
    """When a loaded model goes: `4 minutes from now`, `Forever`, `Stopping...`."""
    ahead = _seconds_ahead(stamp, now)
    if ahead is None:
        return "Never"
    if ahead > FOREVER_S:
        return "Forever"
    return human_time(ahead) if ahead > 0 else "Stopping..."


def ps_view(loaded: Json, prefix: str, now: datetime) -> list[str]:
    """The table of `olm ps` out of an answer of /api/ps."""
    rows = [["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]]
    rows += [
        [
            text(model, "name"),
            text(model, "digest")[:SHORT_ID],
            human_bytes(integer(model, "size")),
            processor(integer(model, "size"), integer(model, "size_vram")),
            str(integer(model, "context_length")),
            until(text(model, "expires_at"), now),
        ]
        for model in _matching(children(loaded, "models"), prefix)
    ]
    return table(rows)


def show_view(shown: Json, *, verbose: bool = False) -> list[str]:
    """The sections of `olm show` out of an answer of /api/show."""
    sections = [
        ("Model", _model_rows(shown)),
        ("Capabilities", [[name] for name in texts(shown, "capabilities")]),
        ("Projector", _projector_rows(mapping(shown, "projector_info"))),
        ("Parameters", _parameter_rows(text(shown, "parameters"))),
    ]
    if verbose:
        sections += [
            ("Metadata", _metadata_rows(mapping(shown, "model_info"))),
            ("Tensors", _tensor_rows(children(shown, "tensors"))),
        ]
    sections += [
        ("System", _head_rows(text(shown, "system"))),
        ("License", _head_rows(text(shown, "license"))),
    ]
    out: list[str] = []
    for title, rows in sections:
        if rows:
            out += [f"  {title}", *table(["", *row] for row in rows), ""]
    return out


def _model_rows(shown: Json) -> list[list[str]]:
    info, details = mapping(shown, "model_info"), mapping(shown, "details")
    arch = text(info, "general.architecture")
    n_parameters = integer(info, "general.parameter_count")
    rows = [
        ["architecture", arch or text(details, "family")],
        [
            "parameters",
            human_number(n_parameters) if n_parameters else text(details, "parameter_size"),
        ],
    ]
    for label, key in (
        ("context length", "context_length"),
        ("embedding length", "embedding_length"),
    ):
        if count := integer(info, f"{arch}.{key}") or integer(details, key):
            rows.append([label, str(count)])
    rows.append(["quantization", text(details, "quantization_level")])
    if requires := text(shown, "requires"):
        rows.append(["requires", requires])
    rows += [["linked to", str(path)] for path in mapping(shown, "links").values()]
    return [row for row in rows if row[1]]


def _projector_rows(info: Json) -> list[list[str]]:
    arch = text(info, "general.architecture")
    rows = [["architecture", arch]] if arch else []
    if n_parameters := integer(info, "general.parameter_count"):
        rows.append(["parameters", human_number(n_parameters)])
    for label, key in (
        ("embedding length", "embedding_length"),
        ("dimensions", "projection_dim"),
    ):
        counts = (integer(info, f"{arch}.{modality}.{key}") for modality in ("vision", "audio"))
        if count := next(filter(None, counts), 0):
            rows.append([label, str(count)])
    return rows


def _parameter_rows(parameters: str) -> list[list[str]]:
    return [line.split(maxsplit=1) for line in parameters.splitlines() if line.strip()]


def _metadata_rows(info: Json) -> list[list[str]]:
    return [[key, _metadata_value(info[key])] for key in sorted(info)]


def _metadata_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return _array(value)
    return "<nil>" if value is None else type(value).__name__


def _array(values: list[object]) -> str:
    """The first items that fit a narrow column, then how many more there are."""
    shown: list[str] = []
    width = 1
    for value in values:
        item = _metadata_value(value)
        width += len(item) + (2 if shown else 0)
        if shown and width > ARRAY_WIDTH:
            break
        shown.append(item)
    more = len(values) - len(shown)
    return f"[{' '.join(shown)}{f' ...+{more} more' if more else ''}]"


def _tensor_rows(tensors: list[Json]) -> list[list[str]]:
    return [
        [text(tensor, "name"), text(tensor, "type"), _shape(tensor.get("shape"))]
        for tensor in tensors
    ]


def _shape(shape: object) -> str:
    return f"[{' '.join(str(size) for size in shape)}]" if isinstance(shape, list) else ""


def _head_rows(value: str) -> list[list[str]]:
    """The first two non-blank lines, wrapped, then `...` if there is more."""
    import textwrap

    filled = [line.strip() for line in value.splitlines() if line.strip()]
    rows = [[part] for line in filled[:HEAD_LINES] for part in textwrap.wrap(line, LONG_TEXT_WIDTH)]
    return [*rows, ["..."]] if len(filled) > HEAD_LINES else rows


def statistics(final: Json) -> list[str]:
    """The lines of `--verbose` out of the last event of a stream; what was not measured is left out."""
    out: list[str] = []

    def line(label: str, value: str) -> None:
        out.append(f"{label:<22}{value}")

    if total_ns := number(final, "total_duration"):
        line("total duration:", format_duration(total_ns / 1e9))
    if load_ns := number(final, "load_duration"):
        line("load duration:", format_duration(load_ns / 1e9))
    for name in ("prompt eval", "eval"):
        key = name.replace(" ", "_")
        count, taken_ns = integer(final, f"{key}_count"), number(final, f"{key}_duration")
        if count:
            line(f"{name} count:", f"{count} token(s)")
        if taken_ns:
            line(f"{name} duration:", format_duration(taken_ns / 1e9))
            line(f"{name} rate:", f"{count / (taken_ns / 1e9):.2f} tokens/s")
    if final.get("truncated") is True:
        line("prompt truncated:", "yes")
    return out
