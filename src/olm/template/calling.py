"""Calling functions and methods: counts and types of arguments, and the words for what went wrong (Go 1.26, exec.go)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from olm.template.running import CHARS_PER_STEP, Run, Site
from olm.template.values import INVALID, Function, FunctionError, Parameter, type_name

__all__ = [
    "PARAMETERS",
    "call_callee",
    "call_now",
    "checked",
    "count_complaint",
    "fits",
    "go_name",
    "parameter_of",
]

_GO_NAMES: Final[dict[Parameter, str]] = {
    "any": "interface {}",
    "value": "reflect.Value",
    "string": "string",
    "int": "int",
    "float": "float64",
    "bool": "bool",
}
_LONG_CHARS: Final = 4096
"""Arguments beyond this pay for their length; below it, the call itself costs more."""
PARAMETERS: Final = tuple(_GO_NAMES)
"""All kinds of parameters."""
_TYPES: Final[dict[Parameter, type]] = {"string": str, "int": int, "float": float, "bool": bool}


def go_name(parameter: Parameter) -> str:
    """Name the Go type of a parameter."""
    return _GO_NAMES[parameter]


def parameter_of(function: Function, index: int) -> Parameter:
    """Give the kind of an argument; the count must have been checked."""
    if index < len(function.parameters):
        return function.parameters[index]
    assert function.rest is not None, "the count was checked"
    return function.rest


def count_complaint(function: Function, name: str, n_given: int, n_written: int) -> str | None:
    """Say what is wrong with a number of arguments; `n_written` leaves away the one that comes by the pipe."""
    wanted = len(function.parameters)
    if function.rest is not None:
        return (
            None
            if n_given >= wanted
            else f"wrong number of args for {name}: want at least {wanted} got {n_written}"
        )
    return (
        None
        if n_given == wanted
        else f"wrong number of args for {name}: want {wanted} got {n_given}"
    )


def checked(value: object, parameter: Parameter, site: Site) -> object:
    """Give a value as a parameter takes it.

    Raises:
        TemplateError: it has the wrong type.
    """
    if parameter == "value":
        return value
    if parameter == "any":
        return None if value is INVALID else value
    if value is INVALID:
        raise site.error(f"invalid value; expected {_GO_NAMES[parameter]}")
    if fits(value, parameter):
        return value
    found = "interface {}" if value is None else type_name(value)
    raise site.error(f"wrong type for value; expected {_GO_NAMES[parameter]}; got {found}")


def fits(value: object, parameter: Parameter) -> bool:
    """Say whether a value may go to a parameter as it is."""
    if parameter in ("any", "value"):
        return True
    return isinstance(value, _TYPES[parameter]) and (parameter == "bool") == isinstance(value, bool)


def call_now(
    function: Function, name: str, values: Sequence[object], site: Site, run: Run
) -> object:
    """Call with arguments that fit, and pay for a text that comes back.

    Raises:
        TemplateError: the function refused, or the budget is spent.
    """
    n_chars = 0
    for value in values:
        if type(value) is str:
            n_chars += len(value)
    if n_chars > _LONG_CHARS:
        run.charge(n_chars // CHARS_PER_STEP, site)
    try:
        result = function.call(*values)
    except FunctionError as exc:
        raise site.error(f"error calling {name}: {exc}") from exc
    if isinstance(result, str):
        run.charge_text(result, site)
    return result


def call_callee(
    callee: object, label: str, values: Sequence[object], site: Site, run: Run
) -> object:
    """Run the builtin `call`: a function that is a value. `label` is how the template wrote it. Raises as `call_now`."""
    if callee is INVALID or callee is None:
        raise site.error("error calling call: call of nil")
    if not isinstance(callee, Function):
        raise site.error(f"error calling call: non-function {label} of type {type_name(callee)}")
    wanted = len(callee.parameters)
    if len(values) < wanted or (callee.rest is None and len(values) > wanted):
        least = "" if callee.rest is None else "at least "
        raise site.error(
            f"error calling call: wrong number of args for {label}: got {len(values)} want {least}{wanted}"
        )
    args: list[object] = []
    for index, value in enumerate(values):
        parameter = parameter_of(callee, index)
        plain = None if value is INVALID else value
        if not fits(plain, parameter):
            problem = (
                "value is nil; should be of type"
                if plain is None
                else f"value has type {type_name(plain)}; should be"
            )
            raise site.error(f"error calling call: arg {index}: {problem} {_GO_NAMES[parameter]}")
        args.append(plain)
    return call_now(callee, "call", args, site, run)
