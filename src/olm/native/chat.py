"""The GGUF's own Jinja template: from messages to a prompt, and from generated text back to events, by llama.cpp.

Go templates and named renderers live elsewhere (`olm.template`, `olm.chat`); `olm.chat.ways` chooses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, Literal, Protocol, assert_never, cast

import attrs
import msgspec

from olm.chat.media import with_marks
from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.rendering import Rendered, ThinkTags, ToolGrammar
from olm.chat.tools import read_tools
from olm.chat.types import AnswerEvent, ChatMessage, ChatPrompt, Piece, ToolChoice
from olm.errors import InvalidRequest
from olm.native import lib as native
from olm.native.handles import Handle, Model
from olm.native.lib import Pointer, check, ffi, lib, new_pointer, take_text

__all__ = [
    "Applied",
    "ChatTemplate",
    "JinjaParser",
    "ParsedCall",
    "ParsedMessage",
    "TemplateCaps",
    "Trigger",
    "parse_whole",
]


class _ParserLib(Protocol):
    """The C functions of a parser; `native/decl/chat.h` has their description."""

    def olm_chat_parser_new(self, parser: bytes, out: object) -> int: ...
    def olm_chat_parser_free(self, parser: Pointer) -> None: ...
    def olm_chat_parser_push(
        self, parser: Pointer, text: bytes, n_bytes: int, is_final: int, out: Pointer
    ) -> int: ...


_parser_lib: Final = cast("_ParserLib", native.lib)  # the extension declares them, see above


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


class Applied(msgspec.Struct, frozen=True):
    """What the library makes of a conversation; `olm_chat_apply` describes the fields.

    Attributes:
        parser: an opaque JSON value for `JinjaParser` and `parse_whole`.
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
    thinking_is_open: bool
    thinking_is_over: bool
    is_plain: bool
    parser: msgspec.Raw


class ChatTemplate(Handle):
    """A model's chat template, or one that replaces it. May be used from any thread."""

    def __init__(self, model: Model, jinja: str | None = None) -> None:
        """Read the template; some milliseconds.

        Raises:
            ChatTemplateFailed: it does not parse; the message is the library's.
        """
        out = new_pointer("olm_chat **")
        text = ffi.NULL if jinja is None else jinja.encode("utf-8", "replace")
        check(lib.olm_chat_new(model.pointer, text, out))
        super().__init__(out[0], lib.olm_chat_free, "a chat template")

    def caps(self) -> TemplateCaps:
        """Return what the template can do."""
        pointer = self.pointer
        text = take_text(lambda out: lib.olm_chat_caps_json(pointer, out))
        return msgspec.json.decode(text, type=TemplateCaps)

    def render(self, prompt: ChatPrompt, *, new_id: Callable[[], str]) -> Rendered:
        """Render a conversation. 100 messages take 2 to 6 ms; new tools, some more the first time: use a thread.

        A last assistant message with content and without calls is continued. `style` is not looked at.

        Args:
            new_id: makes the id of a call where the model writes none.

        Raises:
            ChatTemplateFailed: the template failed; the message names the line and is its own.
            InvalidRequest: a message, a tool or the template's variables are malformed.
        """
        applied = self.apply(prompt)
        think = None
        if applied.supports_thinking and applied.thinking_ends and not applied.thinking_is_over:
            think = ThinkTags(
                applied.thinking_start, applied.thinking_ends, applied.thinking_is_open
            )
        return Rendered(
            text=applied.prompt,
            make_parser=partial(JinjaParser, bytes(applied.parser), new_id),
            stops=applied.stops,
            preserved_tokens=applied.preserved_tokens,
            think=think,
            calls=self._beside_form(prompt, _tool_grammar(applied)),
        )

    def _beside_form(self, prompt: ChatPrompt, calls: ToolGrammar | None) -> ToolGrammar | None:
        """Add the grammar that the library has for a required call, if a form is asked for and a call only may come."""
        if calls is None or not calls.triggers or not prompt.has_form:
            return calls
        required = msgspec.structs.replace(prompt, tool_choice=ToolChoice("required"))
        return attrs.evolve(calls, beside_form=self.apply(required).grammar)

    def apply(self, prompt: ChatPrompt, *, fresh: bool = False) -> Applied:
        """Do the work of `render`, and return what the library says.

        Args:
            fresh: let the library analyse the template anew, as a first request does.

        Raises:
            ChatTemplateFailed, InvalidRequest: see `render`.
        """
        request = _request(prompt)
        request["fresh"] = fresh
        try:
            data = msgspec.json.encode(request)
        except UnicodeEncodeError as exc:
            raise InvalidRequest(
                f"a message holds text that is no valid Unicode: {exc.reason}"
            ) from exc
        pointer = self.pointer
        text = take_text(lambda out: lib.olm_chat_apply(pointer, data, out))
        return msgspec.json.decode(text, type=Applied)


