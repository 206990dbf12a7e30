"""The state of a conversation and the requests it leads to. Values in, values out; no terminal, no sockets."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from olm.chat.options import OPTION_TYPES
from olm.cli.answer import Answer, Look
from olm.cli.run import Request
from olm.cli.wire import Json
from olm.modelfile import read_parameter

__all__ = ["Session", "parse_parameter"]


def parse_parameter(name: str, values: Sequence[str]) -> object:
    """Read the words of `/set parameter` as a value of the option's type.

    Raises:
        ModelfileError: an unknown option, or a value it cannot have, in Ollama's words.
    """
    if OPTION_TYPES.get(name) == "array":
        return list(values)
    return read_parameter(name, values[-1])


def _message(role: str, content: str) -> Json:
    return {"role": role, "content": content}


@attrs.frozen
class Session:
    """One conversation.

    Attributes:
        messages: as sent to /api/chat; the model's own opening messages are the server's to add.
        opening: the messages of the model's Modelfile, which `/save` hands on.
        system: the system message set here, empty for the model's own.
        options: set by `/set parameter`.
    """

    request: Request
    look: Look
    messages: tuple[Json, ...] = ()
    opening: tuple[Json, ...] = ()
    system: str = ""
    options: Json = attrs.field(factory=dict)

    def with_system(self, system: str) -> Session:
        """Set the system message for what follows; one that nobody has answered yet is replaced."""
        kept = self.messages
        if kept and kept[-1]["role"] == "system":
            kept = kept[:-1]
        return attrs.evolve(self, system=system, messages=(*kept, _message("system", system)))

    def with_option(self, name: str, value: object) -> Session:
        """Set a model option."""
        return attrs.evolve(self, options={**self.options, name: value})

    def cleared(self) -> Session:
        """Forget the conversation; system message and options stay."""
        kept = (_message("system", self.system),) if self.system else ()
        return attrs.evolve(self, messages=kept)

    def with_model(self, model: str, opening: Sequence[Json]) -> Session:
        """Start over with another model; system message and options stay."""
        switched = attrs.evolve(
            self, request=attrs.evolve(self.request, model=model), opening=tuple(opening)
        )
        return switched.cleared()

    def asked(self, question: str) -> Session:
        """Add a question."""
        return attrs.evolve(self, messages=(*self.messages, _message("user", question)))

    def answered(self, answer: Answer) -> Session:
        """Add an answer. One cut short stays as far as it came; with nothing said the question is taken back."""
        if not answer.content and answer.interrupted:
            return attrs.evolve(self, messages=self.messages[:-1])
        reply = _message("assistant", answer.content)
        if answer.thinking:
            reply["thinking"] = answer.thinking
        return attrs.evolve(self, messages=(*self.messages, reply))

    def chat_body(self) -> Json:
        """The body of /api/chat for the conversation so far."""
        return self.request.body(messages=list(self.messages), options=self.options or None)

    def show_body(self) -> Json:
        """The body of /api/show as this session would run the model."""
        body: Json = {"model": self.request.model}
        if self.system:
            body["system"] = self.system
        if self.options:
            body["options"] = self.options
        return body

    def save_body(self, name: str) -> Json:
        """The body of /api/create that makes a model of this session."""
        body: Json = {"model": name, "from": self.request.model}
        if self.system:
            body["system"] = self.system
        if self.options:
            body["parameters"] = self.options
        talk = [m for m in (*self.opening, *self.messages) if m["role"] != "system"]
        if talk:
            body["messages"] = [_message(str(m["role"]), str(m.get("content", ""))) for m in talk]
        return body
