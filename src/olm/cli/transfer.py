"""The commands that move models between the store and a registry: pull, push. The server does the work."""

from __future__ import annotations

from contextlib import closing

import click

from olm.cli.client import Client
from olm.cli.progress import Progress, StatusLines

__all__ = ["follow", "pull_command", "pull_model", "push_command"]


def follow(client: Client, path: str, body: dict[str, object]) -> None:
    """Run a job of the server, showing its statuses on stderr until it is done.

    Raises:
        OlmError: the job failed; the lines shown so far stay on the screen.
    """
    with Progress() as progress, closing(client.stream("POST", path, body)) as events:
        lines = StatusLines(progress)
        for event in events:
            lines.show(event)


def pull_model(client: Client, model: str, *, insecure: bool) -> None:
    """Have the server pull a model from its registry."""
    follow(client, "/api/pull", {"model": model, "insecure": insecure})


@click.command("pull", short_help="Pull a model from a registry")
@click.argument("model")
@click.option("--insecure", is_flag=True, help="Allow a registry without TLS.")
def pull_command(model: str, *, insecure: bool) -> None:
    """Download MODEL from its registry into the store."""
    pull_model(Client(), model, insecure=insecure)


@click.command("push", short_help="Push a model to a registry")
@click.argument("model")
@click.option("--insecure", is_flag=True, help="Allow a registry without TLS.")
def push_command(model: str, *, insecure: bool) -> None:
    """Upload MODEL to its registry."""
    follow(Client(), "/api/push", {"model": model, "insecure": insecure})
