"""From tokens to trees, with the errors of Go's text/template in its own words (Go 1.26, parse/parse.go).

The parser checks that functions and variables exist. Names of templates are looked up when the template runs.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import attrs

from olm.template.lexer import Kind, Lexer, Source, Token
from olm.template.nodes import (
    ActionNode,
    BranchNode,
    BreakNode,
    ContinueNode,
    IfNode,
    ListNode,
    Node,
    RangeNode,
    TemplateNode,
    TextNode,
    WithNode,
    is_empty,
)
from olm.template.pipelines import PipelineParser
from olm.template.quoting import quote
from olm.template.stream import Shared

__all__ = ["parse_trees"]

_BRANCHES: Final[dict[str, type[BranchNode]]] = {"if": IfNode, "range": RangeNode, "with": WithNode}


def parse_trees(text: str, name: str, functions: Collection[str]) -> dict[str, ListNode]:
    """Parse a template into its trees by name; the main one is under `name`.

    Raises:
        TemplateError: `template: NAME:LINE: …`.
    """
    source = Source(text)
    shared = Shared(source=source, lexer=Lexer(source), name=name, functions=functions)
    _Parser(shared, name).parse_main()
    return shared.trees


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


class _Parser(PipelineParser):
    """Parses one tree."""

    def __init__(self, shared: Shared, name: str) -> None:
        super().__init__(shared)
        self._name = name
        self._range_depth = 0

    # Trees

    def parse_main(self) -> None:
        start = self.peek().start
        nodes: list[Node] = []
        while (token := self.peek()).kind is not Kind.EOF:
            if token.kind is Kind.LEFT_DELIM:
                delimiter = self.next()
                keyword = self.next_word()
                if keyword.kind is Kind.KEYWORD and keyword.text == "define":
                    _Parser(self.shared, "definition")._parse_definition()
                    continue
                self.back(keyword, delimiter)
            node = self._text_or_action()
            if isinstance(node, _End | _Else):
                raise self.error(f"unexpected {node}")
            nodes.append(node)
        self._add(self._list(start, nodes))

    def _list(self, start: int, nodes: list[Node]) -> ListNode:
        return ListNode(nodes=tuple(nodes), pos=self.position(start))

    def _add(self, root: ListNode) -> None:
        trees = self.shared.trees
        known = trees.get(self._name)
        if known is None or is_empty(known):
            trees[self._name] = root
        elif not is_empty(root):
            raise self.error(f"template: multiple definition of template {quote(self._name)}")

    def _parse_definition(self) -> None:
        token = self.expect("define clause", Kind.STRING, Kind.RAW_STRING)
        self._name = self.unquoted(token)
        self.expect("define clause", Kind.RIGHT_DELIM)
        self._parse_to_end("define clause")

    def _parse_to_end(self, context: str) -> None:
        root, end = self._item_list()
        if not isinstance(end, _End):
            raise self.error(f"unexpected {end} in {context}")
        self._add(root)

    def _item_list(self) -> tuple[ListNode, Node]:
        start = self.peek_word().start
        nodes: list[Node] = []
        while self.peek_word().kind is not Kind.EOF:
            node = self._text_or_action()
            if isinstance(node, _End | _Else):
                return self._list(start, nodes), node
            nodes.append(node)
        raise self.error("unexpected EOF")

    # Actions

    def _text_or_action(self) -> Node:
        token = self.next_word()
        if token.kind is Kind.TEXT:
            return TextNode(text=token.text, pos=self.position(token.start))
        if token.kind is not Kind.LEFT_DELIM:
            raise self.unexpected(token, "input")
        self.action_line = self.shared.source.line(token.start)
        node = self._action()
        self.action_line = 0
        return node

    def _action(self) -> Node:
        token = self.next_word()
        if token.kind is Kind.KEYWORD and token.text != "define":
            return self._control(token)
        self.back(token)
        pos = self.position(token.start)
        return ActionNode(pipe=self.pipeline("command", Kind.RIGHT_DELIM), pos=pos)

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
        if keyword == "else" and (following := self.peek_word()).text in ("if", "with"):
            return _Else(pos=self.position(following.start))
        end = self.expect(keyword, Kind.RIGHT_DELIM)
        return (_End if keyword == "end" else _Else)(pos=self.position(end.start))

    def _jump(self, token: Token) -> Node:
        following = self.next_word()
        if following.kind is not Kind.RIGHT_DELIM:
            raise self.unexpected(following, f"{{{{{token.text}}}}}")
        if not self._range_depth:
            raise self.error(f"{{{{{token.text}}}}} outside {{{{range}}}}")
        kind = BreakNode if token.text == "break" else ContinueNode
        return kind(pos=self.position(token.start))

    def _branch(self, keyword: str) -> BranchNode:
        n_variables = len(self.variables)
        with self.deeper():
            pipe = self.pipeline(keyword, Kind.RIGHT_DELIM)
            self._range_depth += keyword == "range"
            body, end = self._item_list()
            self._range_depth -= keyword == "range"
            otherwise = self._otherwise(keyword, end) if isinstance(end, _Else) else None
        del self.variables[n_variables:]
        return _BRANCHES[keyword](pipe=pipe, body=body, otherwise=otherwise, pos=pipe.pos)

    def _otherwise(self, keyword: str, marker: Node) -> ListNode:
        # `{{else if}}` shares the `{{end}}` of the `{{if}}` it stands in.
        following = self.peek()
        if keyword != "range" and following.kind is Kind.KEYWORD and following.text == keyword:
            self.next()
            return ListNode(nodes=(self._branch(keyword),), pos=marker.pos)
        otherwise, end = self._item_list()
        if not isinstance(end, _End):
            raise self.error(f"expected end; found {end}")
        return otherwise

    def _template(self) -> TemplateNode:
        token = self.next_word()
        name = self._template_name(token, "template clause")
        pipe = None
        following = self.next_word()
        if following.kind is not Kind.RIGHT_DELIM:
            self.back(following)
            pipe = self.pipeline("template clause", Kind.RIGHT_DELIM)
        return TemplateNode(name=name, pipe=pipe, pos=self.position(token.start))

    def _block(self) -> TemplateNode:
        token = self.next_word()
        name = self._template_name(token, "block clause")
        pipe = self.pipeline("block clause", Kind.RIGHT_DELIM)
        with self.deeper():
            _Parser(self.shared, name)._parse_to_end("block clause")
        return TemplateNode(name=name, pipe=pipe, pos=self.position(token.start))

    def _template_name(self, token: Token, context: str) -> str:
        if token.kind not in (Kind.STRING, Kind.RAW_STRING):
            raise self.unexpected(token, context)
        return self.unquoted(token)
