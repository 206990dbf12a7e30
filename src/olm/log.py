"""Logging of the daemon and its workers: one line a record on stderr, ids as `key=value`, no configuration files.

Under systemd the line starts with a syslog level (`<6>`), so that the journal knows errors from news.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Final

__all__ = ["get_logger", "setup_logging"]

_SYSLOG_LEVEL: Final = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}

_ESCAPES: Final = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"
}


class _LineFormatter(logging.Formatter):
    """`2026-01-02T03:04:05 INFO olm.scheduler: text` on a terminal, `<6>olm.scheduler: text` in the journal."""

    def __init__(self, *, journal: bool) -> None:
        fmt = (
            "%(name)s: %(message)s"
            if journal
            else "%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        super().__init__(fmt, datefmt="%Y-%m-%dT%H:%M:%S")
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        # What a model file or a request put into a message must not steer the terminal that shows it.
        text = super().format(record).translate(_ESCAPES)
        if not self._journal:
            return text
        prefix = f"<{_SYSLOG_LEVEL.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in text.splitlines())


def get_logger(name: str) -> logging.Logger:
    """Return the logger of one part, `olm.<name>`."""
    return logging.getLogger(f"olm.{name}")


def setup_logging(debug: int = 0) -> None:
    """Send olm's records to stderr; call once, in `main`.

    Args:
        debug: 0 for info, 1 for debug, 2 for debug of the libraries too.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter(journal="JOURNAL_STREAM" in os.environ))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if debug >= 2 else logging.WARNING)
    logging.getLogger("olm").setLevel(logging.DEBUG if debug else logging.INFO)
