"""The conversation loop: plain synchronous code in the main thread. Ctrl-C stops an answer, never the program."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, assert_never

import attrs

from olm.cli.answer import AnswerView, Look, stream_answer
from olm.cli.client import Client
from olm.cli.progress import Progress, terminal_size
from olm.cli.repl import commands as c
from olm.cli.repl.compose import Composed, Composer, Purpose
from olm.cli.repl.help import HELP
from olm.cli.repl.history import HistoryFile
from olm.cli.repl.keyboard import Keyboard
from olm.cli.repl.session import Session, parse_parameter
from olm.cli.run import Request, is_embedder, warn_of_thinking
from olm.cli.views import list_view, show_view
from olm.cli.wire import Json, children, text
from olm.config import read_settings
from olm.errors import InvalidRequest, NotFound, OlmError

__all__ = ["Conversation", "converse"]

PROMPT: Final = ">>> "
MORE_PROMPT: Final = "... "
HINT: Final = "\x1b[38;5;245mSend a message (/? for help)\x1b[0m"
_NOTHING: Final = {
    "license": "No license was specified for this model.",
    "system": "No system message was specified for this model.",
    "template": "No prompt template was specified for this model.",
    "modelfile": "",
}


def converse(client: Client, request: Request, look: Look, shown: Json) -> None:
    """Load the model, show how its conversation begins, and talk until `/bye` or Ctrl-D.

    Args:
        shown: what /api/show says of the model.

    Raises:
        OlmError: the model cannot be loaded. Later failures are shown and the conversation goes on.
    """
    settings = read_settings()
    if request.think:
        warn_of_thinking(request.model, shown)
    _load(client, request)
    session = Session(request, look, opening=tuple(children(shown, "messages")))
    keyboard = Keyboard(
        HistoryFile(settings.home / "history", enabled=not settings.nohistory),
    )
    _show_opening(session)
    print(HINT)
    Conversation(client, session, keyboard).run()


def _load(client: Client, request: Request) -> None:
    with Progress() as progress:
        progress.spinner("")
        try:
            body = attrs.evolve(request, format=None).body(stream=False)
            client.call("POST", "/api/generate", body)
        finally:
            progress.clear()


def _show_opening(session: Session) -> None:
    for message in session.opening:
        content = text(message, "content")
        if text(message, "role") == "user":
            print(f"{PROMPT}{content}")
        elif text(message, "role") == "assistant":
            view = AnswerView(terminal=True)
            width = terminal_size(sys.stdout)[0] if session.look.wordwrap else 0
            print(view.feed("", content, width), end="\n\n")


class Conversation:
    """Reads lines, acts on commands, sends messages."""

    def __init__(self, client: Client, session: Session, keyboard: Keyboard) -> None:
        self._client = client
        self._session = session
        self._keyboard = keyboard
        self._composer = Composer()

    def run(self) -> None:
        """Talk until the user leaves."""
        staying = True
        while staying:
            with suppress(
                KeyboardInterrupt
            ):  # Ctrl-C held down comes even while one is being handled
                staying = self._turn()

    def _turn(self) -> bool:
        """Read a line and act on it; False to leave."""
        try:
            line = self._keyboard.read(MORE_PROMPT if self._composer.is_open else PROMPT)
        except EOFError:
            print()
            return False
        except KeyboardInterrupt:
            self._composer.reset()
            print("\nUse Ctrl + d or /bye to exit.")
            return True
        try:
            return self._take(line)
        except OlmError as exc:
            print(f"Error: {exc}", file=sys.stderr)
        except KeyboardInterrupt:
            print()
        return True

    def _take(self, line: str) -> bool:
        """Act on a line; False to leave."""
        # A pasted text that begins with a slash and goes on over lines is a message, not a command.
        is_command = not self._composer.is_open and "\n" not in line
        command = c.parse_command(line) if is_command else None
        match command:
            case None:
                self._compose(line, Purpose.MESSAGE)
            case c.SetSystem(words):
                self._compose(words, Purpose.SYSTEM)
            case c.Bye():
                return False
            case _:
                self._act(command)
        return True

    def _compose(self, line: str, purpose: Purpose) -> None:
        match self._composer.feed(line, purpose):
            case Composed(text=system, purpose=Purpose.SYSTEM):
                self._session = self._session.with_system(system)
                print("Set system message.")
            case Composed(text=question) if question.strip():
                self._ask(question)

    def _ask(self, question: str) -> None:
        asked = self._session.asked(question)
        answer = stream_answer(self._client, "/api/chat", asked.chat_body(), asked.look)
        self._session = asked.answered(answer)

    def _act(self, command: c.Command) -> None:
        match command:
            case c.Unknown(name):
                print(f"Unknown command '{name}'. Type /? for help")
            case c.Usage(words):
                print(words)
            case c.Help(topic):
                print(HELP[topic], file=sys.stderr)
            case c.ListModels(prefix):
                tags = self._client.call("GET", "/api/tags")
                print("\n".join(list_view(tags, prefix, datetime.now(UTC))))
            case c.Clear():
                self._session = self._session.cleared()
                print("Cleared session context")
            case c.Load(model):
                self._switch(model)
            case c.Save(model):
                self._save(model)
            case c.Show(what):
                self._show(what)
            case c.Bye() | c.SetSystem():
                raise AssertionError("the caller handles these")
            case _:
                self._set(command)

    def _set(self, command: c.SetFormat | c.SetMode | c.SetParameter | c.SetThink) -> None:
        match command:
            case c.SetMode(mode):
                self._set_mode(mode)
            case c.SetFormat(wanted):
                self._change_request(attrs.evolve(self._session.request, format=wanted))
                print(f"Set format to '{wanted}' mode." if wanted else "Disabled format.")
            case c.SetThink(think):
                self._set_think(think)
            case c.SetParameter(name, values):
                self._set_parameter(name, values)
            case _:
                assert_never(command)

    def _set_think(self, think: bool | str) -> None:
        if think:
            with suppress(OlmError):  # the mode is set whatever the model can
                shown = self._client.call("POST", "/api/show", self._session.show_body())
                warn_of_thinking(self._session.request.model, shown)
        self._change_request(attrs.evolve(self._session.request, think=think))
        level = f" to '{think}'" if isinstance(think, str) else ""
        print(f"Set '{'think' if think else 'nothink'}' mode{level}.")

    def _set_mode(self, mode: str) -> None:
        match mode:
            case "history" | "nohistory":
                self._keyboard.history.enabled = mode == "history"
            case "wordwrap" | "nowordwrap":
                self._change_look(attrs.evolve(self._session.look, wordwrap=mode == "wordwrap"))
            case _:
                self._change_look(attrs.evolve(self._session.look, verbose=mode == "verbose"))
        print(f"Set '{mode}' mode.")

    def _change_request(self, request: Request) -> None:
        self._session = attrs.evolve(self._session, request=request)

    def _change_look(self, look: Look) -> None:
        self._session = attrs.evolve(self._session, look=look)

    def _set_parameter(self, name: str, values: tuple[str, ...]) -> None:
        try:
            value = parse_parameter(name, values)
        except InvalidRequest as exc:
            print(f"Couldn't set parameter: {json.dumps(str(exc), ensure_ascii=False)}")
            return
        self._session = self._session.with_option(name, value)
        print(f"Set parameter '{name}' to '{', '.join(values)}'")

    def _switch(self, model: str) -> None:
        print(f"Loading model '{model}'")
        try:
            shown = self._client.call("POST", "/api/show", {"model": model})
            if is_embedder(shown):
                raise InvalidRequest(f"'{model}' makes embeddings and does not chat")
            switched = self._session.with_model(model, children(shown, "messages"))
            _load(self._client, switched.request)
        except NotFound:
            print(f"Couldn't find model '{model}'")
            return
        self._session = switched

    def _save(self, name: str) -> None:
        body = self._session.save_body(name)
        self._client.call("POST", "/api/create", {**body, "stream": False})
        print(f"Created new model '{name}'")

    def _show(self, what: str) -> None:
        shown = self._client.call("POST", "/api/show", self._session.show_body())
        match what:
            case "info":
                print("\n".join(show_view(shown)), file=sys.stderr)
            case "parameters":
                self._show_parameters(text(shown, "parameters"))
            case "system":
                system = self._session.system or text(shown, "system")
                print(f"{system}\n" if system else _NOTHING["system"])
            case _:
                print(text(shown, what) or _NOTHING[what])

    def _show_parameters(self, parameters: str) -> None:
        print("Model defined parameters:")
        for line in parameters.splitlines() or [
            "No additional parameters were specified for this model."
        ]:
            print(f"  {line}")
        print()
        if self._session.options:
            print("User defined parameters:")
            for name, value in self._session.options.items():
                print(f"  {name:<30} {value}")
            print()
