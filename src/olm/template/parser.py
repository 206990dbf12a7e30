"""From tokens to trees, with the errors of Go's text/template in its own words (Go 1.26, parse/parse.go).

The parser checks that functions and variables exist. Names of templates are looked up when the template runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

import attrs

from olm.errors import TemplateError
from olm.template.lexer import Kind, Lexer, Source, Token
from olm.template.literals import character_node, number_node
from olm.template.nodes import (
    ActionNode,
    BoolNode,
    BranchNode,
    BreakNode,
    ChainNode,
    CommandNode,
    ContinueNode,
    DotNode,
    FieldNode,
    IdentifierNode,
    IfNode,
    ListNode,
    NilNode,
    Node,
    NumberNode,
    PipeNode,
    RangeNode,
    StringNode,
    TemplateNode,
    TextNode,
    VariableNode,
    WithNode,
    is_empty,
)
from olm.template.quoting import quote, unquote

__all__ = ["MAX_NESTING", "parse_trees"]

MAX_NESTING: Final = 100
"""Actions, parentheses and `else if`s inside one another. Go allows 10,000 parentheses; the templates of Ollama's library
nest below 20, and the running template needs a few frames of Python's stack for each."""

_OPERANDS: Final = frozenset(
    {
        Kind.BOOL,
        Kind.CHAR_CONSTANT,
        Kind.COMPLEX,
        Kind.DOT,
        Kind.FIELD,
        Kind.IDENTIFIER,
        Kind.NUMBER,
        Kind.NIL,
        Kind.RAW_STRING,
        Kind.STRING,
        Kind.VARIABLE,
        Kind.LEFT_PAREN,
    }
)
_BRANCHES: Final[dict[str, type[BranchNode]]] = {"if": IfNode, "range": RangeNode, "with": WithNode}
_CONSTANTS: Final = (BoolNode, DotNode, NilNode, NumberNode, StringNode)


def parse_trees(text: str, name: str, functions: Collection[str]) -> dict[str, ListNode]:
    """Parse a template into its trees by name; the main one is under `name`.

    Raises:
        TemplateError: `template: NAME:LINE: …`.
    """
    source = Source(text)
    shared = _Shared(source=source, lexer=Lexer(source), name=name, functions=functions)
    _Parser(shared, name).parse_main()
    return shared.trees


@attrs.define
class _Shared:
    # What the parsers of one text have in common: a definition inside it has a parser of its own.
    source: Source
    lexer: Lexer
    name: str
    functions: Collection[str]
    trees: dict[str, ListNode] = attrs.Factory(dict)
    depth: int = 0


@attrs.frozen
class _End(Node):
    # `{{end}}`; it ends a list and is no part of the tree.
    def __str__(self) -> str:
        return "{{end}}"


@attrs.frozen
class _Else(Node):
    # `{{else}}`, or the first half of `{{else if` and `{{else with`, whose keyword is then the next token.
    def __str__(self) -> str:
        return "{{else}}"


