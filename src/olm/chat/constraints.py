"""What an answer must look like, as the one grammar that the engine holds it to: format, tools and tool choice together.

Pure text to text; grammars are compiled, and so finally checked, by the engine (`olm.native.engine`). The rules of a
family's tool calls come from its `CallSyntax`, helpers for writing them are in `parsers.kit.lark`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final, assert_never

import attrs
import msgspec

from olm.chat.grammar import AnswerGrammar
from olm.chat.jsontext import compact_json
from olm.chat.parsers.base import CallSyntax
from olm.chat.rendering import ToolGrammar
from olm.chat.tools import Tool
from olm.chat.types import Constraint, ToolChoice
from olm.errors import InvalidRequest, NotSupported

__all__ = ["answer_grammar"]

_BLANKS: Final = r"( |\n{1,2}[ \t]{0,20})"
"""Blanks between the parts of JSON, once in a place: as in llama.cpp's JSON grammar (common/json-schema-to-grammar.cpp).
Without a bound a small model may write blanks until the context is full."""

_OPTIONS: Final = f'"whitespace_pattern":{json.dumps(_BLANKS)}'
_GUIDANCE: Final = "x-guidance"
"""Key of a schema with llguidance's own options."""

_MAX_CHOICES: Final = 10_000
_KEPT_GRAMMARS: Final = 32
"""GBNF of tools takes some milliseconds to convert, and is the same in every turn of an agent."""
_START_CALLS: Final = "start: calls\n"


def answer_grammar(
    constraint: Constraint | None,
    *,
    calls: CallSyntax | ToolGrammar | None = None,
    tools: Sequence[Tool] = (),
    choice: ToolChoice | None = None,
    parallel: bool = True,
    headers: Sequence[str] = (),
) -> AnswerGrammar | None:
    """Compose what an answer must match; None when anything goes.

    Schemas of tools are a help: where one cannot be compiled, the answer falls back to calls with arguments of any form.

    Args:
        constraint: the format that the request asks of the content.
        calls: how the model writes tool calls. A `ToolGrammar` was made for these tools and this choice already.
        tools: what may be called.
        choice: whether calls may, must or must not come; None for may.
        parallel: several calls may come in one answer.
        headers: texts of the model's own, one of which must stand before content that has a format.

    Raises:
        InvalidRequest: the constraint is malformed, or the choice names no tool of the request.
        NotSupported: calls are required of a model whose syntax is not known.
    """
    grammar = _compose(constraint, calls, tools, choice, parallel, headers)
    # With triggers the engine leaves out what cannot be compiled.
    if grammar is None or grammar.triggers or not isinstance(calls, CallSyntax):
        return grammar
    bare = [attrs.evolve(tool, parameters={}) for tool in tools]
    loose = _compose(constraint, calls, bare, choice, parallel, headers)
    if loose is None or loose.text == grammar.text:
        return grammar
    return msgspec.structs.replace(grammar, fallback=loose.text)


def _compose(
    constraint: Constraint | None,
    calls: CallSyntax | ToolGrammar | None,
    tools: Sequence[Tool],
    choice: ToolChoice | None,
    parallel: bool,
    headers: Sequence[str],
) -> AnswerGrammar | None:
    if choice is not None and choice.mode == "required":
        return _required_calls(calls, tools, choice, parallel)
    answer = None if constraint is None else _format(constraint)
    if calls is not None and choice is not None and choice.mode == "none":
        if answer is None:
            return _without(calls.triggers)
        calls = None
    if answer is not None and isinstance(calls, ToolGrammar):
        calls = attrs.evolve(calls, gbnf=calls.beside_form or calls.gbnf)
    rules = None if calls is None or not tools else _rules(calls, tools, parallel)
    if answer is not None:
        return _one_of(rules, answer, headers) if rules or headers else answer
    if rules is None or calls is None:
        return None
    return msgspec.structs.replace(rules, triggers=calls.triggers, ends=not parallel)


def _required_calls(
    calls: CallSyntax | ToolGrammar | None,
    tools: Sequence[Tool],
    choice: ToolChoice,
    parallel: bool,
) -> AnswerGrammar:
    wanted = [tool for tool in tools if choice.name in {"", tool.name}]
    if not wanted:
        what = f'no tool "{choice.name}"' if choice.name and tools else "no tools"
        raise InvalidRequest(f"tool_choice asks for a tool call, but the request has {what}")
    if calls is None:
        raise NotSupported("tool_choice: this model's tool calls cannot be enforced")
    return _rules(calls, wanted, parallel)


def _rules(calls: CallSyntax | ToolGrammar, tools: Sequence[Tool], parallel: bool) -> AnswerGrammar:
    if isinstance(calls, ToolGrammar):
        return AnswerGrammar("lark", _lark_of_gbnf(calls.gbnf))
    return AnswerGrammar("lark", _START_CALLS + _bounded(calls.lark(tools, parallel)))


def _one_of(
    calls: AnswerGrammar | None, answer: AnswerGrammar, headers: Sequence[str]
) -> AnswerGrammar:
    """Allow calls or the format, each of them whole.

    Where possible as rules of one grammar: of two grammars that begin alike llguidance would only ever follow the first.
    """
    head = f"({_literals(headers)}) " if headers else ""
    rule = _rule(answer)
    if rule and (calls is None or calls.text.startswith(_START_CALLS)):
        start = "start: answer\n" if calls is None else "start: calls | answer\n"
        rules = "" if calls is None else calls.text.removeprefix(_START_CALLS)
        return AnswerGrammar("lark", f"{start}answer: {head}{rule}\n{rules}")
    start = f"start: {head}@answer" + ("" if calls is None else " | @calls")
    grammars = [
        {"name": "either", "lark_grammar": start},
        {"name": "answer", "lark_grammar": f"start: {rule}" if rule else answer.text},
    ]
    if calls is not None:
        grammars.append({"name": "calls", "lark_grammar": calls.text})
    return AnswerGrammar("llguidance", json.dumps({"grammars": grammars}, ensure_ascii=False))


