"""Tools of the Responses API: functions in flat form, and the choice among them, as the chat API has them. Pure.

`namespace` groups become functions named `group.function`, as in Ollama (spec/ollama §2.5); their calls are told with
both names again. Web search is Ollama's cloud, so its tool is left out; other hosted tools are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs
import msgspec

from olm.api import schemas_responses as wire
from olm.api.dialects.common import quoted
from olm.api.dialects.tools import Tools, only_tools, read_tools, tool_choice
from olm.chat.types import ToolChoice
from olm.errors import InvalidRequest

__all__ = ["ResponsesTools", "read_responses_tools"]

_NO_PARAMETERS: Final = b'{"type":"object","properties":{}}'


@attrs.frozen
class ResponsesTools:
    """The tools of a request.

    Attributes:
        tools: as the models take them. choice: the choice among them.
        told: the tools as the client sent them, without those that were left out.
        groups: the group and the short name of each function that is in a group, by its full name.
    """

    tools: Tools
    choice: ToolChoice
    told: Sequence[msgspec.Raw] = ()
    groups: Mapping[str, tuple[str, str]] = attrs.field(factory=dict)


@attrs.frozen
class _Function:
    name: str
    json: bytes
    group: tuple[str, str] | None = None


def read_responses_tools(raw: msgspec.Raw, choice: object) -> ResponsesTools:
    """Translate the fields `tools` and `tool_choice`.

    Raises:
        InvalidRequest: a hosted tool, a function without a name, or a choice that the tools do not allow.
    """
    functions: list[_Function] = []
    told: list[msgspec.Raw] = []
    for entry, tool in _entries(raw):
        found = list(_functions(tool))
        if found:
            functions += found
            told.append(entry)
    mode, allowed = _choice(choice)
    text = b"[" + b",".join(function.json for function in functions) + b"]"
    try:
        tools = read_tools(msgspec.Raw(text))
    except InvalidRequest as exc:
        raise _refusal(exc.message) from exc
    try:
        kept = tools if allowed is None else only_tools(tools, allowed)
        wanted = tool_choice(mode, kept)
    except InvalidRequest as exc:
        raise _refusal(exc.message, "tool_choice") from exc
    return ResponsesTools(
        kept,
        wanted,
        told,
        {function.name: function.group for function in functions if function.group},
    )


def _refusal(message: str, param: str = "tools") -> InvalidRequest:
    return InvalidRequest(message, param=param)


def _entries(raw: msgspec.Raw) -> Iterator[tuple[msgspec.Raw, wire.ResponsesTool]]:
    text = bytes(raw).strip()
    if text in (b"", b"null"):
        return
    try:
        entries = msgspec.json.decode(text, type=list[msgspec.Raw])
    except ValueError:
        raise _refusal("tools must be an array") from None
    for index, entry in enumerate(entries):
        try:
            # Checked and copied: the raw field would keep the whole body, and may be no UTF-8.
            whole = msgspec.Raw(bytes(entry).decode().encode())
            yield whole, msgspec.json.decode(entry, type=wire.ResponsesTool)
        except ValueError as exc:
            raise _refusal(f"tools[{index}]: {exc}") from None


def _functions(tool: wire.ResponsesTool) -> Iterator[_Function]:
    match tool.type:
        case "function":
            yield _function(tool)
        case "namespace":
            group = tool.name or ""
            for inner in tool.tools or ():
                if inner.type != "function":
                    raise _refused_type(inner)
                name = f"{group}.{inner.name or ''}"
                named = msgspec.structs.replace(inner, name=name)
                yield attrs.evolve(_function(named), group=(group, inner.name or ""))
        case str(kind) if kind.startswith("web_search"):
            return
        case _:
            raise _refused_type(tool)


def _refused_type(tool: wire.ResponsesTool) -> InvalidRequest:
    shown = quoted(tool.type or "")
    return _refusal(f'tools of type {shown} are not supported (olm takes "function")')


def _function(tool: wire.ResponsesTool) -> _Function:
    if not tool.name:
        raise _refusal("a tool must have a function with a name")
    parameters = bytes(tool.parameters).strip()
    if parameters in (b"", b"null"):
        parameters = _NO_PARAMETERS
    function: dict[str, object] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = msgspec.Raw(parameters)
    return _Function(tool.name, msgspec.json.encode({"type": "function", "function": function}))


def _choice(value: object) -> tuple[object, Sequence[str] | None]:
    """The choice in the chat API's form, and the only functions that may be called, None for all."""
    match value:
        case {"type": "function", "name": str(name), **rest}:
            function = {"name": _full_name(rest, name)}
            return {"type": "function", "function": function}, None
        case {"type": "allowed_tools", "mode": str(mode), "tools": list(allowed)}:
            return mode, [_allowed_name(entry) for entry in allowed]
        case _:
            return value, None


def _allowed_name(entry: object) -> str:
    match entry:
        case {"type": "function", "name": str(name), **rest}:
            return _full_name(rest, name)
        case _:
            raise _refusal(
                f"invalid tool_choice: {quoted(entry)} does not name a function", "tool_choice"
            )


def _full_name(entry: Mapping[object, object], name: str) -> str:
    group = entry.get("namespace")
    return f"{group}.{name}" if isinstance(group, str) and group else name
