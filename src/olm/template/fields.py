"""Fields of values: keys of maps, declared fields and declared methods of structs (Go 1.26, text/template/exec.go)."""

from __future__ import annotations

from typing import Literal

from olm.template.running import Site
from olm.template.values import INVALID, NO_FIELD, Function, GoMap, GoStruct, go_type_of, type_name

__all__ = ["MissingKey", "field_of", "method_of"]

MissingKey = Literal["default", "zero", "error"]
"""What a key that a map lacks gives: no value, the zero of the map's values (Ollama's choice), or an error."""


def method_of(owner: object, name: str) -> Function | None:
    """Find a declared method."""
    go_type = go_type_of(owner)
    return None if go_type is None else go_type.methods.get(name)


def field_of(
    owner: object, name: str, site: Site, missing: MissingKey, *, is_boxed: bool
) -> object:
    """Give the field of a value that is no method.

    Args:
        is_boxed: the value came out of a list or map of anything, so that errors call its type `interface {}`.

    Raises:
        TemplateError: the value has no such field; Go's words.
    """
    if isinstance(owner, dict):
        found = owner.get(name, NO_FIELD)
        return found if found is not NO_FIELD else _missing(owner, name, site, missing)
    if isinstance(owner, GoStruct):
        found = owner.go_field(name)
        if found is not NO_FIELD:
            return found
    if owner is INVALID:
        if missing == "error":
            raise site.error(f'nil data; no entry for key "{name}"')
        return INVALID
    if owner is None:
        raise site.error(f"nil pointer evaluating interface {{}}.{name}")
    kind = "interface {}" if is_boxed else type_name(owner)
    raise site.error(f"can't evaluate field {name} in type {kind}")


def _missing(owner: object, name: str, site: Site, missing: MissingKey) -> object:
    if missing == "zero":
        return owner.go_type.zero if isinstance(owner, GoMap) else None
    if missing == "error":
        raise site.error(f'map has no entry for key "{name}"')
    return INVALID
