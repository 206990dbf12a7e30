"""From pipelines to closures that compute them, as Go's text/template evaluates (Go 1.26, text/template/exec.go).

A tree is compiled once and run often; a closure knows its children, its slots and its place already. Go blames an error
on the node that it looked at last, so the compiler walks in the order of evaluation and keeps that node in `_at`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from olm.template.calling import (
    call_callee,
    call_method,
    call_now,
    checked,
    count_complaint,
    go_name,
    parameter_of,
)
from olm.template.fields import MissingKey, field_of, method_of
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
from olm.template.values import INVALID, NO_FIELD, Function, Parameter, is_true

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

    def _failing(self, message: str) -> Expression:
        site = self._site()

        def fail(_frame: Frame, _dot: object) -> object:
            raise site.error(message)

        return fail

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
            value = self._command(command, _unboxed(value))
        if not pipe.declared:
            return value, ()
        slots: list[int] = []
        for variable in pipe.declared:
            slot = (
                self._slot(variable.ident[0])
                if pipe.is_assign
                else self._declare(variable.ident[0])
            )
            if slot is None:
                return self._failing(f"undefined variable: {variable.ident[0]}"), ()
            slots.append(slot)
        return _stored(_unboxed(value), tuple(slots)), tuple(slots)

    def _command(self, command: CommandNode, final: Expression | None) -> Expression:
        first, *args = command.args
        match first:
            case FieldNode():
                self._look(first)
                return self._fields(_dot, first.ident, args, final, is_boxed=self._dot_is_boxed)
            case ChainNode():
                return self._chain(first, args, final)
            case IdentifierNode():
                self._look(first)
                return self._call(first.ident, command, args, final)
            case VariableNode():
                return self._variable(first, args, final)
            case PipeNode():
                return self._no_function(first, args, final) or _unboxed(self._pipeline(first)[0])
        self._look(first)
        return self._no_function(first, args, final) or self._constant(first)

    def _no_function(
        self, first: Node, args: Sequence[Node], final: Expression | None
    ) -> Expression | None:
        if args or final is not None:
            return self._failing(f"can't give argument to non-function {first}")
        return None

    def _constant(self, node: Node) -> Expression:
        match node:
            case DotNode():
                return _dot
            case NilNode():
                return self._failing("nil is not a command")
            case BoolNode():
                return _always(node.value)
            case StringNode():
                return _always(node.text)
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
            return _always(node.float_value)
        if node.int_value is None:
            return self._failing(f"{node} overflows int")
        return _always(node.int_value)

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
        for name in names[:-1]:
            owner = self._field(owner, name, is_boxed=is_boxed)
            is_boxed = True
        if not args and final is None:
            return self._field(owner, names[-1], is_boxed=is_boxed)
        return self._field_with_arguments(owner, names[-1], args, final, is_boxed=is_boxed)

    def _field(self, owner: Expression, name: str, *, is_boxed: bool) -> Expression:
        site, missing = self._site(), self._missing

        def field(frame: Frame, dot: object) -> object:
            value = owner(frame, dot)
            if type(value) is dict:
                found = value.get(name, NO_FIELD)
                if found is not NO_FIELD:
                    return found
            method = method_of(value, name)
            if method is not None:
                return call_method(method, name, (value,), site, frame.run)
            return field_of(value, name, site, missing, is_boxed=is_boxed)

        return field

    def _field_with_arguments(
        self,
        owner: Expression,
        name: str,
        args: Sequence[Node],
        final: Expression | None,
        *,
        is_boxed: bool,
    ) -> Expression:
        # Only a method takes arguments, and which one it is depends on the value: arguments are compiled for any type.
        site, missing = self._site(), self._missing
        given = [self._argument(arg, "value") for arg in args]

        def field(frame: Frame, dot: object) -> object:
            last = () if final is None else (final(frame, dot),)
            value = owner(frame, dot)
            method = method_of(value, name)
            if method is not None:
                values = (value, *(arg(frame, dot) for arg in given), *last)
                return call_method(method, name, values, site, frame.run)
            field_of(value, name, site, missing, is_boxed=is_boxed)
            if isinstance(value, dict):
                raise site.error(f"{name} is not a method but has arguments")
            raise site.error(f"{name} has arguments but cannot be invoked as function")

        return field

    # Functions

    def _call(
        self, name: str, whole: Node, args: Sequence[Node], final: Expression | None
    ) -> Expression:
        function = self._functions[name]
        n_given = len(args) + (final is not None)
        complaint = count_complaint(function, name, n_given, len(args))
        if complaint is not None:
            return self._failing(complaint)
        given = [
            self._argument(arg, parameter_of(function, index)) for index, arg in enumerate(args)
        ]
        if final is not None:
            given.append(self._checked(final, parameter_of(function, n_given - 1)))
        if name in ("and", "or"):
            return _short_circuit(given, stops_at=name == "or", final_first=final is not None)
        if name == "call":
            label = str(args[0]) if args else f"<{name} Value>"
            return _called_callee(given, label, self._site(whole), final_first=final is not None)
        return _called(given, name, self._site(whole), final_first=final is not None)

    def _argument(self, node: Node, parameter: Parameter) -> Expression:
        self._look(node)
        match node:
            case DotNode():
                return self._checked(_dot, parameter)
            case NilNode():
                nothing = {"any": None, "value": INVALID}
                if parameter not in nothing:
                    return self._failing(f"cannot assign nil to {go_name(parameter)}")
                return _always(nothing[parameter])
            case FieldNode():
                value = self._fields(_dot, node.ident, (), None, is_boxed=self._dot_is_boxed)
            case VariableNode():
                value = self._variable(node, (), None)
            case PipeNode():
                value = _unboxed(self._pipeline(node)[0])
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
            return _always(node.text)
        if parameter == "bool" and isinstance(node, BoolNode):
            return _always(node.value)
        number = None
        if isinstance(node, NumberNode):
            number = (
                node.int_value
                if parameter == "int"
                else node.float_value
                if parameter == "float"
                else None
            )
        if number is None:
            wanted = "integer" if parameter == "int" else parameter
            return self._failing(f"expected {wanted}; found {node}")
        return _always(number)


def _dot(_frame: Frame, dot: object) -> object:
    return dot


def _always(value: object) -> Expression:
    return lambda _frame, _dot: value


def _unboxed(value: Expression) -> Expression:
    def unboxed(frame: Frame, dot: object) -> object:
        found = value(frame, dot)
        return INVALID if found is None else found

    return unboxed


def _stored(value: Expression, slots: tuple[int, ...]) -> Expression:
    def stored(frame: Frame, dot: object) -> object:
        found = value(frame, dot)
        for slot in slots:
            frame.slots[slot] = found
        return found

    return stored


def _short_circuit(given: Sequence[Expression], *, stops_at: bool, final_first: bool) -> Expression:
    def logic(frame: Frame, dot: object) -> object:
        # What comes by the pipe was computed before the other arguments are, though it is the last of them.
        last = given[-1](frame, dot)
        value = last
        for arg in given[:-1]:
            value = arg(frame, dot)
            if is_true(value) is stops_at:
                return value
        return last

    def lazy(frame: Frame, dot: object) -> object:
        value: object = INVALID
        for arg in given:
            value = arg(frame, dot)
            if is_true(value) is stops_at:
                return value
        return value

    return logic if final_first else lazy


def _called(given: Sequence[Expression], name: str, site: Site, *, final_first: bool) -> Expression:
    if len(given) == 2 and not final_first:
        first, second = given

        def called_with_two(frame: Frame, dot: object) -> object:
            run = frame.run
            return call_now(
                run.functions[name], name, (first(frame, dot), second(frame, dot)), site, run
            )

        return called_with_two

    def called(frame: Frame, dot: object) -> object:
        run = frame.run
        return call_now(
            run.functions[name],
            name,
            _evaluated(given, frame, dot, final_first=final_first),
            site,
            run,
        )

    return called


def _called_callee(
    given: Sequence[Expression], label: str, site: Site, *, final_first: bool
) -> Expression:
    def called(frame: Frame, dot: object) -> object:
        callee, *values = _evaluated(given, frame, dot, final_first=final_first)
        return call_callee(callee, label, values, site, frame.run)

    return called


def _evaluated(
    given: Sequence[Expression], frame: Frame, dot: object, *, final_first: bool
) -> list[object]:
    if not final_first:
        return [value(frame, dot) for value in given]
    last = given[-1](frame, dot)
    return [*(value(frame, dot) for value in given[:-1]), last]
