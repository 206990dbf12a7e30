"""Units as people and Ollama's clients read them: bytes, counts, ages, Go durations, RFC 3339 stamps.

Formats are those of Ollama's `format` and of Go's `time` packages (spec: commit fb30760). Only pure functions; the
clock is an argument.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Final

from olm.errors import InvalidRequest

__all__ = [
    "FOREVER",
    "format_duration",
    "human_bytes",
    "human_number",
    "human_time",
    "parse_bytes",
    "parse_duration",
    "parse_keep_alive",
    "rfc3339",
]

FOREVER: Final = math.inf
"""A keep-alive without end, in seconds."""

_UNIT_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART: Final = re.compile(r"(\d*\.?\d*)([a-zµμ]*)", re.IGNORECASE)
_MAX_NS: Final = (1 << 63) - 1


def parse_duration(text: str) -> float:
    """Read a Go duration (`1h30m`, `-1m`, `250ms`, `0`) as seconds.

    Raises:
        InvalidRequest: with Go's own words (`time: missing unit in duration "5"`), which clients show.
    """
    rest, sign = text, 1
    if rest[:1] in "+-" and rest:
        sign = -1 if rest[0] == "-" else 1
        rest = rest[1:]
    if rest == "0":
        return 0.0
    total_ns = 0.0
    if not rest:
        raise InvalidRequest(f'time: invalid duration "{text}"')
    while rest:
        match = _PART.match(rest)
        assert match is not None, "every part of the pattern is optional"
        number, unit = match.groups()
        if number in ("", "."):
            raise InvalidRequest(f'time: invalid duration "{text}"')
        if not unit:
            raise InvalidRequest(f'time: missing unit in duration "{text}"')
        if unit not in _UNIT_NS:
            raise InvalidRequest(f'time: unknown unit "{unit}" in duration "{text}"')
        total_ns += float(number) * _UNIT_NS[unit]
        rest = rest[match.end() :]
    if total_ns > _MAX_NS:
        raise InvalidRequest(f'time: invalid duration "{text}"')
    return sign * total_ns / 1e9


_GO_TYPES: Final = {bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}


def parse_keep_alive(value: object) -> float | None:
    """Read a `keep_alive` of a request: seconds, `FOREVER` for anything negative, None when absent.

    Numbers are seconds, strings Go durations (Ollama `api.Duration`).

    Raises:
        InvalidRequest: another JSON type, or a string without a unit.
    """
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str):
        seconds = parse_duration(value)
    else:
        raise InvalidRequest(
            f"Unsupported type: '{_GO_TYPES.get(type(value), type(value).__name__)}'"
        )
    if math.isnan(seconds):
        raise InvalidRequest("keep_alive must be a number of seconds or a duration")
    return FOREVER if seconds < 0 else seconds


def format_duration(seconds: float) -> str:
    """Write seconds as Go's `Duration.String` does: `5m0s`, `1h30m0s`, `1.5s`, `250ms`, `0s`."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    ns = round(seconds * 1e9)
    if ns == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if ns < size * 1_000:
            return f"{_trim(ns / size)}{unit}"
    minutes, rest_ns = divmod(ns, _UNIT_NS["m"])
    text = f"{_trim(rest_ns / 1e9)}s"
    if minutes == 0:
        return text
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"


def _trim(value: float) -> str:
    """Nine digits at most, no trailing zeros: 1.5, 90, 0.25."""
    return f"{value:.9f}".rstrip("0").rstrip(".")


def human_bytes(size_bytes: int) -> str:
    """Write a size with decimal units: `999 B`, `1.5 KB`, `12 GB` (Ollama `format.HumanBytes`)."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size_bytes >= size:
            value = size_bytes / size
            if value >= 10:
                return f"{int(value)} {unit}"
            if value != math.trunc(value):
                return f"{value:.1f} {unit}"
            return f"{int(value)} {unit}"
    return f"{size_bytes} B"


_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?))?B?", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """Read a size in bytes: `1500`, `10MB` (decimal, as `human_bytes` writes it), `1.5 GiB`. Raises InvalidRequest."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidRequest(
            f"invalid size {text!a}: a number of bytes, or one with KB, MB, GB, MiB, ..."
        )
    number, prefix, binary = match.groups()
    power = " KMGT".index(prefix.upper()) if prefix else 0
    return int(float(number) * (1024 if binary else 1000) ** power)


def human_number(count: int) -> str:
    """Write a count of parameters: `7B`, `1.2B`, `500.50M`, `1K` (Ollama `format.HumanNumber`)."""
    if count >= 10**9:
        value = count / 10**9
        return f"{value:.0f}B" if value == math.floor(value) else f"{value:.1f}B"
    if count >= 10**6:
        value = count / 10**6
        return f"{value:.0f}M" if value == math.floor(value) else f"{value:.2f}M"
    if count >= 10**3:
        return f"{count / 10**3:.0f}K"
    return str(count)


_AGES: Final = (  # (below this many seconds, singular text, seconds a unit, unit)
    (2 * 3600, "About an hour", 3600, "hours"),
    (48 * 3600, "", 3600, "hours"),
    (14 * 86400, "", 86400, "days"),
    (60 * 86400, "", 7 * 86400, "weeks"),
    (2 * 365 * 86400, "", 30 * 86400, "months"),
)


def human_time(seconds_ahead: float) -> str:
    """Write how far a moment is away: `3 days ago`, `4 minutes from now` (Ollama `format.HumanTime`).

    Args:
        seconds_ahead: positive for the future, negative for the past.
    """
    suffix = " from now" if seconds_ahead > 0 else " ago"
    return _age(abs(seconds_ahead)) + suffix


def _age(seconds: float) -> str:
    if seconds < 1:
        return "Less than a second"
    if seconds < 2:
        return "1 second"
    if seconds < 60:
        return f"{int(seconds)} seconds"
    if seconds < 120:
        return "About a minute"
    if seconds < 3600:
        return f"{int(seconds // 60)} minutes"
    for below, singular, unit_s, unit in _AGES:
        if seconds < below:
            return singular or f"{int(seconds // unit_s)} {unit}"
    return f"{int(seconds // (365 * 86400))} years"


def rfc3339(epoch_ns: int, *, local: bool = False) -> str:
    """Write a time as Go's RFC3339Nano: UTC with `Z`, or the local offset; trailing zeros of the fraction dropped.

    Args:
        epoch_ns: nanoseconds since 1970 UTC.
        local: use the machine's time zone, as Ollama does for `modified_at` and `expires_at`.
    """
    seconds, ns = divmod(epoch_ns, 10**9)
    moment = datetime.fromtimestamp(seconds, UTC)
    if local:
        moment = moment.astimezone()
    fraction = f".{ns:09d}".rstrip("0").rstrip(".")
    offset = moment.strftime("%z")
    zone = "Z" if not offset or offset == "+0000" else f"{offset[:3]}:{offset[3:5]}"
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + fraction + zone
