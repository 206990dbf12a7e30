"""The `run` command: one answer to a prompt (arguments, standard input), an embedding, or the interactive session."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Final

import attrs
import click

from olm.cli.answer import Look, parse_think, stream_answer
from olm.cli.client import Client
from olm.cli.transfer import pull_model
from olm.cli.wire import Json, texts
from olm.errors import InvalidRequest, NotFound, NotYetSupported
from olm.units import parse_duration

__all__ = [
    "Request",
    "is_embedder",
    "join_prompt",
    "parse_format",
    "run_command",
    "show_or_pull",
    "warn_of_thinking",
]

INTERRUPTED: Final = 130


@attrs.frozen
class Request:
    """What a run asks of the server besides the prompt; unset parts are left to the server.

    Attributes:
        keep_alive: a Go duration, empty for the server's default.
        truncate, dimensions: for embedding models only.
    """

    model: str
    format: object = None
    keep_alive: str = ""
    think: bool | str | None = None
    truncate: bool | None = None
    dimensions: int | None = None

    def body(self, **more: object) -> Json:
        """The fields all inference requests share, with more of one's own; unset ones are left out."""
        fields: Json = {
            "model": self.model,
            "format": self.format,
            "keep_alive": self.keep_alive or None,
            "think": self.think,
            **more,
        }
        return {key: value for key, value in fields.items() if value is not None}


def join_prompt(piped: str, words: tuple[str, ...]) -> str:
    """What was piped in goes before the arguments, joined by a space."""
    return " ".join(part for part in (piped, *words) if part)


def parse_format(value: str) -> object:
    """Read `--format`: `json`, a JSON schema, or a file with one. Anything else goes to the server, which explains it.

    Raises:
        InvalidRequest: a file that holds no schema, or cannot be read.
    """
    if not value or value == "json":
        return value or None
    schema = _object(value)
    if schema is not None:
        return schema
    file = Path(value).expanduser()
    try:
        if not file.is_file():
            return value
        schema = _object(file.read_text(encoding="utf-8"))
    except OSError as exc:
        if exc.errno == errno.ENAMETOOLONG:  # so it was meant as text
            return value
        raise InvalidRequest(f"couldn't read the format {value}: {exc.strerror}") from exc
    except UnicodeDecodeError:
        schema = None
    if schema is None:
        raise InvalidRequest(f"{value} holds no JSON schema: it must be a JSON object")
    return schema


def _object(text: str) -> Json | None:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def is_embedder(shown: Json) -> bool:
    """Whether a model of /api/show makes embeddings and does not write."""
    capabilities = texts(shown, "capabilities")
    return "embedding" in capabilities and "completion" not in capabilities


def warn_of_thinking(model: str, shown: Json) -> None:
    """Say on standard error that a model which is to think cannot; the server refuses its messages then."""
    if "thinking" not in texts(shown, "capabilities"):
        print(f'warning: model "{model}" does not support thinking output', file=sys.stderr)


def show_or_pull(client: Client, model: str, *, insecure: bool = False) -> Json:
    """What /api/show says of a model, pulling it first if the store does not have it.

    Raises:
        NotFound: it is not there and this server cannot pull.
    """
    try:
        return client.call("POST", "/api/show", {"model": model})
    except NotFound as missing:
        try:
            pull_model(client, model, insecure=insecure)
        except NotYetSupported as unsupported:
            raise NotFound(f"{missing} ({unsupported})") from None
    return client.call("POST", "/api/show", {"model": model})


class _RunCommand(click.Command):
    """Lets `--think` stand alone: click would otherwise take the model's name for its value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        options = ["--think=true" if arg == "--think" else arg for arg in args[:end]]
        return super().parse_args(ctx, options + args[end:])


@click.command("run", cls=_RunCommand, short_help="Run a model")
@click.argument("model")
@click.argument("prompt", nargs=-1)
@click.option("--keepalive", default="", metavar="DUR", help="How long the model stays loaded: 5m.")
@click.option("--verbose", is_flag=True, help="Show timings of the answer.")
@click.option("--insecure", is_flag=True, help="Allow a registry without TLS.")
@click.option("--nowordwrap", is_flag=True, help="Don't wrap words to the next line.")
@click.option(
    "--format",
    "format_",
    default="",
    help="Format of the answer: json, a JSON schema, or a file with one.",
)
@click.option(
    "--think",
    default="",
    metavar="[true|false|high|medium|low|max]",
    help="Turn reasoning on or off.",
)
@click.option("--hidethinking", is_flag=True, help="Don't show the reasoning.")
@click.option("--truncate", is_flag=True, help="Embeddings: cut inputs that are too long.")
@click.option("--dimensions", type=click.IntRange(min=1), help="Embeddings: shorten to this many.")
def run_command(model: str, prompt: tuple[str, ...], **options: object) -> int:
    """Run MODEL: answer PROMPT, or talk with it when there is no prompt.

    Text piped in is put before PROMPT.
    """
    request = _request(model, options)
    look = Look(
        wordwrap=not options["nowordwrap"],
        verbose=bool(options["verbose"]),
        hide_thinking=bool(options["hidethinking"]),
    )
    piped = "" if sys.stdin is None or sys.stdin.isatty() else _read_all()
    is_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    client = Client()
    shown = show_or_pull(client, model, insecure=bool(options["insecure"]))
    words = join_prompt(piped, prompt)
    if is_embedder(shown):
        return _embed(client, request, words)
    if is_terminal and not prompt:
        from olm.cli.repl.loop import converse

        converse(client, request, look, shown)
        return 0
    answer = stream_answer(client, "/api/generate", request.body(prompt=words), look)
    return INTERRUPTED if answer.interrupted else 0


def _request(model: str, options: dict[str, object]) -> Request:
    keep_alive, think = str(options["keepalive"]), str(options["think"])
    if keep_alive:
        parse_duration(keep_alive)  # refuse it here, in Go's words, before anything is loaded
    if think and parse_think(think) is None:
        raise InvalidRequest(
            f'invalid value for --think: "{think}" (must be true, false, high, medium, low, or max)'
        )
    dimensions = options["dimensions"]
    return Request(
        model,
        format=parse_format(str(options["format_"])),
        keep_alive=keep_alive,
        think=parse_think(think) if think else None,
        truncate=True if options["truncate"] else None,
        dimensions=dimensions if isinstance(dimensions, int) else None,
    )


def _read_all() -> str:
    return sys.stdin.buffer.read().decode("utf-8", "replace")


def _embed(client: Client, request: Request, words: str) -> int:
    if not words:
        raise InvalidRequest(
            f'embedding models require input text. Usage: olm run {request.model} "your text here"'
        )
    body = request.body(input=words, truncate=request.truncate, dimensions=request.dimensions)
    for unwanted in ("format", "think"):
        body.pop(unwanted, None)
    vectors = client.call("POST", "/api/embed", body).get("embeddings")
    click.echo(json.dumps(vectors[0] if isinstance(vectors, list) and vectors else []))
    return 0