class _Parser:
    """Parses one tree."""

    def __init__(self, shared: _Shared, name: str) -> None:
        self._shared = shared
        self._name = name
        self._ahead: list[Token] = []
        self._newest_start = 0
        self._action_line = 0
        self._range_depth = 0
        self._variables = ["$"]

    # Tokens

    def _next(self) -> Token:
        if self._ahead:
            return self._ahead.pop()
        token = self._shared.lexer.next()
        self._newest_start = token.start
        return token

    def _back(self, *tokens: Token) -> None:
        # The last one given comes first.
        self._ahead.extend(tokens)

    def _peek(self) -> Token:
        token = self._next()
        self._back(token)
        return token

    def _next_word(self) -> Token:
        token = self._next()
        while token.kind is Kind.SPACE:
            token = self._next()
        return token

    def _peek_word(self) -> Token:
        token = self._next_word()
        self._back(token)
        return token

    def _expect(self, context: str, *kinds: Kind) -> Token:
        token = self._next_word()
        if token.kind not in kinds:
            raise self._unexpected(token, context)
        return token

    # Errors

    def _error(self, message: str) -> TemplateError:
        line = self._shared.source.line(self._newest_start)
        return TemplateError(f"template: {self._shared.name}:{line}: {message}")

    def _unexpected(self, token: Token, context: str) -> TemplateError:
        if token.kind is not Kind.ERROR:
            return self._error(f"unexpected {token} in {context}")
        extra = ""
        if self._action_line not in (0, self._shared.source.line(token.start)):
            action = "" if token.text.endswith(" action") else " in action"
            extra = f"{action} started at {self._shared.name}:{self._action_line}"
        return self._error(f"{token}{extra}")

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        self._shared.depth += 1
        if self._shared.depth > MAX_NESTING:
            raise self._error("max expression depth exceeded")
        yield
        self._shared.depth -= 1

    # Trees

    def parse_main(self) -> None:
        start = self._peek().start
        nodes: list[Node] = []
        while (token := self._peek()).kind is not Kind.EOF:
            if token.kind is Kind.LEFT_DELIM:
                delimiter = self._next()
                keyword = self._next_word()
                if keyword.kind is Kind.KEYWORD and keyword.text == "define":
                    _Parser(self._shared, "definition")._parse_definition()
                    continue
                self._back(keyword, delimiter)
            node = self._text_or_action()
            if isinstance(node, _End | _Else):
                raise self._error(f"unexpected {node}")
            nodes.append(node)
        self._add(self._list(start, nodes))

    def _list(self, start: int, nodes: list[Node]) -> ListNode:
        return ListNode(nodes=tuple(nodes), pos=self._shared.source.position(start))

    def _add(self, root: ListNode) -> None:
        trees = self._shared.trees
        known = trees.get(self._name)
        if known is None or is_empty(known):
            trees[self._name] = root
        elif not is_empty(root):
            raise self._error(f"template: multiple definition of template {quote(self._name)}")

    def _parse_definition(self) -> None:
        token = self._expect("define clause", Kind.STRING, Kind.RAW_STRING)
        self._name = self._unquoted(token)
        self._expect("define clause", Kind.RIGHT_DELIM)
        self._parse_to_end("define clause")

    def _parse_to_end(self, context: str) -> None:
        root, end = self._item_list()
        if not isinstance(end, _End):
            raise self._error(f"unexpected {end} in {context}")
        self._add(root)

    def _unquoted(self, token: Token) -> str:
        try:
            return unquote(token.text)
        except ValueError as exc:
            raise self._error(str(exc)) from exc

    def _item_list(self) -> tuple[ListNode, Node]:
        start = self._peek_word().start
        nodes: list[Node] = []
        while self._peek_word().kind is not Kind.EOF:
            node = self._text_or_action()
            if isinstance(node, _End | _Else):
                return self._list(start, nodes), node
            nodes.append(node)
        raise self._error("unexpected EOF")

    # Actions

    def _text_or_action(self) -> Node:
        token = self._next_word()
        if token.kind is Kind.TEXT:
            return TextNode(text=token.text, pos=self._shared.source.position(token.start))
        if token.kind is not Kind.LEFT_DELIM:
            raise self._unexpected(token, "input")
        self._action_line = self._shared.source.line(token.start)
        node = self._action()
        self._action_line = 0
        return node

    def _action(self) -> Node:
        token = self._next_word()
        if token.kind is Kind.KEYWORD and token.text != "define":
            return self._control(token)
        self._back(token)
        pos = self._shared.source.position(token.start)
        return ActionNode(pipe=self._pipeline("command", Kind.RIGHT_DELIM), pos=pos)

    def _control(self, token: Token) -> Node:
        keyword = token.text
        if keyword in _BRANCHES:
            return self._branch(keyword)
        if keyword in ("break", "continue"):
            return self._jump(token)
        if keyword == "template":
            return self._template()
        if keyword == "block":
            return self._block()
        if keyword == "else" and (following := self._peek_word()).text in ("if", "with"):
            return _Else(pos=self._shared.source.position(following.start))
        end = self._expect(keyword, Kind.RIGHT_DELIM)
        return (_End if keyword == "end" else _Else)(pos=self._shared.source.position(end.start))

    def _jump(self, token: Token) -> Node:
        following = self._next_word()
        if following.kind is not Kind.RIGHT_DELIM:
            raise self._unexpected(following, f"{{{{{token.text}}}}}")
        if not self._range_depth:
            raise self._error(f"{{{{{token.text}}}}} outside {{{{range}}}}")
        kind = BreakNode if token.text == "break" else ContinueNode
        return kind(pos=self._shared.source.position(token.start))

    def _branch(self, keyword: str) -> BranchNode:
        n_variables = len(self._variables)
        with self._deeper():
            pipe = self._pipeline(keyword, Kind.RIGHT_DELIM)
            self._range_depth += keyword == "range"
            body, end = self._item_list()
            self._range_depth -= keyword == "range"
            otherwise = self._otherwise(keyword, end) if isinstance(end, _Else) else None
        del self._variables[n_variables:]
        return _BRANCHES[keyword](pipe=pipe, body=body, otherwise=otherwise, pos=pipe.pos)

    def _otherwise(self, keyword: str, marker: Node) -> ListNode:
        # `{{else if}}` shares the `{{end}}` of the `{{if}}` it stands in.
        following = self._peek()
        if keyword != "range" and following.kind is Kind.KEYWORD and following.text == keyword:
            self._next()
            return ListNode(nodes=(self._branch(keyword),), pos=marker.pos)
        otherwise, end = self._item_list()
        if not isinstance(end, _End):
            raise self._error(f"expected end; found {end}")
        return otherwise

    def _template(self) -> TemplateNode:
        token = self._next_word()
        name = self._template_name(token, "template clause")
        pipe = None
        following = self._next_word()
        if following.kind is not Kind.RIGHT_DELIM:
            self._back(following)
            pipe = self._pipeline("template clause", Kind.RIGHT_DELIM)
        return TemplateNode(name=name, pipe=pipe, pos=self._shared.source.position(token.start))

    def _block(self) -> TemplateNode:
        token = self._next_word()
        name = self._template_name(token, "block clause")
        pipe = self._pipeline("block clause", Kind.RIGHT_DELIM)
        with self._deeper():
            _Parser(self._shared, name)._parse_to_end("block clause")
        return TemplateNode(name=name, pipe=pipe, pos=self._shared.source.position(token.start))

    def _template_name(self, token: Token, context: str) -> str:
        if token.kind not in (Kind.STRING, Kind.RAW_STRING):
            raise self._unexpected(token, context)
        return self._unquoted(token)

    # Pipelines

    def _pipeline(self, context: str, end: Kind) -> PipeNode:
        pos = self._shared.source.position(self._peek_word().start)
        declared, is_assign = self._declarations(context)
        commands: list[CommandNode] = []
        while (token := self._next_word()).kind is not end:
            if token.kind not in _OPERANDS:
                raise self._unexpected(token, context)
            self._back(token)
            commands.append(self._command())
        if not commands:
            raise self._error(f"missing value for {context}")
        for stage, command in enumerate(commands[1:], start=2):
            if isinstance(command.args[0], _CONSTANTS):
                raise self._error(f"non executable command in pipeline stage {stage}")
        return PipeNode(commands=tuple(commands), declared=declared, is_assign=is_assign, pos=pos)

    def _declarations(self, context: str) -> tuple[tuple[VariableNode, ...], bool]:
        declared: list[VariableNode] = []
        while (token := self._peek_word()).kind is Kind.VARIABLE:
            variable = self._next()
            after = self._next()
            word = after if after.kind is not Kind.SPACE else self._next_word()
            is_comma = word.kind is Kind.CHAR and word.text == ","
            if not is_comma and word.kind not in (Kind.ASSIGN, Kind.DECLARE):
                self._back(*((word,) if after is word else (word, after)), variable)
                break
            declared.append(
                VariableNode(ident=(token.text,), pos=self._shared.source.position(token.start))
            )
            self._variables.append(token.text)
            if not is_comma:
                return tuple(declared), word.kind is Kind.ASSIGN
            if context != "range" or len(declared) > 1:
                raise self._error(f"too many declarations in {context}")
            if self._peek_word().kind not in (Kind.VARIABLE, Kind.RIGHT_DELIM, Kind.RIGHT_PAREN):
                raise self._error("range can only initialize variables")
        return tuple(declared), False

    def _command(self) -> CommandNode:
        start = self._peek_word().start
        args: list[Node] = []
        while True:
            self._peek_word()
            operand = self._operand()
            if operand is not None:
                args.append(operand)
            token = self._next()
            if token.kind is Kind.SPACE:
                continue
            if token.kind in (Kind.RIGHT_DELIM, Kind.RIGHT_PAREN):
                self._back(token)
            elif token.kind is not Kind.PIPE:
                raise self._unexpected(token, "operand")
            break
        if not args:
            raise self._error("empty command")
        return CommandNode(args=tuple(args), pos=self._shared.source.position(start))

    def _operand(self) -> Node | None:
        node = self._term()
        if node is None or self._peek().kind is not Kind.FIELD:
            return node
        pos = self._shared.source.position(self._peek().start)
        fields: list[str] = []
        while self._peek().kind is Kind.FIELD:
            fields.append(self._next().text[1:])
        # Go places the joined node at the second name, so columns in errors point there.
        if isinstance(node, FieldNode):
            return FieldNode(ident=(*node.ident, *fields), pos=pos)
        if isinstance(node, VariableNode):
            return VariableNode(ident=(*node.ident, *fields), pos=pos)
        if isinstance(node, _CONSTANTS):
            raise self._error(f"unexpected . after term {quote(str(node))}")
        return ChainNode(node=node, fields=tuple(fields), pos=pos)

    def _term(self) -> Node | None:
        token = self._next_word()
        pos = self._shared.source.position(token.start)
        match token.kind:
            case Kind.IDENTIFIER:
                return self._function(token)
            case Kind.DOT:
                return DotNode(pos=pos)
            case Kind.NIL:
                return NilNode(pos=pos)
            case Kind.VARIABLE:
                if token.text not in self._variables:
                    raise self._error(f"undefined variable {quote(token.text)}")
                return VariableNode(ident=(token.text,), pos=pos)
            case Kind.FIELD:
                return FieldNode(ident=(token.text[1:],), pos=pos)
            case Kind.BOOL:
                return BoolNode(value=token.text == "true", pos=pos)
            case Kind.LEFT_PAREN:
                with self._deeper():
                    return self._pipeline("parenthesized pipeline", Kind.RIGHT_PAREN)
            case Kind.STRING | Kind.RAW_STRING:
                return StringNode(quoted=token.text, text=self._unquoted(token), pos=pos)
            case Kind.CHAR_CONSTANT | Kind.NUMBER | Kind.COMPLEX:
                return self._number(token)
            case _:
                self._back(token)
                return None

    def _function(self, token: Token) -> IdentifierNode:
        if token.text not in self._shared.functions:
            raise self._error(f"function {quote(token.text)} not defined")
        return IdentifierNode(ident=token.text, pos=self._shared.source.position(token.start))

    def _number(self, token: Token) -> NumberNode:
        read = character_node if token.kind is Kind.CHAR_CONSTANT else number_node
        try:
            return read(token.text, self._shared.source.position(token.start))
        except ValueError as exc:
            raise self._error(str(exc)) from exc
