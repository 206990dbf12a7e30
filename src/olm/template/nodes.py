"""The syntax tree of a template: one frozen value per construct, and the text that Go's `String()` gives for it.

The texts matter because errors quote them. Parsing is in `parser`, running in `statements` and `expressions`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import attrs

from olm.template.quoting import quote

__all__ = [
    "NOWHERE",
    "ActionNode",
    "BoolNode",
    "BranchNode",
    "BreakNode",
    "ChainNode",
    "CommandNode",
    "ContinueNode",
    "DotNode",
    "FieldNode",
    "IdentifierNode",
    "IfNode",
    "ListNode",
    "NilNode",
    "Node",
    "NumberNode",
    "PipeNode",
    "Position",
    "RangeNode",
    "StringNode",
    "TemplateNode",
    "TextNode",
    "VariableNode",
    "WithNode",
    "is_empty",
]


class Position(NamedTuple):
    """Where a node starts: `line` from 1, `column` in UTF-8 bytes from 0, as Go counts them."""

    line: int
    column: int


NOWHERE: Final = Position(1, 0)
"""The place of a node that no template text contains."""


@attrs.frozen(kw_only=True)
class Node:
    """What every node has."""

    pos: Position = NOWHERE


@attrs.frozen
class ListNode(Node):
    """Nodes one after the other."""

    nodes: tuple[Node, ...]

    def __str__(self) -> str:
        return "".join(map(str, self.nodes))


@attrs.frozen
class TextNode(Node):
    """Text between actions, already trimmed."""

    text: str

    def __str__(self) -> str:
        return self.text


@attrs.frozen
class DotNode(Node):
    """The cursor, `.`."""

    def __str__(self) -> str:
        return "."


@attrs.frozen
class NilNode(Node):
    """The constant `nil`."""

    def __str__(self) -> str:
        return "nil"


@attrs.frozen
class BoolNode(Node):
    """`true` or `false`."""

    value: bool

    def __str__(self) -> str:
        return "true" if self.value else "false"


@attrs.frozen
class NumberNode(Node):
    """A number constant under every type that can hold it; None where one cannot."""

    text: str
    int_value: int | None = None
    uint_value: int | None = None
    float_value: float | None = None

    def __str__(self) -> str:
        return self.text


@attrs.frozen
class StringNode(Node):
    """A string constant: as written, quotes and all, and what it means."""

    quoted: str
    text: str

    def __str__(self) -> str:
        return self.quoted


@attrs.frozen
class FieldNode(Node):
    """`.A.B`: the names without their dots."""

    ident: tuple[str, ...]

    def __str__(self) -> str:
        return "".join(f".{name}" for name in self.ident)


@attrs.frozen
class VariableNode(Node):
    """`$x.A.B`: the variable with its dollar sign, then the names of fields."""

    ident: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(self.ident)


@attrs.frozen
class IdentifierNode(Node):
    """The name of a function."""

    ident: str

    def __str__(self) -> str:
        return self.ident


@attrs.frozen
class ChainNode(Node):
    """Fields of something that is neither a variable nor the cursor: `(pipeline).A.B`, `function.A`."""

    node: Node
    fields: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join((_operand(self.node), *self.fields))


@attrs.frozen
class CommandNode(Node):
    """One stage of a pipeline: a function or a value, and what it is given."""

    args: tuple[Node, ...]

    def __str__(self) -> str:
        return " ".join(map(_operand, self.args))


@attrs.frozen
class PipeNode(Node):
    """A pipeline, and the variables that take its value: declared, or assigned with `is_assign`."""

    commands: tuple[CommandNode, ...]
    declared: tuple[VariableNode, ...] = ()
    is_assign: bool = False

    def __str__(self) -> str:
        text = " | ".join(map(str, self.commands))
        if not self.declared:
            return text
        return f"{', '.join(map(str, self.declared))} {'=' if self.is_assign else ':='} {text}"


@attrs.frozen
class ActionNode(Node):
    """`{{pipeline}}`: its value is printed, unless it goes to a variable."""

    pipe: PipeNode

    def __str__(self) -> str:
        return f"{{{{{self.pipe}}}}}"


@attrs.frozen
class BranchNode(Node):
    """What `if`, `range` and `with` share. `otherwise` is the part after `{{else}}`; None when there is none."""

    pipe: PipeNode
    body: ListNode
    otherwise: ListNode | None = None

    def _text(self, keyword: str) -> str:
        otherwise = "" if self.otherwise is None else f"{{{{else}}}}{self.otherwise}"
        return f"{{{{{keyword} {self.pipe}}}}}{self.body}{otherwise}{{{{end}}}}"


@attrs.frozen
class IfNode(BranchNode):
    """`{{if pipeline}}`; an `else if` is an `if` alone in `otherwise`."""

    def __str__(self) -> str:
        return self._text("if")


@attrs.frozen
class WithNode(BranchNode):
    """`{{with pipeline}}`: an `if` that moves the cursor."""

    def __str__(self) -> str:
        return self._text("with")


@attrs.frozen
class RangeNode(BranchNode):
    """`{{range pipeline}}`."""

    def __str__(self) -> str:
        return self._text("range")


@attrs.frozen
class BreakNode(Node):
    """`{{break}}`."""

    def __str__(self) -> str:
        return "{{break}}"


@attrs.frozen
class ContinueNode(Node):
    """`{{continue}}`."""

    def __str__(self) -> str:
        return "{{continue}}"


@attrs.frozen
class TemplateNode(Node):
    """`{{template "name" pipeline}}`, and what a `{{block}}` leaves in its place."""

    name: str
    pipe: PipeNode | None = None

    def __str__(self) -> str:
        pipe = "" if self.pipe is None else f" {self.pipe}"
        return f"{{{{template {quote(self.name)}{pipe}}}}}"


def _operand(node: Node) -> str:
    return f"({node})" if isinstance(node, PipeNode) else str(node)


def is_empty(node: Node) -> bool:
    """Say whether a tree holds nothing but white space."""
    if isinstance(node, ListNode):
        return all(map(is_empty, node.nodes))
    return isinstance(node, TextNode) and not node.text.strip()
