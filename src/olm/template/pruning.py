"""Cutting a template off behind its `.Response`, as the open turn at the end of a chat needs it.

Templates without `.Messages` write a whole turn, answer and closing marks included; where the answer is to come, all behind
its place must go (Ollama, `template/template.go`, commit fb30760).
"""

from __future__ import annotations

from typing import TypeVar

import attrs

from olm.template.nodes import (
    ActionNode,
    BranchNode,
    CommandNode,
    FieldNode,
    ListNode,
    Node,
    PipeNode,
)

__all__ = ["before_response"]

N = TypeVar("N", bound=Node)


def before_response(root: ListNode) -> ListNode:
    """Give a tree without what follows the first `.Response`; the whole tree when there is none."""
    return _Cut().list(root)


class _Cut:
    """Walks in order; once it has seen the place, everything goes."""

    def __init__(self) -> None:
        self._is_behind = False

    def list(self, node: ListNode) -> ListNode:
        kept: list[Node] = []
        for inner in node.nodes:
            if self._is_behind:
                break
            short = self._node(inner)
            if short is not None:
                kept.append(short)
        return attrs.evolve(node, nodes=tuple(kept))

    def _node(self, node: Node) -> Node | None:
        if isinstance(node, BranchNode):
            # A condition on `.Response` is not its place.
            body = self.list(node.body)
            otherwise = None if node.otherwise is None else self.list(node.otherwise)
            return attrs.evolve(node, body=body, otherwise=otherwise)
        if isinstance(node, ActionNode):
            pipe = self._pipe(node.pipe)
            return None if pipe is None else attrs.evolve(node, pipe=pipe)
        return node

    def _pipe(self, pipe: PipeNode) -> PipeNode | None:
        """Cut a pipeline. One that cannot go on without what is cut goes as a whole."""
        commands: list[CommandNode] = []
        for command in pipe.commands:
            args = self._args(command)
            if not args:
                return None
            commands.append(attrs.evolve(command, args=args))
        return attrs.evolve(pipe, commands=tuple(commands))

    def _args(self, command: CommandNode) -> tuple[Node, ...]:
        kept: list[Node] = []
        for arg in command.args:
            if self._is_behind:
                break
            inner = self._pipe(arg) if isinstance(arg, PipeNode) else arg
            if isinstance(arg, FieldNode) and "Response" in arg.ident:
                self._is_behind = True
            if inner is not None:
                kept.append(inner)
        return tuple(kept)
