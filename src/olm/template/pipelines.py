"""Pipelines, commands and operands of templates, from tokens to nodes (Go 1.26, parse/parse.go)."""

from __future__ import annotations

from typing import Final

from olm.template.lexer import Kind, Token
from olm.template.literals import character_node, number_node
from olm.template.nodes import (
    BoolNode,
    ChainNode,
    CommandNode,
    DotNode,
    FieldNode,
    IdentifierNode,
    NilNode,
    Node,
    NumberNode,
    PipeNode,
    StringNode,
    VariableNode,
)
from olm.template.quoting import quote, unquote
from olm.template.stream import Shared, TokenStream

__all__ = ["PipelineParser"]

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
_CONSTANTS: Final = (BoolNode, DotNode, NilNode, NumberNode, StringNode)


class PipelineParser(TokenStream):
    """Parses what stands inside actions.

    Attributes:
        variables: the names of those that are declared here; a branch takes its own away at its end.
    """

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self.variables = ["$"]

    def pipeline(self, context: str, end: Kind) -> PipeNode:
        """Parse a pipeline up to and with its end; `context` is what errors call it."""
        pos = self.position(self.peek_word().start)
        declared, is_assign = self._declarations(context)
        commands: list[CommandNode] = []
        while (token := self.next_word()).kind is not end:
            if token.kind not in _OPERANDS:
                raise self.unexpected(token, context)
            self.back(token)
            commands.append(self._command())
        if not commands:
            raise self.error(f"missing value for {context}")
        for stage, command in enumerate(commands[1:], start=2):
            if isinstance(command.args[0], _CONSTANTS):
                raise self.error(f"non executable command in pipeline stage {stage}")
        return PipeNode(commands=tuple(commands), declared=declared, is_assign=is_assign, pos=pos)

    def _declarations(self, context: str) -> tuple[tuple[VariableNode, ...], bool]:
        declared: list[VariableNode] = []
        while (token := self.peek_word()).kind is Kind.VARIABLE:
            variable = self.next()
            after = self.next()
            word = after if after.kind is not Kind.SPACE else self.next_word()
            is_comma = word.kind is Kind.CHAR and word.text == ","
            if not is_comma and word.kind not in (Kind.ASSIGN, Kind.DECLARE):
                self.back(*((word,) if after is word else (word, after)), variable)
                break
            declared.append(VariableNode(ident=(token.text,), pos=self.position(token.start)))
            self.variables.append(token.text)
            if not is_comma:
                return tuple(declared), word.kind is Kind.ASSIGN
            if context != "range" or len(declared) > 1:
                raise self.error(f"too many declarations in {context}")
            if self.peek_word().kind not in (Kind.VARIABLE, Kind.RIGHT_DELIM, Kind.RIGHT_PAREN):
                raise self.error("range can only initialize variables")
        return tuple(declared), False

    def _command(self) -> CommandNode:
        start = self.peek_word().start
        args: list[Node] = []
        while True:
            self.peek_word()
            operand = self._operand()
            if operand is not None:
                args.append(operand)
            token = self.next()
            if token.kind is Kind.SPACE:
                continue
            if token.kind in (Kind.RIGHT_DELIM, Kind.RIGHT_PAREN):
                self.back(token)
            elif token.kind is not Kind.PIPE:
                raise self.unexpected(token, "operand")
            break
        if not args:
            raise self.error("empty command")
        return CommandNode(args=tuple(args), pos=self.position(start))

    def _operand(self) -> Node | None:
        node = self._term()
        if node is None or self.peek().kind is not Kind.FIELD:
            return node
        pos = self.position(self.peek().start)
        fields: list[str] = []
        while self.peek().kind is Kind.FIELD:
            fields.append(self.next().text[1:])
        # Go places the joined node at the second name, so columns in errors point there.
        if isinstance(node, FieldNode):
            return FieldNode(ident=(*node.ident, *fields), pos=pos)
        if isinstance(node, VariableNode):
            return VariableNode(ident=(*node.ident, *fields), pos=pos)
        if isinstance(node, _CONSTANTS):
            raise self.error(f"unexpected . after term {quote(str(node))}")
        return ChainNode(node=node, fields=tuple(fields), pos=pos)

    def _term(self) -> Node | None:
        token = self.next_word()
        pos = self.position(token.start)
        match token.kind:
            case Kind.IDENTIFIER:
                return self._function(token)
            case Kind.DOT:
                return DotNode(pos=pos)
            case Kind.NIL:
                return NilNode(pos=pos)
            case Kind.VARIABLE:
                if token.text not in self.variables:
                    raise self.error(f"undefined variable {quote(token.text)}")
                return VariableNode(ident=(token.text,), pos=pos)
            case Kind.FIELD:
                return FieldNode(ident=(token.text[1:],), pos=pos)
            case Kind.BOOL:
                return BoolNode(value=token.text == "true", pos=pos)
            case Kind.LEFT_PAREN:
                with self.deeper():
                    return self.pipeline("parenthesized pipeline", Kind.RIGHT_PAREN)
            case Kind.STRING | Kind.RAW_STRING:
                return StringNode(quoted=token.text, text=self.unquoted(token), pos=pos)
            case Kind.CHAR_CONSTANT | Kind.NUMBER | Kind.COMPLEX:
                return self._number(token)
            case _:
                self.back(token)
                return None

    def _function(self, token: Token) -> IdentifierNode:
        if token.text not in self.shared.functions:
            raise self.error(f"function {quote(token.text)} not defined")
        return IdentifierNode(ident=token.text, pos=self.position(token.start))

    def _number(self, token: Token) -> NumberNode:
        read = character_node if token.kind is Kind.CHAR_CONSTANT else number_node
        try:
            return read(token.text, self.position(token.start))
        except ValueError as exc:
            raise self.error(str(exc)) from exc

    def unquoted(self, token: Token) -> str:
        """Read a string token."""
        try:
            return unquote(token.text)
        except ValueError as exc:
            raise self.error(str(exc)) from exc
