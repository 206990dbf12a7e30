"""qwen3-coder, qwen3.5, ornith, nemotron-3-nano and nemotron-3.5-nano: calls with a tag for each parameter.

Sources: Ollama `model/parsers/qwen3coder.go`, `qwen35.go`, `nemotron3nano.go`; spec/ollama §10.1. All but the coder
think, and may begin a call while they do.
"""

from __future__ import annotations

from typing import Final

from olm.chat.parsers.base import CallSyntax, ParseInput, Parser, ParserFamily, parser
from olm.chat.parsers.kit.thinking import ThinkingParser, ThinkSection, think_mode
from olm.chat.parsers.kit.xml_calls import CALL, CALL_END, text_with_xml_calls, xml_lark

__all__ = ()


def _make_coder(inp: ParseInput) -> Parser:
    return text_with_xml_calls(inp.tools, inp.new_id)


def _make_thinking(inp: ParseInput) -> Parser:
    """Thinking is on unless the prompt has closed it, the request says no, or an answer goes on.

    The prompt comes first: nemotron's obeys `/no_think` in messages, and does not go on with answers.
    """
    mode = think_mode(inp, is_on=inp.think is not False and not inp.prefill, unsaid="open")
    section = ThinkSection(mode, cuts=(CALL,) if inp.tools else ())
    return ThinkingParser(section, _make_coder(inp))


_CALLS: Final = CallSyntax((CALL,), xml_lark)
_MARKS: Final = (CALL, CALL_END)

parser(
    "qwen3-coder",
    ParserFamily(make=_make_coder, tools=True, preserved_tokens=_MARKS, calls=_CALLS),
)
for _name in ("qwen3.5", "ornith", "nemotron-3-nano", "nemotron-3.5-nano"):
    parser(
        _name,
        ParserFamily(
            make=_make_thinking,
            tools=True,
            thinking=True,
            thinks=True,
            preserved_tokens=("<think>", "</think>", *_MARKS),
            think_start="<think>",
            think_ends=("</think>",),
            calls=_CALLS,
        ),
    )
