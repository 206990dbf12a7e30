"""The commands about stored and loaded models: list, ps, show, cp, rm, stop."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import click

from olm.cli.client import Client
from olm.cli.wire import Json, text
from olm.errors import InvalidRequest, NotFound, OlmError

__all__ = [
    "cp_command",
    "list_command",
    "ps_command",
    "rm_command",
    "show_command",
    "stop_command",
    "unload",
]

SELECTORS = ("license", "modelfile", "parameters", "system", "template")


@click.command("list", short_help="List models")
@click.argument("prefix", default="")
def list_command(prefix: str) -> None:
    """List the models of the store, those whose name begins with PREFIX if one is given."""
    from olm.cli.views import list_view

    for line in list_view(Client().call("GET", "/api/tags"), prefix, datetime.now(UTC)):
        click.echo(line)


@click.command("ps", short_help="List running models")
@click.argument("prefix", default="")
def ps_command(prefix: str) -> None:
    """List the loaded models, those whose name begins with PREFIX if one is given."""
    from olm.cli.views import ps_view

    for line in ps_view(Client().call("GET", "/api/ps"), prefix, datetime.now(UTC)):
        click.echo(line)


@click.command("show", short_help="Show information for a model")
@click.argument("model")
@click.option("--license", "license_", is_flag=True, help="Show the license of a model.")
@click.option("--modelfile", is_flag=True, help="Show the Modelfile of a model.")
@click.option("--parameters", is_flag=True, help="Show the parameters of a model.")
@click.option("--template", is_flag=True, help="Show the template of a model.")
@click.option("--system", is_flag=True, help="Show the system message of a model.")
@click.option("-v", "--verbose", is_flag=True, help="Show metadata and tensors too.")
def show_command(model: str, *, license_: bool, verbose: bool, **selectors: bool) -> None:
    """Show what is known about MODEL."""
    from olm.cli.views import show_view

    chosen = [name for name in SELECTORS if selectors.get(name, license_ and name == "license")]
    if len(chosen) > 1:
        raise InvalidRequest(
            "only one of '--license', '--modelfile', '--parameters', '--system', or '--template'"
            " can be specified"
        )
    request: Json = {"model": model, "verbose": verbose} if verbose else {"model": model}
    shown = Client().call("POST", "/api/show", request)
    if not chosen:
        for line in show_view(shown, verbose=verbose):
            click.echo(line)
        return
    value = text(shown, chosen[0])
    click.echo(
        value, nl=chosen[0] not in ("system", "template")
    )  # these two end as they were written


@click.command("cp", short_help="Copy a model")
@click.argument("source")
@click.argument("destination")
def cp_command(source: str, destination: str) -> None:
    """Give the model SOURCE a second name, DESTINATION."""
    Client().call("POST", "/api/copy", {"source": source, "destination": destination})
    click.echo(f"copied '{source}' to '{destination}'")


def unload(client: Client, model: str) -> None:
    """Ask the server to unload a model as soon as it is idle.

    Raises:
        NotFound: there is no such model.
    """
    client.call("POST", "/api/generate", {"model": model, "keep_alive": 0, "stream": False})


@click.command("rm", short_help="Remove models")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
def rm_command(models: tuple[str, ...]) -> None:
    """Remove models from the store. Weights that other models use stay."""
    client = Client()
    for model in models:
        with suppress(OlmError):  # best effort; whatever is wrong, the deletion says it better
            unload(client, model)
        client.call("DELETE", "/api/delete", {"model": model})
        click.echo(f"deleted '{model}'")


@click.command("stop", short_help="Stop a running model")
@click.argument("model")
def stop_command(model: str) -> None:
    """Unload MODEL as soon as its running answers are done."""
    try:
        unload(Client(), model)
    except NotFound:
        raise NotFound(f'couldn\'t find model "{model}" to stop') from None
