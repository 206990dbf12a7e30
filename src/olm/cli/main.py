"""The entry point: the group of subcommands, `--version`, and the one place where errors become a line and a status.

Subcommands are imported when they are called. Exit status: 0, 1 for an error, 130 after Ctrl-C.
"""

from __future__ import annotations

import sys
from typing import Final, TextIO

from olm import __version__
from olm.errors import OlmError

__all__ = ["main"]

INTERRUPTED: Final = 130
VERSION_PATIENCE_S: Final = 0.5  # a server on this machine answers in a millisecond, or refuses


def main() -> int:
    """Run the command line of this process and return its exit status. Prints every error as `Error: <text>`."""
    try:
        # The version is asked by scripts and prompts: not even click is needed for it.
        status = show_version() if sys.argv[1:] in (["-v"], ["--version"]) else _dispatch()
        sys.stdout.flush()  # a reader that has gone shows here, and not at interpreter exit
    except OlmError as exc:
        print(f"Error: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _silence(sys.stdout)
        return 1  # as click does where it meets this first
    return status


def _dispatch() -> int:
    import click

    from olm.cli.group import cli

    try:
        result: object = cli.main(prog_name="olm", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as exc:
        print(exc.format_message())  # which is the help itself
        return 0
    except click.ClickException as exc:
        print(f"Error: {exc.format_message()}", file=sys.stderr)
        return 1
    except click.Abort:
        return INTERRUPTED
    return result if isinstance(result, int) else 0


def show_version() -> int:
    """Print the version of the server that answers, and a warning where the client's differs or none answers."""
    from olm.cli.client import Client

    try:
        server = Client(patience_s=VERSION_PATIENCE_S).server_version()
    except OlmError:
        print("Warning: could not connect to a running olm instance")
        print(f"Warning: client version is {__version__}")
        return 0
    print(f"olm version is {server or __version__}")
    if server not in ("", __version__):
        print(f"Warning: client version is {__version__}")
    return 0


def _silence(stream: TextIO) -> None:
    """Point a broken stream at nothing, so that the interpreter's own flush at exit stays quiet."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