# -- the request ---------------------------------------------------------------------------------------


def _request(prompt: ChatPrompt) -> dict[str, object]:
    """Write a prompt as `olm_chat_apply` reads it."""
    kwargs = _template_kwargs(prompt)
    messages, n_items = [], 0
    for message in prompt.messages:
        messages.append(_message(message, n_items))
        n_items += len(message.images)
    request: dict[str, object] = {
        "messages": messages,
        # A choice of none is kept by forbidding what begins a call, which only the rules for calls tell.
        "tool_choice": "required" if prompt.tool_choice.mode == "required" else "auto",
        "parallel_tool_calls": prompt.parallel_tool_calls,
        "chat_template_kwargs": kwargs,
        "enable_thinking": kwargs.get("enable_thinking", True),
    }
    if prompt.tool_choice.mode == "required" and prompt.tool_choice.name:
        request["call_only"] = prompt.tool_choice.name
    tools = read_tools(prompt.tools_json)
    if tools:
        request["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                },
            }
            for tool in tools
        ]
    if _is_to_be_continued(prompt.messages):
        request["continue_final_message"] = True
    return request


def _is_to_be_continued(messages: Sequence[ChatMessage]) -> bool:
    if not messages:
        return False
    last = messages[-1]
    return last.role == "assistant" and bool(last.content) and not last.tool_calls


def _message(message: ChatMessage, first_item: int) -> dict[str, object]:
    """Write a message in OpenAI's form, which the chat library reads."""
    form: dict[str, object] = {"role": message.role, "content": with_marks(message, first_item)}
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


def _template_kwargs(prompt: ChatPrompt) -> Mapping[str, object]:
    """Gather the template's variables: those of `think`, and the request's own, which win.

    Absent thinking means on, as Ollama has it for models that can. Templates read it from `enable_thinking` (Qwen,
    GLM), `thinking` (DeepSeek, Granite) or, for levels, `reasoning_effort` (gpt-oss).
    """
    kwargs: dict[str, object] = {}
    if prompt.think is not None:
        kwargs["enable_thinking"] = kwargs["thinking"] = prompt.think is not False
    if isinstance(prompt.think, str):
        kwargs["reasoning_effort"] = prompt.think
    if prompt.template_kwargs_json:
        try:
            own = msgspec.json.decode(prompt.template_kwargs_json, type=dict[str, object])
        except (msgspec.MsgspecError, RecursionError) as exc:
            raise InvalidRequest(f"chat_template_kwargs must be a JSON object: {exc}") from exc
        kwargs.update(own)
    if not isinstance(kwargs.get("enable_thinking", True), bool):
        raise InvalidRequest("chat_template_kwargs: enable_thinking must be true or false")
    return kwargs


# -- the answer ----------------------------------------------------------------------------------------

_PATTERN_SIGNS: Final = frozenset(".^$*+?{}[]|()")


