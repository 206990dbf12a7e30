"""The `olm` command: a thin, synchronous client of the daemon's HTTP API, and the line that starts the daemon.

`client` is the only module that talks HTTP. Modules imported before a subcommand is known stay light (click and the
standard library), because `olm --version` and `olm list` are run from prompts and scripts.
"""