def _literals(texts: Sequence[str]) -> str:
    return " | ".join(json.dumps(text, ensure_ascii=False) for text in texts)


def _rule(grammar: AnswerGrammar) -> str:
    """Write a grammar as the right-hand side of a rule; empty if it is one of several rules."""
    match grammar.kind:
        case "json_schema":
            return f"%json {grammar.text}"
        case "regex":
            return f"/{_lark_regex(grammar.text)}/"
        case "lark" | "llguidance":
            return ""
        case _:
            assert_never(grammar.kind)


def _without(triggers: Sequence[str]) -> AnswerGrammar | None:
    """Allow any text in which no call begins."""
    if not triggers:
        return None
    return AnswerGrammar(
        "lark",
        "start: TEXT\nTEXT: ANY & ~(ANY TRIGGER ANY)\nANY: /(?s:.*)/\n"
        f"TRIGGER: {_literals(triggers)}\n",
    )


# -- formats ---------------------------------------------------------------------------------------


def _format(constraint: Constraint) -> AnswerGrammar:
    match constraint.kind:
        case "json":
            return AnswerGrammar("json_schema", _bounded_schema('{"type":"object"}', {}))
        case "json_schema":
            return AnswerGrammar("json_schema", _schema(constraint.text))
        case "regex":
            if not constraint.text:
                raise InvalidRequest("the regular expression is empty")
            return AnswerGrammar("regex", constraint.text)
        case "choice":
            return AnswerGrammar("lark", _choices(constraint.text))
        case "lark":
            return AnswerGrammar("lark", constraint.text)
        case "gbnf":
            return AnswerGrammar("lark", _lark_of_gbnf(constraint.text))
        case _:
            assert_never(constraint.kind)


def _loads(text: str, what: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError as exc:
        raise InvalidRequest(f"the {what} is not valid JSON: {exc}") from exc
    except RecursionError as exc:
        raise InvalidRequest(f"the {what} is nested too deeply") from exc
    return value


def _schema(text: str) -> str:
    match _loads(text, "JSON schema"):
        case dict() as schema:
            return _bounded_schema(text.strip(), schema)
        case True:
            return _bounded_schema("{}", {})
        case False:
            raise InvalidRequest("the JSON schema is false: nothing matches it")
        case _:
            raise InvalidRequest("the JSON schema must be an object")


def _bounded_schema(text: str, schema: Mapping[str, object], more: str = "") -> str:
    """Put the bound on blanks first in a schema's text, whose keys keep their order.

    A client's own options of llguidance go: with some of them what it writes is no JSON, or it gives up in mid-answer.
    """
    if _GUIDANCE in schema:
        text = compact_json({key: value for key, value in schema.items() if key != _GUIDANCE})
    rest = text[1:]
    comma = "" if rest.lstrip() == "}" else ","
    return f'{{"{_GUIDANCE}":{{{_OPTIONS}{more}}}{comma}{rest}'


def _choices(text: str) -> str:
    choices = _loads(text, "list of choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(c, str) for c in choices):
        raise InvalidRequest("the choices must be a list of texts, at least one")
    if len(choices) > _MAX_CHOICES:
        raise InvalidRequest(
            f"there are {len(choices)} choices, at most {_MAX_CHOICES} are allowed"
        )
    # As a terminal: the lexer walks 10,000 texts as one automaton, where the parser would keep a row of 10,000 items.
    return f"start: CHOICE\nCHOICE: {_literals(choices)}\n"


@lru_cache(maxsize=_KEPT_GRAMMARS)
def _lark_of_gbnf(text: str) -> str:
    return _converter()(text)


def _converter() -> Callable[[str], str]:
    try:
        # 65 ms, so here: only llama.cpp's grammars need it.
        from llguidance.gbnf_to_lark import gbnf_to_lark
    except ImportError as exc:
        raise NotSupported("GBNF grammars need the package llguidance 1.9") from exc

    def convert(text: str) -> str:
        try:
            return gbnf_to_lark(text)
        except RecursionError as exc:
            raise InvalidRequest("the grammar is nested too deeply") from exc
        except Exception as exc:  # its own errors are bare Exceptions
            raise InvalidRequest(f"the grammar is not valid GBNF: {exc}") from exc

    return convert


# -- Lark ------------------------------------------------------------------------------------------

_INLINE: Final = re.compile(r"%json\s*(?=\{)")


def _bounded(lark: str) -> str:
    """Bound the blanks in every `%json` of a grammar, and pass over what llguidance does not know in a tool's schema.

    A tool with a keyword too many can be called all the same; so it is in Ollama. What is inside the schemas' texts stays.
    """
    parts: list[str] = []
    at = 0
    decoder = json.JSONDecoder()
    while found := _INLINE.search(lark, at):
        schema, end = decoder.raw_decode(lark, found.end())
        parts += [
            lark[at : found.end()],
            _bounded_schema(lark[found.end() : end], schema, ',"lenient":true'),
        ]
        at = end
    return "".join([*parts, lark[at:]])


def _lark_regex(text: str) -> str:
    """Write a regular expression between Lark's slashes."""
    escaped = re.sub(r"\\.|/", lambda m: m[0] if len(m[0]) == 2 else "\\/", text, flags=re.DOTALL)
    return escaped.replace("\n", "\\n")
