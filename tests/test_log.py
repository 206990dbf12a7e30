"""Log lines: one form for people, one for the journal, and nothing in them that steers a terminal."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from olm.log import setup_logging


def logged(env: dict[str, str]) -> str:
    code = (
        "from olm.log import get_logger, setup_logging\n"
        "setup_logging()\n"
        "get_logger('test').error('a %s', 'model\\x1b[31m\\x9b\\r')\n"
        "get_logger('test').debug('unseen')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    return result.stderr


def test_control_characters_are_escaped() -> None:
    """A name out of a model file cannot colour or forge what the terminal shows."""
    line = logged({})

    assert line.endswith("ERROR olm.test: a model\\x1b[31m\\x9b\\x0d\n")


def test_the_journal_gets_its_level() -> None:
    """systemd reads `<3>` as an error."""
    assert logged({"JOURNAL_STREAM": "1:2"}).startswith("<3>olm.test: a model")


@pytest.mark.parametrize(("debug", "level"), [(0, logging.INFO), (1, logging.DEBUG)])
def test_debug_opens_our_own_loggers(debug: int, level: int) -> None:
    """OLM_DEBUG=1 is for olm, 2 for its libraries too."""
    root, ours = logging.getLogger(), logging.getLogger("olm")
    before = (list(root.handlers), root.level, ours.level)
    try:
        setup_logging(debug)

        assert ours.level == level
    finally:
        root.handlers[:], root.level, ours.level = before[0], before[1], before[2]
