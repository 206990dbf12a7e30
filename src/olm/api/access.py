"""The access log: one line a request, written when it has ended. What was counted for it comes with the call."""

from __future__ import annotations

import logging
from typing import Final

import trio

from olm.api.gate import Call, Usage
from olm.log import get_logger

__all__ = ["log_access"]

_PROBES: Final = frozenset({"/health", "/v1/health", "/ready", "/metrics"})
"""Asked every few seconds by machines; a good answer to them is news only to who debugs."""

_log = get_logger("access")


def log_access(call: Call) -> None:
    """Write the line of a request that has ended."""
    level = logging.DEBUG if call.path in _PROBES and call.status == 200 else logging.INFO
    if not _log.isEnabledFor(level):
        return
    _log.log(
        level,
        "%s %s status=%d ms=%.1f%s client=%s id=%s",
        call.method,
        _one_line(call.path),
        call.status,
        (trio.current_time() - call.started_s) * 1e3,
        _usage(call.usage) if call.usage is not None else "",
        call.client,
        call.id,
    )


def _usage(usage: Usage) -> str:
    first = f" first_ms={usage.first_s * 1e3:.1f}" if usage.first_s is not None else ""
    return (
        f" model={usage.model} queue_ms={usage.queue_s * 1e3:.1f}{first}"
        f" prompt_tokens={usage.n_prompt} cached_tokens={usage.n_cached} tokens={usage.n_generated}"
    )


def _one_line(path: str) -> str:
    """Escape what could begin a line of its own in the log or steer a terminal: a path comes percent-decoded."""
    return path if path.isprintable() else path.encode("unicode_escape").decode("ascii")
