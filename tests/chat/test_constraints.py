"""The grammar of an answer: which texts it takes, asked of llguidance itself with bytes for tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
import pytest
from llguidance import LLMatcher, LLTokenizer
from llguidance._tokenizer import TokenizerWrapper

from olm.chat.constraints import answer_grammar
from olm.chat.grammar import AnswerGrammar
from olm.chat.parsers import PARSERS
from olm.chat.parsers.base import CallSyntax
from olm.chat.parsers.kit.lark import call_rules, json_call
from olm.chat.rendering import ToolGrammar
from olm.chat.tools import Tool, read_tools
from olm.chat.types import Constraint, ConstraintKind, ToolChoice
from olm.errors import InvalidRequest, NotSupported

TOOLS = read_tools(
    json.dumps(
        [
            {
                "type": "function",
                "function": {
                    "name": name,
                    "description": "does it",
                    "parameters": {
                        "type": "object",
                        "properties": {"q": {"type": "string"}},
                        "required": ["q"],
                    },
                },
            }
            for name in ("find", "stop")
        ]
    )
)
FIND = '<call>{"name": "find", "arguments": {"q": "x"}}</call>'
STOP = '<call>{"name": "stop", "arguments": {"q": "x"}}</call>'
SCHEMA = '{"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "integer"}}, "required": ["a", "b"], "additionalProperties": false}'
REQUIRED = ToolChoice("required")
NONE = ToolChoice("none")


def _lark(tools: Sequence[Tool], parallel: bool) -> str:
    calls = [f'"<call>" {json_call(tool)} "</call>"' for tool in tools]
    return call_rules(calls, parallel=parallel)


def _bare_lark(tools: Sequence[Tool], parallel: bool) -> str:
    return call_rules([json_call(tool) for tool in tools], parallel=parallel)


CALLS = CallSyntax(("<call>",), _lark)
GBNF = ToolGrammar('root ::= "<call>" [0-9]+ "</call>"', ("<call>",))


class _Bytes:
    """A vocabulary of bytes, and an end token."""

    eos_token_id = 256
    bos_token_id = None
    tokens = [*[bytes([i]) for i in range(256)], b"<end>"]  # noqa: RUF012 # the library reads plain attributes
    special_token_ids = [256]  # noqa: RUF012

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


@pytest.fixture(scope="module")
def tokenizer() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_Bytes()))


class Taker:
    """Says of one grammar after the other which texts it takes whole."""

    def __init__(self, tokenizer: LLTokenizer) -> None:
        self._tokenizer = tokenizer

    def __call__(self, grammar: AnswerGrammar | None, text: str) -> bool:
        assert grammar is not None
        match grammar.kind:
            case "lark":
                source = LLMatcher.grammar_from_lark(grammar.text)
            case "json_schema":
                source = LLMatcher.grammar_from_json_schema(grammar.text)
            case "regex":
                source = LLMatcher.grammar_from_regex(grammar.text)
            case _:
                source = grammar.text
        matcher = LLMatcher(self._tokenizer, source, log_level=0)
        assert not matcher.is_error(), matcher.get_error()
        data = list(text.encode())
        return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()


@pytest.fixture
def takes(tokenizer: LLTokenizer) -> Taker:
    return Taker(tokenizer)


@pytest.mark.parametrize(
    ("constraint", "good", "bad"),
    [
        (Constraint("json"), ['{"a": [1, null]}', "{}"], ["[]", "1", '"x"', "{", "x{}"]),
        (Constraint("json_schema", SCHEMA), ['{"b": 1, "a": 2}'], ['{"b": 1}', '{"a": 1, "b": 2}']),
        (Constraint("json_schema", "true"), ["1", "[]", '{"a": 1}'], ["x"]),
        (Constraint("json_schema", " { } "), ["null"], [""]),
        (Constraint("regex", r"a/b\d{2}"), ["a/b12"], ["a/b1", "a/b123"]),
        (Constraint("choice", '["yes", "no \\"é\\"\\n"]'), ["yes", 'no "é"\n'], ["", "y", "yesno"]),
        (Constraint("lark", "start: /a+/ b\nb: /c/"), ["aac"], ["c"]),
        (Constraint("gbnf", 'root ::= "x" ("-" [0-9]+)? # end'), ["x", "x-12"], ["x-"]),
    ],
    ids=lambda value: value.kind if isinstance(value, Constraint) else "",
)
def test_a_format_alone(
    takes: Taker, constraint: Constraint, good: list[str], bad: list[str]
) -> None:
    grammar = answer_grammar(constraint)

    assert [text for text in good if not takes(grammar, text)] == []
    assert [text for text in bad if takes(grammar, text)] == []


def test_no_format_and_no_tools_is_no_grammar() -> None:
    assert answer_grammar(None) is None
    assert answer_grammar(None, calls=CALLS, tools=()) is None
    assert answer_grammar(None, calls=None, tools=TOOLS) is None


def test_tools_on_auto_wait_for_their_trigger(takes: Taker) -> None:
    grammar = answer_grammar(None, calls=CALLS, tools=TOOLS)

    assert grammar is not None
    assert (grammar.triggers, grammar.ends) == (("<call>",), False)
    assert takes(grammar, FIND)
    assert takes(grammar, FIND + STOP)
    assert not takes(grammar, '<call>{"name": "other", "arguments": {}}</call>')
    assert not takes(grammar, '<call>{"name": "find", "arguments": {}}</call>')


def test_one_call_and_no_more_ends_the_answer(takes: Taker) -> None:
    grammar = answer_grammar(None, calls=CALLS, tools=TOOLS, parallel=False)

    assert grammar is not None
    assert grammar.ends
    assert takes(grammar, FIND)
    assert not takes(grammar, FIND + STOP)


def test_required_calls_come_at_once(takes: Taker) -> None:
    grammar = answer_grammar(None, calls=CALLS, tools=TOOLS, choice=REQUIRED)

    assert grammar is not None
    assert grammar.triggers == ()
    assert takes(grammar, STOP)
    assert not takes(grammar, "no")


def test_a_named_tool_is_the_only_one(takes: Taker) -> None:
    choice = ToolChoice("required", "stop")

    grammar = answer_grammar(Constraint("json"), calls=CALLS, tools=TOOLS, choice=choice)

    assert takes(grammar, STOP)
    assert not takes(grammar, FIND)
    assert not takes(grammar, "{}")


def test_no_calls_means_no_trigger_in_the_text(takes: Taker) -> None:
    grammar = answer_grammar(None, calls=CALLS, tools=TOOLS, choice=NONE)

    assert takes(grammar, "any <text>\nat all, é, <cal and <ca")
    assert takes(grammar, "")
    assert not takes(grammar, "well: <call>{}")


def test_no_calls_and_a_format_is_the_format(takes: Taker) -> None:
    grammar = answer_grammar(Constraint("json"), calls=CALLS, tools=TOOLS, choice=NONE)

    assert grammar == answer_grammar(Constraint("json"))


@pytest.mark.parametrize(
    ("constraint", "good"),
    [
        (Constraint("json"), '{"x": 1}'),
        (Constraint("json_schema", SCHEMA), '{"b": 1, "a": 2}'),
        (Constraint("regex", "a/b\n[0-9]"), "a/b\n7"),
        (Constraint("choice", '["yes", "no"]'), "no"),
        (Constraint("lark", 'start: "s" X\nX: /[0-9]/'), "s1"),
        (Constraint("gbnf", 'root ::= "g" [0-9]'), "g1"),
    ],
    ids=lambda value: value.kind if isinstance(value, Constraint) else "",
)
@pytest.mark.parametrize("calls", [CALLS, GBNF], ids=["lark", "gbnf"])
def test_a_format_and_tools_are_either(
    takes: Taker, constraint: Constraint, good: str, calls: CallSyntax | ToolGrammar
) -> None:
    grammar = answer_grammar(constraint, calls=calls, tools=TOOLS)
    call = FIND if calls is CALLS else "<call>12</call>"

    assert grammar is not None
    assert grammar.triggers == ()
    assert takes(grammar, good)
    assert takes(grammar, call)
    assert not takes(grammar, good + call)
    assert not takes(grammar, "text")


def test_a_form_beside_calls_of_a_template_is_never_left_out(takes: Taker) -> None:
    blank = 'root ::= ("<call>" [0-9]+ "</call>")? [\\n]*'
    calls = ToolGrammar(blank, ("<call>",), beside_form=GBNF.gbnf)

    either = answer_grammar(Constraint("json_schema", SCHEMA), calls=calls, tools=TOOLS)

    assert takes(either, "<call>1</call>")
    assert takes(either, '{"b": 1, "a": 2}')
    assert not takes(either, "")
    assert not takes(either, "\n")
    assert takes(answer_grammar(None, calls=calls, tools=TOOLS), "<call>1</call>")


def test_calls_that_look_like_the_format_are_told_apart(takes: Taker) -> None:
    bare = CallSyntax(('{"name"',), _bare_lark)

    grammar = answer_grammar(Constraint("json_schema", SCHEMA), calls=bare, tools=TOOLS)

    assert takes(grammar, '{"b": 1, "a": 2}')
    assert takes(grammar, '{"name": "find", "arguments": {"q": "x"}}')
    assert not takes(grammar, '{"name": "find", "a": 2}')


@pytest.mark.parametrize("kind", ["json", "lark"])
def test_a_header_stands_before_a_format_only(takes: Taker, kind: ConstraintKind) -> None:
    text = 'start: "{}"' if kind == "lark" else ""
    headers = ("<head>", "<other>")

    alone = answer_grammar(Constraint(kind, text), headers=headers)
    either = answer_grammar(Constraint(kind, text), calls=CALLS, tools=TOOLS, headers=headers)

    for grammar in (alone, either):
        assert takes(grammar, "<head>{}")
        assert takes(grammar, "<other>{}")
        assert not takes(grammar, "{}")
    assert takes(either, FIND)
    assert answer_grammar(None, headers=headers) is None


@pytest.mark.parametrize("constraint", [Constraint("json"), Constraint("json_schema", SCHEMA)])
def test_blanks_in_json_are_bounded(takes: Taker, constraint: Constraint) -> None:
    grammar = answer_grammar(constraint)
    text = '{"b":%s1, "a": 2}' if constraint.text else '{"b":%s1}'

    assert all(takes(grammar, text % blanks) for blanks in ("", " ", "\n    ", "\n\n\t\t"))
    assert not any(takes(grammar, text % blanks) for blanks in ("   ", "\n\n\n", "\n" + " " * 21))


@pytest.mark.parametrize("key", ["x-guidance", r"\u0078-guidance"])
def test_a_schema_keeps_the_order_of_its_keys_but_not_options_of_the_library(
    takes: Taker, key: str
) -> None:
    own = (
        '{"%s": {"item_separator": "@"}, "properties": {"z": {}, "a": {}}, "required": ["z", "a"]}'
    )

    grammar = answer_grammar(Constraint("json_schema", own % key))

    assert takes(grammar, '{"z": 1, "a": 2}')
    assert not takes(grammar, '{"z": 1@"a": 2}')
    assert not takes(grammar, '{"a": 2, "z": 1}')


@pytest.mark.parametrize("form", ["calls: %%json %s", 'calls: "<" %%json {"items":%s} ">"'])
def test_a_tool_brings_no_options_of_the_library_either(takes: Taker, form: str) -> None:
    own = {"x-guidance": {"item_separator": "@"}, "required": ["q", "r"]}
    tools = read_tools(json.dumps([{"function": {"name": "own", "parameters": own}}]))
    calls = CallSyntax((), lambda tools, _: form % json.dumps(tools[0].parameters))
    frame = "<[%s]>" if "items" in form else "%s"

    grammar = answer_grammar(None, calls=calls, tools=tools)

    assert takes(grammar, frame % '{"q": 1, "r": 2}')
    assert not takes(grammar, frame % '{"q": 1@"r": 2}')


@pytest.mark.parametrize("constraint", [None, Constraint("json_schema", SCHEMA)])
def test_calls_without_schemas_stand_in_for_schemas_that_cannot_be(
    takes: Taker, constraint: Constraint | None
) -> None:
    own = {"type": "object", "properties": {"q": {"pattern": "(?=x)"}}, "required": ["q"]}
    tools = read_tools(json.dumps([{"function": {"name": "odd", "parameters": own}}]))
    choice = REQUIRED if constraint is None else None

    grammar = answer_grammar(constraint, calls=CALLS, tools=tools, choice=choice)

    assert grammar is not None
    loose = msgspec.structs.replace(grammar, text=grammar.fallback)
    assert takes(loose, '<call>{"name": "odd", "arguments": {"any": 1}}</call>')
    assert not takes(loose, '<call>{"name": "other", "arguments": {}}</call>')
    assert takes(loose, '{"b": 1, "a": 2}') == (constraint is not None)


def test_a_form_without_tools_has_nothing_to_fall_back_to() -> None:
    formed = answer_grammar(Constraint("json"), calls=CALLS)
    silent = answer_grammar(Constraint("json"), calls=CALLS, tools=TOOLS, choice=NONE)

    assert formed is not None
    assert silent is not None
    assert formed.fallback == silent.fallback == ""


def test_a_tool_with_keywords_that_are_not_known_can_be_called(takes: Taker) -> None:
    odd = {"type": "object", "properties": {"q": {"type": "string", "format": "int32", "not": {}}}}
    tools = read_tools(json.dumps([{"function": {"name": "odd", "parameters": odd}}]))

    grammar = answer_grammar(None, calls=CALLS, tools=tools)

    assert takes(grammar, '<call>{"name": "odd", "arguments": {"q": "x"}}</call>')


@pytest.mark.parametrize("name", sorted(n for n, family in PARSERS.items() if family.calls))
@pytest.mark.parametrize("parallel", [True, False])
def test_the_calls_of_every_family_compile_with_and_without_a_format(
    takes: Taker, name: str, parallel: bool
) -> None:
    calls = PARSERS[name].calls

    for constraint in (None, Constraint("json_schema", SCHEMA)):
        for choice in (None, REQUIRED, NONE):
            grammar = answer_grammar(
                constraint, calls=calls, tools=TOOLS, choice=choice, parallel=parallel
            )
            takes(grammar, "")
    either = answer_grammar(Constraint("json_schema", SCHEMA), calls=calls, tools=TOOLS)
    assert takes(either, '{"b": 1, "a": 2}')


@pytest.mark.parametrize(
    ("constraint", "reason"),
    [
        (Constraint("json_schema", "{"), "not valid JSON"),
        (Constraint("json_schema", ""), "not valid JSON"),
        (Constraint("json_schema", "[" * 100_000), "nested too deeply"),
        (Constraint("json_schema", "[]"), "must be an object"),
        (Constraint("json_schema", '"json"'), "must be an object"),
        (Constraint("json_schema", "false"), "nothing matches"),
        (Constraint("regex", ""), "empty"),
        (Constraint("choice", "[]"), "at least one"),
        (Constraint("choice", '["a", 1]'), "list of texts"),
        (Constraint("choice", '"a"'), "list of texts"),
        (Constraint("choice", json.dumps(["a"] * 10_001)), "10001 choices"),
        (Constraint("gbnf", "root = x"), "not valid GBNF"),
        (Constraint("gbnf", "other ::= x"), "not valid GBNF"),
        (Constraint("gbnf", "root ::= " + "(" * 100_000), "nested too deeply"),
    ],
)
def test_a_malformed_format_is_refused_with_the_reason(constraint: Constraint, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        answer_grammar(constraint)


@pytest.mark.parametrize(
    ("tools", "choice", "reason"),
    [
        ((), REQUIRED, "no tools"),
        (TOOLS, ToolChoice("required", "other"), 'no tool "other"'),
    ],
)
def test_a_call_of_no_tool_cannot_be_required(
    tools: Sequence[Tool], choice: ToolChoice, reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        answer_grammar(None, calls=CALLS, tools=tools, choice=choice)


def test_calls_of_an_unknown_syntax_cannot_be_required() -> None:
    with pytest.raises(NotSupported):
        answer_grammar(None, calls=None, tools=TOOLS, choice=REQUIRED)
