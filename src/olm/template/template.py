"""A parsed template and how it is run: `parse` and `Template`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Self

from olm.errors import TemplateError
from olm.template.fields import MissingKey
from olm.template.functions import builtins
from olm.template.nodes import ListNode
from olm.template.parser import parse_trees
from olm.template.quoting import to_bytes
from olm.template.running import Frame, Limits, Run
from olm.template.statements import Body, compile_tree
from olm.template.values import INVALID, Function

__all__ = ["MAX_TEMPLATE_CHARS", "Template", "parse"]

MAX_TEMPLATE_CHARS: Final = 200_000
"""The longest template that is read; the longest of Ollama's library has some 20,000."""
_NO_FUNCTIONS: Final[Mapping[str, Function]] = MappingProxyType({})
_DEFAULT_LIMITS: Final = Limits()


def parse(
    text: str,
    *,
    name: str = "",
    functions: Mapping[str, Function] = _NO_FUNCTIONS,
    missing_key: MissingKey = "zero",
    max_chars: int = MAX_TEMPLATE_CHARS,
) -> Template:
    """Parse a template.

    Args:
        name: what errors call it.
        functions: those it may call beside Go's own; they win over them.
        missing_key: what a key gives that a map lacks; Ollama sets `zero`.

    Raises:
        TemplateError: Go's own words, `template: NAME:LINE: …`; or the text is too long.
    """
    if len(text) > max_chars:
        raise TemplateError(f"template: {name}: template is longer than {max_chars} characters")
    try:
        trees = parse_trees(text, name, frozenset((*_builtins(0), *functions)))
        root = trees.pop(name)
        return Template(name, root, trees, functions, missing_key)
    except RecursionError as exc:
        raise TemplateError(f"template: {name}: template is nested too deeply") from exc


class Template:
    """A template, compiled. It holds no state of its executions, so any number of them may run at once.

    Attributes:
        name: what errors call it.
        root: its main tree.
        templates: the trees that it defines, by name.
    """

    def __init__(
        self,
        name: str,
        root: ListNode,
        templates: Mapping[str, ListNode],
        functions: Mapping[str, Function] = _NO_FUNCTIONS,
        missing_key: MissingKey = "zero",
    ) -> None:
        self.name: Final = name
        self.root: Final = root
        self.templates: Final = MappingProxyType(dict(templates))
        self._functions: Final = functions
        self._missing: Final[MissingKey] = missing_key
        known = {**_builtins(0), **functions}
        self._bodies: Final[dict[str, Body]] = {
            key: compile_tree(name, key, tree, known, missing_key, self._body)
            for key, tree in {**templates, name: root}.items()
        }

    def _body(self, name: str) -> Body | None:
        return self._bodies.get(name)

    def with_root(self, root: ListNode) -> Self:
        """Give the same template with another main tree."""
        return type(self)(self.name, root, self.templates, self._functions, self._missing)

    def execute(
        self,
        data: object,
        *,
        limits: Limits = _DEFAULT_LIMITS,
        functions: Mapping[str, Function] = _NO_FUNCTIONS,
    ) -> str:
        """Run the template on a value and give the text.

        Args:
            functions: stand in for those given to `parse`, under the same names and with the same parameters.

        Raises:
            TemplateError: `template: NAME:LINE:COLUMN: executing "NAME" at <…>: …`; a limit is reached.
        """
        run = Run(limits, {**_builtins(limits.max_output_bytes), **self._functions, **functions})
        body = self._bodies[self.name]
        data = INVALID if data is None else data
        try:
            run.charge(body.n_nodes, body.site)
            body.statement(Frame(run, body.n_slots, data), data)
        except RecursionError as exc:
            raise TemplateError(
                f"template: {self.name}: values or templates are nested too deeply"
            ) from exc
        run.check_output(body.site)
        return _whole(run.out)


def _whole(pieces: list[str]) -> str:
    text = "".join(pieces)
    if text.isascii():
        return text
    # Bytes of cut letters that came together again are letters; what is left of them is U+FFFD.
    try:
        text.encode()
    except UnicodeEncodeError:
        return to_bytes(text).decode("utf-8", "replace")
    return text


@lru_cache(maxsize=8)
def _builtins(limit: int) -> Mapping[str, Function]:
    return builtins(limit)
