"""What a Go template tells about the answers of its model: tags around thinking, the tag before tool calls, its variables.

The heuristics are Ollama's (`thinking/template.go`, `tools/template.go`, `template/template.go`, commit fb30760), since
capabilities hang on them. How answers are read by these tags is `olm.chat.tagged`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from olm.chat.tagged import Tags
from olm.errors import TemplateError
from olm.template.nodes import (
    ActionNode,
    BranchNode,
    CommandNode,
    FieldNode,
    IfNode,
    ListNode,
    Node,
    PipeNode,
    RangeNode,
    TemplateNode,
    TextNode,
    VariableNode,
)

__all__ = ["call_tag", "infer_tags", "think_tags", "variables"]


def infer_tags(root: ListNode) -> Tags:
    """Put together what a template's main tree says of answers."""
    start, end = think_tags(root)
    is_whole = bool(start and end)
    branch = _calls_branch(root.nodes)
    keys = str(branch.body) if branch is not None else ""
    has_parameters = '"parameters"' in keys and '"arguments"' not in keys
    return Tags(
        think_start=start if is_whole else "",
        think_end=end if is_whole else "",
        # Blanks behind the tag are not asked for: models that leave them away are read, too.
        calls=call_tag(root).strip() or "{",
        arguments="parameters" if has_parameters else "arguments",
    )


def think_tags(root: ListNode) -> tuple[str, str]:
    """Find the texts around `.Thinking` in a range over `.Messages`: the first and the last of the list it stands in.

    Either may be empty. Of several places the last one counts.
    """
    start = end = ""
    for path in _paths(root, ()):
        field = path[-1]
        if not isinstance(field, FieldNode) or field.ident[0] != "Thinking":
            continue
        loop = next((node for node in reversed(path) if isinstance(node, RangeNode)), None)
        if loop is None or not _uses_messages(loop.pipe):
            continue
        nodes = next(node.nodes for node in reversed(path) if isinstance(node, ListNode))
        start = nodes[0].text.strip() if isinstance(nodes[0], TextNode) else start
        end = nodes[-1].text.strip() if isinstance(nodes[-1], TextNode) else end
    return start, end


def call_tag(root: ListNode) -> str:
    """Find the text that stands before tool calls, up to a `{`; empty when they are bare, or there are none."""
    branch = _calls_branch(root.nodes)
    text = _first_text(branch.body.nodes) if branch is not None else None
    return (text or "").strip().replace("\r\n", "\n").split("{")[0]


def variables(trees: Iterable[ListNode]) -> frozenset[str]:
    """Collect the names of fields and variables that templates use, in lower case.

    Raises:
        TemplateError: a `template` action without a value, which Ollama refuses.
    """
    return frozenset(name.lower() for tree in trees for name in _names(tree))


def _names(node: Node) -> Iterator[str]:
    """Like Ollama, look into pipelines and bodies, not into what is declared or chained."""
    if isinstance(node, FieldNode | VariableNode):
        yield from node.ident
    elif isinstance(node, TemplateNode) and node.pipe is None:
        raise TemplateError("undefined template specified")
    else:
        for inner in _inner(node):
            yield from _names(inner)


def _inner(node: Node) -> Sequence[Node]:
    match node:
        case ListNode(nodes=nodes):
            return nodes
        case BranchNode(pipe=pipe, body=body, otherwise=otherwise):
            return (pipe, body) if otherwise is None else (pipe, body, otherwise)
        case ActionNode(pipe=pipe):
            return (pipe,)
        case TemplateNode(pipe=pipe):
            return () if pipe is None else (pipe,)
        case PipeNode(commands=commands):
            return commands
        case CommandNode(args=args):
            return args
        case _:
            return ()


def _paths(node: Node, above: tuple[Node, ...]) -> Iterator[tuple[Node, ...]]:
    """Walk a tree in order; each node with all those around it, outermost first."""
    path = (*above, node)
    yield path
    for inner in _inner(node):
        yield from _paths(inner, path)


def _uses_messages(pipe: PipeNode) -> bool:
    return any(
        isinstance(path[-1], FieldNode) and path[-1].ident[0] == "Messages"
        for path in _paths(pipe, ())
    )


def _calls_branch(nodes: Sequence[Node]) -> IfNode | None:
    """Find the first `if` on `.ToolCalls`."""
    for node in nodes:
        if isinstance(node, IfNode) and _asks_for_calls(node.pipe):
            return node
        lists = (node.body, node.otherwise) if isinstance(node, BranchNode) else ()
        for inner in lists:
            found = None if inner is None else _calls_branch(inner.nodes)
            if found is not None:
                return found
    return None


def _asks_for_calls(pipe: PipeNode) -> bool:
    return any(
        isinstance(arg, FieldNode) and "ToolCalls" in arg.ident
        for command in pipe.commands
        for arg in command.args
    )


def _first_text(nodes: Sequence[Node]) -> str | None:
    """Find the first text, branches included; None when a value is printed before it.

    Ollama gives up at the first `if` without a text, and so takes a separator between calls for a sign that they have no
    tag; here the search goes on behind it.
    """
    for node in nodes:
        if isinstance(node, TextNode):
            return node.text
        if isinstance(node, ActionNode):
            return None
        if isinstance(node, BranchNode):
            found = _first_text(node.body.nodes)
            if found is None and node.otherwise is not None:
                found = _first_text(node.otherwise.nodes)
            if found is not None or not isinstance(node, IfNode):
                return found
    return None
