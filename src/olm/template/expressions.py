"""From pipelines to closures that compute them, as Go's text/template evaluates (Go 1.26, text/template/exec.go).

A tree is compiled once and run often; a closure knows its children, its slots and its place already. Go blames an error
on the node that it looked at last, so the compiler walks in the order of evaluation and keeps that node in `_at`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from olm.template.calling import PARAMETERS, checked, count_complaint, go_name, parameter_of
from olm.template.closures import (
    AnyArgument,
    always,
    called,
    called_callee,
    dot_value,
    failing,
    field_chain,
    method_call,
    short_circuit,
    stored,
    unboxed,
)
from olm.template.fields import MissingKey
from olm.template.functions import run_elsewhere
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
from olm.template.running import UNSET, Expression, Frame, Site
from olm.template.values import INVALID, Function, Parameter

__all__ = ["ExpressionCompiler"]


class ExpressionCompiler:
    """Compiles the pipelines of one tree, and gives its variables their slots.

    Attributes:
        n_slots: how many variables a frame of this tree holds.
        n_nodes: how many nodes were compiled so far, which is what running them costs.
    """

    def __init__(
        self, file: str, name: str, functions: Mapping[str, Function], missing: MissingKey
    ) -> None:
        self._file: Final = file
        self._name: Final = name
        self._functions: Final = functions
        self._missing: Final[MissingKey] = missing
        self._at: Node = DotNode()
        self._dot_is_boxed = False
        self._variables: list[tuple[str, int]] = [("$", 0)]
        self._boxed_slots: set[int] = set()
        self.n_slots = 1
        self.n_nodes = 0

    # Places and variables

    def _look(self, node: Node) -> None:
        self._at = node
        self.n_nodes += 1

    def _site(self, node: Node | None = None) -> Site:
        return Site(self._file, self._name, self._at if node is None else node)

    def _failing(self, message: str, final: Expression | None = None) -> Expression:
        return failing(message, self._site(), final)

    def _declare(self, name: str) -> int:
        slot = self.n_slots
        self.n_slots += 1
        self._variables.append((name, slot))
        return slot

    def _slot(self, name: str) -> int | None:
        return next((slot for known, slot in reversed(self._variables) if known == name), None)

    # Pipelines and commands

    def _pipeline(self, pipe: PipeNode) -> tuple[Expression, tuple[int, ...]]:
        """Compile a pipeline; also give the slots that its value goes to. A nil comes out as INVALID."""
        self._look(pipe)
        value = self._command(pipe.commands[0], None)
        for command in pipe.commands[1:]:
            value = self._command(command, unboxed(value))
        if not pipe.declared:
            return value, ()
        slots: list[int] = []
        for variable in pipe.declared:
            name = variable.ident[0]
            slot = self._slot(name) if pipe.is_assign else self._declare(name)
            if slot is None:
                return self._failing(f"undefined variable: {name}"), ()
            slots.append(slot)
        return stored(unboxed(value), tuple(slots)), tuple(slots)

    def _command(self, command: CommandNode, final: Expression | None) -> Expression:
        first, *args = command.args
        match first:
            case FieldNode():
                self._look(first)
                return self._fields(
                    dot_value, first.ident, args, final, is_boxed=self._dot_is_boxed
                )
            case ChainNode():
                return self._chain(first, args, final)
            case IdentifierNode():
                self._look(first)
                return self._call(first.ident, command, args, final)
            case VariableNode():
                return self._variable(first, args, final)
            case PipeNode():
                return self._no_function(first, args, final) or unboxed(self._pipeline(first)[0])
        self._look(first)
        return self._no_function(first, args, final) or self._constant(first)

    def _no_function(
        self, first: Node, args: Sequence[Node], final: Expression | None
    ) -> Expression | None:
        if args or final is not None:
            return self._failing(f"can't give argument to non-function {first}", final)
        return None

    def _constant(self, node: Node) -> Expression:
        match node:
            case DotNode():
                return dot_value
            case NilNode():
                return self._failing("nil is not a command")
            case BoolNode():
                return always(node.value)
            case StringNode():
                return always(node.text)
            case NumberNode():
                return self._number(node)
        raise AssertionError(f"the parser makes no command of {node}")

    def _number(self, node: NumberNode) -> Expression:
        # Without a wanted type the spelling decides, as for Go's untyped constants.
        is_hex = node.text[:2] in ("0x", "0X") and not any(char in node.text for char in "pP")
        looks_float = (
            not is_hex and node.text[0] != "'" and any(char in node.text for char in ".eEpP")
        )
        if looks_float and node.float_value is not None:
            return always(node.float_value)
        if node.int_value is None:
            return self._failing(f"{node} overflows int")
        return always(node.int_value)

    # Fields and variables

    def _variable(
        self, node: VariableNode, args: Sequence[Node], final: Expression | None
    ) -> Expression:
        self._look(node)
        name, *fields = node.ident
        slot = self._slot(name)
        if slot is None:
            return self._failing(f"undefined variable: {name}")
        value = self._read(slot, name)
        if fields:
            return self._fields(value, fields, args, final, is_boxed=slot in self._boxed_slots)
        return self._no_function(node, args, final) or value

    def _read(self, slot: int, name: str) -> Expression:
        site = self._site()

        def variable(frame: Frame, _dot: object) -> object:
            value = frame.slots[slot]
            if value is UNSET:
                raise site.error(f"undefined variable: {name}")
            return value

        return variable

    def _chain(self, node: ChainNode, args: Sequence[Node], final: Expression | None) -> Expression:
        self._look(node)
        if isinstance(node.node, NilNode):
            return self._failing(f"indirection through explicit nil in {node}")
        return self._fields(
            self._argument(node.node, "value"), node.fields, args, final, is_boxed=False
        )

    def _fields(
        self,
        owner: Expression,
        names: Sequence[str],
        args: Sequence[Node],
        final: Expression | None,
        *,
        is_boxed: bool,
    ) -> Expression:
        site, missing = self._site(), self._missing
        if not args and final is None:
            return field_chain(owner, tuple(names), site, missing, is_boxed=is_boxed)
        if len(names) > 1:
            owner = field_chain(owner, tuple(names[:-1]), site, missing, is_boxed=is_boxed)
            is_boxed = True
        given = [self._any_argument(arg) for arg in args]
        return method_call(owner, names[-1], given, final, site, missing, is_boxed=is_boxed)

    def _any_argument(self, node: Node) -> AnyArgument:
        # Which method is meant, and what it takes, is only known when it runs: an argument for every kind of parameter.
        if isinstance(node, NilNode | BoolNode | NumberNode | StringNode):
            return {parameter: self._argument(node, parameter) for parameter in PARAMETERS}
        value = self._argument(node, "value")
        return {parameter: self._checked(value, parameter) for parameter in PARAMETERS}

    # Functions

    def _call(
        self, name: str, whole: Node, args: Sequence[Node], final: Expression | None
    ) -> Expression:
        function = self._functions[name]
        n_given = len(args) + (final is not None)
        complaint = count_complaint(function, name, n_given, len(args))
        if complaint is not None:
            return self._failing(complaint, final)
        given = [
            self._argument(arg, parameter_of(function, index)) for index, arg in enumerate(args)
        ]
        if final is not None:
            given.append(self._checked(final, parameter_of(function, n_given - 1)))
        if function.call is run_elsewhere and name != "call":
            return short_circuit(given, stops_at=name == "or", final_first=final is not None)
        if function.call is run_elsewhere:
            label = str(args[0]) if args else f"<{name} Value>"
            return called_callee(given, label, self._site(whole), final_first=final is not None)
        return called(given, name, self._site(whole), final_first=final is not None)

    def _argument(self, node: Node, parameter: Parameter) -> Expression:
        self._look(node)
        match node:
            case DotNode():
                return self._checked(dot_value, parameter)
            case NilNode():
                nothing = {"any": None, "value": INVALID}
                if parameter not in nothing:
                    return self._failing(f"cannot assign nil to {go_name(parameter)}")
                return always(nothing[parameter])
            case FieldNode():
                value = self._fields(dot_value, node.ident, (), None, is_boxed=self._dot_is_boxed)
            case VariableNode():
                value = self._variable(node, (), None)
            case PipeNode():
                value = unboxed(self._pipeline(node)[0])
            case IdentifierNode():
                value = self._call(node.ident, node, (), None)
            case ChainNode():
                value = self._chain(node, (), None)
            case _:
                return self._literal(node, parameter)
        return self._checked(value, parameter)

    def _checked(self, value: Expression, parameter: Parameter) -> Expression:
        if parameter == "value":
            return value
        site = self._site()
        return lambda frame, dot: checked(value(frame, dot), parameter, site)

    def _literal(self, node: Node, parameter: Parameter) -> Expression:
        if parameter in ("any", "value"):
            return self._constant(node)
        if parameter == "string" and isinstance(node, StringNode):
            return always(node.text)
        if parameter == "bool" and isinstance(node, BoolNode):
            return always(node.value)
        number: int | float | None = None
        if isinstance(node, NumberNode) and parameter == "int":
            number = node.int_value
        elif isinstance(node, NumberNode) and parameter == "float":
            number = node.float_value
        if number is None:
            wanted = "integer" if parameter == "int" else parameter
            return self._failing(f"expected {wanted}; found {node}")
        return always(number)