def _tool_grammar(applied: Applied) -> ToolGrammar | None:
    """Return the grammar of calls, if what arms it can be said in plain texts."""
    texts = [_plain_text(trigger) for trigger in applied.triggers]
    if not (applied.grammar and all(texts)):
        return None
    if not applied.grammar_lazy:
        return ToolGrammar(applied.grammar)
    return ToolGrammar(applied.grammar, tuple(texts)) if texts else None


def _plain_text(trigger: Trigger) -> str:
    """Write a trigger as the text that it stands for; "" when it stands for more than one."""
    if trigger.type in ("word", "token"):
        return trigger.value
    bare = re.sub(r"\\[^A-Za-z0-9]", "", trigger.value)
    if trigger.type != "pattern" or "\\" in bare or _PATTERN_SIGNS.intersection(bare):
        return ""
    return re.sub(r"\\(.)", r"\1", trigger.value, flags=re.DOTALL)


_Kind = Literal["c", "t", "s", "a", "e", "b", "m"]
_decoder: Final = msgspec.json.Decoder(list[tuple[_Kind, str, str]])


class JinjaParser:
    """Reads one answer by the grammar that the library found in the template: a `Parser` of `olm.chat`.

    A token costs some microseconds at any length. What the grammar does not take comes back as content, malformed if
    there is the beginning of a call in it. For one thread at a time.
    """

    def __init__(self, parser: bytes, new_id: Callable[[], str]) -> None:
        """Make the parser of an answer; some hundred microseconds, more with many tools.

        Args:
            parser: `Applied.parser`.
        """
        out = cast("Pointer", ffi.new("olm_chat_parser **"))  # cffi makes what the kind says
        check(_parser_lib.olm_chat_parser_new(parser, out))
        # Nobody closes parsers: an answer may be cut off at any time. The collector frees them without a word.
        self._pointer = ffi.gc(out[0], _parser_lib.olm_chat_parser_free)
        self._out = new_pointer("char **")
        self._calls = CallWriter(new_id)

    def push(self, text: str) -> list[AnswerEvent]:
        """Take more text."""
        return self._push(text, is_final=False)

    def finish(self) -> list[AnswerEvent]:
        """The text is over: give out what was held back."""
        return self._push("", is_final=True)

    def _push(self, text: str, *, is_final: bool) -> list[AnswerEvent]:
        data, out = text.encode("utf-8", "replace"), self._out
        check(_parser_lib.olm_chat_parser_push(self._pointer, data, len(data), is_final, out))
        if out[0] == ffi.NULL:
            return []
        try:
            news = _decoder.decode(ffi.string(out[0]))
        finally:
            lib.olm_free(out[0])
        events: list[AnswerEvent] = []
        for kind, written, call_id in news:
            events += self._events(kind, written, call_id)
        return events

    def _events(self, kind: _Kind, written: str, call_id: str) -> list[AnswerEvent]:
        match kind:
            case "c":
                return [Piece(content=written)]
            case "t":
                return [Piece(thinking=written)]
            case "m":
                return [Piece(content=written, malformed=True)]
            case "s":
                return self._calls.start(written, call_id)
            case "a":
                return self._calls.arguments(written)
            case "e":
                return self._calls.end()
            case "b":
                return self._calls.fail(written)
            case _:
                assert_never(kind)


# -- the library's own reading -------------------------------------------------------------------------


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


def parse_whole(parser: bytes, text: str, *, partial: bool = False) -> ParsedMessage:
    """Take generated text apart as llama.cpp does, all of it each time: what `JinjaParser` is held to.

    Args:
        parser: `Applied.parser`.
        partial: more will come; else a text that does not match stands in `content`, and that is no error.

    Raises:
        ParseFailed: a partial text that can no longer match.
    """
    data = text.encode("utf-8", "replace")
    answer = take_text(lambda out: lib.olm_chat_parse(parser, data, len(data), partial, out))
    return msgspec.json.decode(answer, type=ParsedMessage)
