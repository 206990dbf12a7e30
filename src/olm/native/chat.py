"""Chat templates: from messages to a prompt, and from generated text back to a message, by llama.cpp's chat library.

This is the way of the GGUF's own Jinja template. Go templates and named renderers live elsewhere (`olm.template`,
`olm.chat.renderers`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from olm.chat.types import ChatMessage, Think
from olm.errors import NotYetSupported
from olm.native.handles import Handle, Model
from olm.native.lib import check, ffi, lib, new_pointer, take_text

__all__ = ["ChatTemplate", "ParsedCall", "ParsedMessage", "Rendered", "TemplateCaps", "Trigger"]


class TemplateCaps(msgspec.Struct, frozen=True):
    """What a template can do. `explicit` is False when the model has none and ChatML stands in.

    Attributes:
        caps: llama.cpp's own list: supports_tools, supports_tool_calls, supports_system_role, …
    """

    source: str
    explicit: bool
    supports_thinking: bool
    caps: dict[str, bool]


class Trigger(msgspec.Struct, frozen=True):
    """What arms a lazy grammar. `type` is word, token, pattern or pattern_full."""

    type: str
    value: str
    token: int


class Rendered(msgspec.Struct, frozen=True):
    """A prompt, and what generation and parsing must know of its template.

    Attributes:
        grammar: GBNF for the tools or the schema, empty for none; lazy ones wait for a trigger.
        preserved_tokens: special tokens that the parser must see: hand them to `Engine.submit`.
        stops: stop strings of the template, besides the request's.
        parser: an opaque JSON value for `ChatTemplate.parse`.
    """

    prompt: str
    grammar: str
    grammar_lazy: bool
    triggers: tuple[Trigger, ...]
    preserved_tokens: tuple[str, ...]
    stops: tuple[str, ...]
    supports_thinking: bool
    thinking_start: str
    thinking_ends: tuple[str, ...]
    parser: msgspec.Raw


class ParsedCall(msgspec.Struct, frozen=True):
    """A tool call found in the text; `arguments` is JSON text, unfinished while the text is."""

    id: str
    name: str
    arguments: str


class ParsedMessage(msgspec.Struct, frozen=True):
    """Generated text taken apart. `complete` is False if more may come, or if it did not match to its end."""

    content: str
    reasoning_content: str
    tool_calls: tuple[ParsedCall, ...]
    complete: bool


def _message(message: ChatMessage) -> dict[str, object]:
    """Write a message in OpenAI's form, which the chat library reads."""
    if message.images:
        raise NotYetSupported("pictures and sound in messages are not supported yet")
    form: dict[str, object] = {"role": message.role, "content": message.content}
    if message.thinking:
        form["reasoning_content"] = message.thinking
    if message.tool_calls:
        form["tool_calls"] = [
            {
                "type": "function",
                "id": call.id,
                "function": {"name": call.name, "arguments": call.arguments_json},
            }
            for call in message.tool_calls
        ]
    if message.tool_name:
        form["name"] = message.tool_name
    if message.tool_call_id:
        form["tool_call_id"] = message.tool_call_id
    return form


def _thinking(think: Think | None) -> dict[str, object]:
    """Absent means on, as Ollama has it for models that can; a level also reaches the template by name."""
    if isinstance(think, str):
        return {"enable_thinking": True, "chat_template_kwargs": {"reasoning_effort": think}}
    return {"enable_thinking": think is not False}


class ChatTemplate(Handle):
    """A model's chat template, or one that replaces it. May be used from any thread."""

    def __init__(self, model: Model, jinja: str | None = None) -> None:
        """Read the template; some milliseconds.

        Raises:
            ChatTemplateFailed: it does not parse; the message is the library's.
        """
        out = new_pointer("olm_chat **")
        text = ffi.NULL if jinja is None else jinja.encode()
        check(lib.olm_chat_new(model.pointer, text, out))
        super().__init__(out[0], lib.olm_chat_free, "a chat template")

    def caps(self) -> TemplateCaps:
        """Return what the template can do."""
        pointer = self.pointer
        text = take_text(lambda out: lib.olm_chat_caps_json(pointer, out))
        return msgspec.json.decode(text, type=TemplateCaps)

    def render(
        self,
        messages: Sequence[ChatMessage],
        *,
        tools_json: str = "",
        think: Think | None = None,
        tool_choice: Literal["auto", "required", "none"] = "auto",
        extra: Mapping[str, object] | None = None,
    ) -> Rendered:
        """Render a conversation: 0.5 to 8 ms, more for hundreds of messages, so use a thread.

        Args:
            messages: the conversation; system messages are where the template wants them.
            tools_json: a JSON array of tools in OpenAI's form, or empty.
            think: see `ChatPrompt`.
            extra: more of `olm_chat_apply`'s JSON: json_schema, chat_template_kwargs, continue_final_message,
                add_generation_prompt, now_s…

        Raises:
            ChatTemplateFailed: the template failed; the message is its own.
            InvalidArgument: a message or tool is malformed.
            NotYetSupported: a message carries pictures or sound.
        """
        request: dict[str, object] = {
            **_thinking(think),
            "messages": [_message(message) for message in messages],
            "tool_choice": tool_choice,
        }
        if tools_json:
            request["tools"] = msgspec.Raw(tools_json.encode())
        for key, value in (extra or {}).items():
            known = request.get(key)
            merge = isinstance(known, dict) and isinstance(value, Mapping)
            request[key] = {**known, **value} if merge else value  # type: ignore[dict-item]  # both are mappings here
        data = msgspec.json.encode(request)
        pointer = self.pointer
        text = take_text(lambda out: lib.olm_chat_apply(pointer, data, out))
        return msgspec.json.decode(text, type=Rendered)

    @staticmethod
    def parse(parser: msgspec.Raw, text: str, *, partial: bool) -> ParsedMessage:
        """Take generated text apart. The whole text is read each time.

        Args:
            parser: `Rendered.parser`.
            partial: more will come; else what does not match stands in `content`, and that is no error.

        Raises:
            ParseFailed: a partial text that can no longer match.
        """
        data = text.encode("utf-8", "replace")
        blob = bytes(parser)
        answer = take_text(lambda out: lib.olm_chat_parse(blob, data, len(data), partial, out))
        return msgspec.json.decode(answer, type=ParsedMessage)
