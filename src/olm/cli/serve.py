"""The `serve` command: start the daemon in this process. The only command that imports the actor tree."""

from __future__ import annotations

import click

__all__ = ["serve_command"]


class _ServeCommand(click.Command):
    """Lists the environment variables in its help, out of the one table in `olm.config`."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from olm.config import VARIABLES

        with formatter.section("Environment variables (OLM_X wins over OLLAMA_X)"):
            formatter.write_dl(
                [
                    (
                        f"OLM_{variable.name}",
                        f"{variable.help} (default: {variable.default})"
                        if variable.default
                        else variable.help,
                    )
                    for variable in VARIABLES
                ]
            )


@click.command("serve", cls=_ServeCommand, short_help="Start the server")
def serve_command() -> int:
    """Start the server and keep it running until it is told to stop (Ctrl-C or SIGTERM)."""
    from olm.actors.tree import run_daemon
    from olm.config import read_settings

    return run_daemon(read_settings())
