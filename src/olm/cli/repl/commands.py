"""Slash commands: from a line to a value that the loop acts on. Pure.

The commands and their words are Ollama's (spec §3). A line that begins with a slash and is none of them is `Unknown`.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import attrs

from olm.cli.answer import THINK_LEVELS

__all__ = [
    "Bye",
    "Clear",
    "Command",
    "Help",
    "ListModels",
    "Load",
    "Save",
    "SetFormat",
    "SetMode",
    "SetParameter",
    "SetSystem",
    "SetThink",
    "Show",
    "Topic",
    "Unknown",
    "Usage",
    "parse_command",
]

Topic = Literal["general", "set", "show", "shortcuts", "parameters"]
Mode = Literal["history", "nohistory", "wordwrap", "nowordwrap", "verbose", "quiet"]
What = Literal["info", "license", "modelfile", "parameters", "system", "template"]

_TOPICS: Final[dict[str, Topic]] = {
    "set": "set",
    "/set": "set",
    "show": "show",
    "/show": "show",
    "shortcut": "shortcuts",
    "shortcuts": "shortcuts",
}


@attrs.frozen
class Bye:
    """Leave."""


@attrs.frozen
class Clear:
    """Forget the conversation."""


@attrs.frozen
class Help:
    """Show help on a topic."""

    topic: Topic = "general"


@attrs.frozen
class ListModels:
    """List the stored models."""

    prefix: str = ""


@attrs.frozen
class Load:
    """Talk with another model."""

    model: str


@attrs.frozen
class Save:
    """Save the session as a model."""

    model: str


@attrs.frozen
class SetMode:
    """Turn one of the display or history modes on or off."""

    mode: Mode


@attrs.frozen
class SetFormat:
    """Ask for JSON, or for free text again (None)."""

    format: str | None


@attrs.frozen
class SetParameter:
    """Set a model option; `values` has one item for all but stop."""

    name: str
    values: tuple[str, ...]


@attrs.frozen
class SetSystem:
    """Set the system message; the text may open a block."""

    text: str


@attrs.frozen
class SetThink:
    """Turn reasoning on (True or a level) or off."""

    think: bool | str


@attrs.frozen
class Show:
    """Show something about the model."""

    what: What


@attrs.frozen
class Unknown:
    """Not a command; `name` is what was typed."""

    name: str


@attrs.frozen
class Usage:
    """A command used wrongly; `text` says how it is used."""

    text: str


Command = (
    Bye
    | Clear
    | Help
    | ListModels
    | Load
    | Save
    | SetFormat
    | SetMode
    | SetParameter
    | SetSystem
    | SetThink
    | Show
    | Unknown
    | Usage
)


def parse_command(line: str) -> Command | None:
    """Read a line as a command; None when it does not begin with a slash."""
    if not line.startswith("/"):
        return None
    name, *args = line.split()
    match name:
        case "/bye" | "/exit":
            return Bye()
        case "/clear":
            return Clear()
        case "/?" | "/help":
            return Help(_TOPICS.get(args[0], "general") if args else "general")
        case "/list":
            return ListModels(args[0] if args else "")
        case "/load":
            return Load(args[0]) if len(args) == 1 else Usage("Usage:\n  /load <modelname>")
        case "/save":
            return Save(args[0]) if len(args) == 1 else Usage("Usage:\n  /save <modelname>")
        case "/set":
            return _set(line, args)
        case "/show":
            return _show(args)
    return Unknown(name)


def _set(line: str, args: list[str]) -> Command:
    what, *values = args or ["help"]
    for mode in get_args(Mode):
        if what == mode:
            return SetMode(mode)
    match what:
        case "help":
            return Help("set")
        case "parameter":
            return SetParameter(values[0], tuple(values[1:])) if values[1:] else Help("parameters")
        case "system":
            # Cut from the line and not joined from the words: the spacing of the text is the user's.
            return SetSystem(line.split(maxsplit=2)[2]) if values else Help("set")
        case "format":
            if values == ["json"]:
                return SetFormat("json")
            return Usage("Invalid or missing format. For 'json' mode use '/set format json'")
        case "noformat":
            return SetFormat(None)
        case "think":
            return _think(values)
        case "nothink":
            return SetThink(think=False)
    return Unknown(f"/set {what}")


def _think(values: list[str]) -> Command:
    if not values:
        return SetThink(think=True)
    if values[0] not in THINK_LEVELS:
        return Usage(f"Invalid think level. Use one of: {', '.join(THINK_LEVELS)}")
    return SetThink(values[0])


def _show(args: list[str]) -> Command:
    if not args:
        return Help("show")
    for what in get_args(What):
        if args[0] == what:
            return Show(what)
    return Unknown(f"/show {args[0]}")
