"""From trees to closures that write: text, actions, `if`, `with`, `range`, `template` (Go 1.26, text/template/exec.go)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import attrs

from olm.template.closures import unboxed
from olm.template.expressions import ExpressionCompiler
from olm.template.fields import MissingKey
from olm.template.formatting import shown
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
)
from olm.template.quoting import quote
from olm.template.running import Expression, Frame, Site, Statement
from olm.template.values import INVALID, Byte, Function, is_true, type_name

__all__ = ["Body", "compile_tree"]


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


@attrs.frozen
class Body:
    """A compiled tree. `n_nodes` is what one run of it costs, loops apart."""

    statement: Statement
    n_slots: int
    n_nodes: int
    site: Site


def compile_tree(
    file: str,
    name: str,
    root: ListNode,
    functions: Mapping[str, Function],
    missing: MissingKey,
    bodies: Callable[[str], Body | None],
) -> Body:
    """Compile a tree; `bodies` finds the other trees when it runs."""
    compiler = _Compiler(file, name, functions, missing)
    compiler.bodies = bodies
    statement = compiler.listing(root)
    return Body(statement, compiler.n_slots, compiler.n_nodes, Site(file, name, root))


class _Compiler(ExpressionCompiler):
    """Adds statements to expressions."""

    bodies: Callable[[str], Body | None]
    _n_continues = 0

    def listing(self, node: ListNode | None) -> Statement:
        if node is None:
            return _nothing
        statements = tuple(self._statement(child) for child in node.nodes)
        if not statements:
            return _nothing
        if len(statements) == 1:
            return statements[0]

        def listed(frame: Frame, dot: object) -> None:
            for statement in statements:
                statement(frame, dot)

        return listed

    def _statement(self, node: Node) -> Statement:
        self._look(node)
        match node:
            case TextNode():
                text = node.text
                return lambda frame, _dot: frame.write(text)
            case ActionNode():
                return self._action(node)
            case RangeNode():
                return self._range(node)
            case IfNode() | WithNode():
                return self._choice(node)
            case TemplateNode():
                return self._template(node)
            case BreakNode():
                return _break
            case ContinueNode():
                self._n_continues += 1
                return _continue
            case ListNode():
                return self.listing(node)
        raise AssertionError(f"the parser makes no statement of {node}")

    @contextmanager
    def _scope(self) -> Iterator[None]:
        n_variables, was_boxed = len(self._variables), self._dot_is_boxed
        yield
        del self._variables[n_variables:]
        self._dot_is_boxed = was_boxed

    def _action(self, node: ActionNode) -> Statement:
        value, slots = self._pipeline(node.pipe)
        if slots:
            return _discarded(value)
        site = self._site(node)

        def printed(frame: Frame, dot: object) -> None:
            found = value(frame, dot)
            if type(found) is str:
                frame.write(found)
                return
            if isinstance(found, Function):
                raise site.error(f"can't print {node} of type {type_name(found)}")
            text = shown(found)
            frame.run.charge_text(text, site)
            frame.write(text)

        return printed

    def _choice(self, node: BranchNode) -> Statement:
        moves_dot = isinstance(node, WithNode)
        with self._scope():
            value = self._pipeline(node.pipe)[0]
            with self._scope():
                self._dot_is_boxed = self._dot_is_boxed and not moves_dot
                body = self.listing(node.body)
            otherwise = self.listing(node.otherwise)

        def chosen(frame: Frame, dot: object) -> None:
            found = value(frame, dot)
            if is_true(found):
                body(frame, found if moves_dot else dot)
            else:
                otherwise(frame, dot)

        return chosen

    def _template(self, node: TemplateNode) -> Statement:
        site = self._site(node)
        data: Expression = _no_data if node.pipe is None else unboxed(self._pipeline(node.pipe)[0])
        name, bodies = node.name, self.bodies

        def invoked(frame: Frame, dot: object) -> None:
            body = bodies(name)
            if body is None:
                raise site.error(f"template {quote(name)} not defined")
            run = frame.run
            run.enter(site)
            run.charge(body.n_nodes, site)
            value = data(frame, dot)
            body.statement(Frame(run, body.n_slots, value), value)
            run.leave()

        return invoked

    def _range(self, node: RangeNode) -> Statement:
        with self._scope():
            value, slots = self._pipeline(node.pipe)
            blamed = self._site()
            n_before, n_continues = self.n_nodes, self._n_continues
            if slots and not node.pipe.is_assign:
                self._boxed_slots.add(slots[-1])
            with self._scope():
                self._dot_is_boxed = True
                body = self.listing(node.body)
            if self._n_continues > n_continues:
                body = _continuing(body)
            n_nodes = self.n_nodes - n_before + 1
            otherwise = self.listing(node.otherwise)
        last, first = (slots[-1], slots[0]) if slots else (None, None)
        n_slots, site = len(slots), self._site(node)

        def looped(frame: Frame, dot: object) -> None:
            charge, variables = frame.run.charge, frame.slots
            is_empty = True
            try:
                for index, item in _items(value(frame, dot), n_slots, blamed):
                    is_empty = False
                    charge(n_nodes, site)
                    if last is not None and first is not None:
                        variables[first] = index
                        variables[last] = item
                    body(frame, item)
                if is_empty:
                    otherwise(frame, dot)
            except _Break:
                pass  # a break after else ends this loop, too, not the one around it

        return looped


def _continuing(body: Statement) -> Statement:
    def continuing(frame: Frame, dot: object) -> None:
        try:  # noqa: SIM105 - a context manager would cost as much as a small body
            body(frame, dot)
        except _Continue:
            pass

    return continuing


def _items(value: object, n_variables: int, site: Site) -> Iterator[tuple[object, object]]:
    """Give what `range` visits: keys or numbers, and elements. Maps come in the order of their keys."""
    if isinstance(value, dict):
        return ((key, value[key]) for key in sorted(value))
    if isinstance(value, list | tuple):
        return enumerate(value)
    if isinstance(value, bytes):
        return enumerate(map(Byte, value))
    if value is None or value is INVALID:
        return iter(())
    if isinstance(value, int) and not isinstance(value, bool):
        if n_variables > 1:
            raise site.error(f"can't use {value} to iterate over more than one variable")
        return ((INVALID, number) for number in range(value))
    raise site.error(f"range can't iterate over {shown(value)}")


def _nothing(_frame: Frame, _dot: object) -> None:
    return


def _no_data(_frame: Frame, _dot: object) -> object:
    return INVALID


def _discarded(value: Expression) -> Statement:
    def discarded(frame: Frame, dot: object) -> None:
        value(frame, dot)

    return discarded


def _break(_frame: Frame, _dot: object) -> None:
    raise _Break


def _continue(_frame: Frame, _dot: object) -> None:
    raise _Continue
