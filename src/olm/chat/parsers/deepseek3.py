"""deepseek3 and cogito: thinking up to `</think>`, then content with a section of calls between DeepSeek's tokens.

A call of deepseek3 is `NAME<｜tool▁sep｜>{json}`, one of cogito `function<｜tool▁sep｜>NAME` and its arguments in a JSON
code block. Sources: Ollama `model/parsers/deepseek3.go`, `cogito.go`; spec/ollama §10.1. Outputs of tools that a model
makes up itself are content of deepseek3, and dropped from cogito's, which thinks only without tools.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from olm.chat.parsers.base import CallSyntax, ParseInput, Parser, ParserFamily, parser
from olm.chat.parsers.kit.calls import CallWriter
from olm.chat.parsers.kit.lark import json_value, literal, parameters_schema, section_rules
from olm.chat.parsers.kit.named_json import NamedJson, NamedJsonCalls
from olm.chat.parsers.kit.sections import SectionReader, TextSection, TextWithSections
from olm.chat.parsers.kit.thinking import ThinkingParser, ThinkSection, think_mode
from olm.chat.tools import Tool

__all__ = ()

_CALLS: Final = "<｜tool▁calls▁begin｜>"
_CALLS_END: Final = "<｜tool▁calls▁end｜>"
_CALL: Final = "<｜tool▁call▁begin｜>"
_CALL_END: Final = "<｜tool▁call▁end｜>"
_DIVIDER: Final = "<｜tool▁sep｜>"
_OUTPUTS: Final = "<｜tool▁outputs▁begin｜>"
_OUTPUTS_END: Final = "<｜tool▁outputs▁end｜>"
_OUTPUT: Final = "<｜tool▁output▁begin｜>"
_OUTPUT_END: Final = "<｜tool▁output▁end｜>"
_MARKS: Final = (_CALLS, _CALLS_END, _CALL, _CALL_END, _DIVIDER, _OUTPUT, _OUTPUT_END)
_PLAIN: Final = NamedJson(begin=_CALL, end=_CALL_END, section_end=_CALLS_END, divider=_DIVIDER)
_FENCED: Final = NamedJson(
    begin=_CALL,
    end=_CALL_END,
    section_end=_CALLS_END,
    kind=_DIVIDER,
    divider="```json",
    fence="```",
)


def _make_deepseek(inp: ParseInput) -> Parser:
    def open_output(marker: str) -> SectionReader:
        return TextSection((_OUTPUT_END,), "content")

    return _make(inp, _PLAIN, {_OUTPUT: open_output}, may_think=True)


def _make_cogito(inp: ParseInput) -> Parser:
    def open_outputs(marker: str) -> SectionReader:
        return TextSection((_OUTPUTS_END,), None)

    return _make(inp, _FENCED, {_OUTPUTS: open_outputs}, may_think=not inp.tools)


def _make(
    inp: ParseInput,
    syntax: NamedJson,
    outputs: dict[str, Callable[[str], SectionReader]],
    *,
    may_think: bool,
) -> Parser:
    writer = CallWriter(inp.new_id)

    def open_calls(marker: str) -> SectionReader:
        return NamedJsonCalls(writer, syntax, marker)

    mode = think_mode(inp, is_on=bool(inp.think) and not inp.prefill and may_think)
    return ThinkingParser(ThinkSection(mode), TextWithSections({_CALLS: open_calls, **outputs}))


def _deepseek_lark(tools: Sequence[Tool], parallel: bool) -> str:
    calls = [
        f"{literal(_CALL + tool.name + _DIVIDER)} {_arguments(tool)} {literal(_CALL_END)}"
        for tool in tools
    ]
    return section_rules(literal(_CALLS), calls, literal(_CALLS_END), parallel=parallel)


def _cogito_lark(tools: Sequence[Tool], parallel: bool) -> str:
    begin, end = f"{_CALL}function{_DIVIDER}", literal(f"\n```{_CALL_END}")
    calls = [
        f"{literal(f'{begin}{tool.name}' + _FENCE)} {_arguments(tool)} {end}" for tool in tools
    ]
    between = literal("\n")
    return section_rules(
        literal(_CALLS), calls, literal(_CALLS_END), parallel=parallel, between=between
    )


_FENCE: Final = "\n```json\n"


def _arguments(tool: Tool) -> str:
    return json_value(parameters_schema(tool))


for _name, _maker, _lark, _more in (
    ("deepseek3", _make_deepseek, _deepseek_lark, ()),
    ("cogito", _make_cogito, _cogito_lark, (_OUTPUTS, _OUTPUTS_END)),
):
    parser(
        _name,
        ParserFamily(
            make=_maker,
            tools=True,
            thinking=True,
            preserved_tokens=("</think>", *_MARKS, *_more),
            think_start="<think>",
            think_ends=("</think>",),
            calls=CallSyntax((_CALLS,), _lark),
        ),
    )
