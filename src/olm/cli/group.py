"""The click group: names, one-line helps and homes of the subcommands, each imported only when it is called."""

from __future__ import annotations

import importlib
from typing import Final

import click

__all__ = ["cli"]

_COMMANDS: Final = {  # name: (module, one line for `olm --help`), in the order of help
    "serve": ("serve", "Start the server"),
    "create": ("create", "Create a model from a Modelfile"),
    "show": ("models", "Show information for a model"),
    "run": ("run", "Run a model"),
    "stop": ("models", "Stop a running model"),
    "pull": ("transfer", "Pull a model from a registry"),
    "push": ("transfer", "Push a model to a registry"),
    "export": ("archive", "Write models to an archive"),
    "import": ("archive", "Read models from an archive"),
    "imatrix": ("imatrix", "Measure what quantization must keep"),
    "list": ("models", "List models"),
    "ps": ("models", "List running models"),
    "cp": ("models", "Copy a model"),
    "rm": ("models", "Remove models"),
    "doctor": ("doctor", "Check the store and its surroundings"),
    "keys": ("keys", "Make, list and remove API keys"),
}
_ALIASES: Final = {"start": "serve", "ls": "list"}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = _ALIASES.get(cmd_name, cmd_name)
        if name == "help":
            return _help
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(f"olm.cli.{_COMMANDS[name][0]}")
        command: object = getattr(module, f"{name}_command")
        assert isinstance(command, click.Command), f"{name} is declared in the table of commands"
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table above instead of importing every subcommand for its first line."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])


@click.group(
    cls=_LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("-v", "--version", is_flag=True, help="Show version information.")
@click.pass_context
def cli(ctx: click.Context, version: bool) -> int:
    """Run language models on this machine."""
    if version:
        from olm.cli.main import show_version

        ctx.exit(show_version())
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
    return 0


@click.command("help", help="Show help for a command.")
@click.argument("name", required=False)
@click.pass_context
def _help(ctx: click.Context, name: str | None) -> None:
    parent = ctx.parent
    assert parent is not None, "help is a subcommand"
    command = cli.get_command(parent, name) if name else cli
    if command is None:
        raise click.UsageError(f"no such command: {name}")
    info = parent if command is cli else click.Context(command, info_name=name, parent=parent)
    click.echo(command.get_help(info))
