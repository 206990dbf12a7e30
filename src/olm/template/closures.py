"""The closures that expressions compile to. They are what runs, so the common ways through them are kept short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from olm.template.calling import call_callee, call_now, checked, count_complaint, parameter_of
from olm.template.fields import MissingKey, field_of, method_of
from olm.template.running import Expression, Frame, Site
from olm.template.values import INVALID, NO_FIELD, GoStruct, Parameter, go_type_of, is_true

__all__ = [
    "AnyArgument",
    "always",
    "called",
    "called_callee",
    "dot_value",
    "failing",
    "field_chain",
    "method_call",
    "short_circuit",
    "stored",
    "unboxed",
]

AnyArgument = Mapping[Parameter, Expression]
"""An argument for each kind of parameter that it may go to."""


def failing(message: str, site: Site, final: Expression | None) -> Expression:
    """Raise an error, after what comes by the pipe was computed, which may raise its own."""

    def fail(frame: Frame, dot: object) -> object:
        if final is not None:
            final(frame, dot)
        raise site.error(message)

    return fail


def dot_value(_frame: Frame, dot: object) -> object:
    """Give the cursor."""
    return dot


def always(value: object) -> Expression:
    """Give a constant."""
    return lambda _frame, _dot: value


def unboxed(value: Expression) -> Expression:
    """Make INVALID of nil, as every pipeline does."""

    def unboxed_value(frame: Frame, dot: object) -> object:
        found = value(frame, dot)
        return INVALID if found is None else found

    return unboxed_value


def field_chain(
    start: Expression, names: tuple[str, ...], site: Site, missing: MissingKey, *, is_boxed: bool
) -> Expression:
    """Give the last of a chain of fields; methods on the way are called without arguments."""

    def chain(frame: Frame, dot: object) -> object:
        value = start(frame, dot)
        holder: object = None
        for name in names:
            owner = value
            if type(owner) is dict:
                value = owner.get(name, NO_FIELD)
                if value is not NO_FIELD:
                    holder = owner
                    continue
            elif isinstance(owner, GoStruct) and name not in owner.go_type.methods:
                value = owner.go_field(name)
                if value is not NO_FIELD:
                    holder = owner
                    continue
            method = method_of(owner, name)
            if method is not None:
                complaint = count_complaint(method, name, 0, 0)
                if complaint is not None:
                    raise site.error(complaint)
                value = call_now(method, name, (owner,), site, frame.run)
            else:
                boxed = (
                    _is_plain(owner) if holder is None and is_boxed else isinstance(holder, dict)
                )
                value = field_of(owner, name, site, missing, is_boxed=boxed)
            holder = owner
        return value

    return chain


def _is_plain(value: object) -> bool:
    # An element of a list or map, as far as one can tell: numbers are of `range 5`, named types of typed slices.
    return go_type_of(value) is None and not isinstance(value, int)


def method_call(
    owner: Expression,
    name: str,
    given: Sequence[AnyArgument],
    final: Expression | None,
    site: Site,
    missing: MissingKey,
    *,
    is_boxed: bool,
) -> Expression:
    """Call a method with arguments; anything else that has the name is an error."""
    n_given = len(given) + (final is not None)

    def invoked(frame: Frame, dot: object) -> object:
        # What comes by the pipe was computed before anything else.
        last = INVALID if final is None else final(frame, dot)
        value = owner(frame, dot)
        method = method_of(value, name)
        if method is None:
            if isinstance(value, dict):
                raise site.error(f"{name} is not a method but has arguments")
            found = field_of(value, name, site, missing, is_boxed=is_boxed and _is_plain(value))
            if value is INVALID:
                return found
            raise site.error(f"{name} has arguments but cannot be invoked as function")
        complaint = count_complaint(method, name, n_given, len(given))
        if complaint is not None:
            raise site.error(complaint)
        args = [arg[parameter_of(method, index)](frame, dot) for index, arg in enumerate(given)]
        if final is not None:
            args.append(checked(last, parameter_of(method, n_given - 1), site))
        return call_now(method, name, (value, *args), site, frame.run)

    return invoked


def stored(value: Expression, slots: tuple[int, ...]) -> Expression:
    """Compute a value and put it into variables."""

    def stored_value(frame: Frame, dot: object) -> object:
        found = value(frame, dot)
        for slot in slots:
            frame.slots[slot] = found
        return found

    return stored_value


def short_circuit(given: Sequence[Expression], *, stops_at: bool, final_first: bool) -> Expression:
    """Run `and` or `or`: the first value that is as true as `stops_at`, or the last one."""

    def piped(frame: Frame, dot: object) -> object:
        # What comes by the pipe was computed before the other arguments are, though it is the last of them.
        last = given[-1](frame, dot)
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

    return piped if final_first else lazy


def called(given: Sequence[Expression], name: str, site: Site, *, final_first: bool) -> Expression:
    """Call a function of this name; with `final_first`, the last argument comes by the pipe."""
    if len(given) == 2 and not final_first:
        first, second = given

        def called_with_two(frame: Frame, dot: object) -> object:
            run = frame.run
            return call_now(
                run.functions[name], name, (first(frame, dot), second(frame, dot)), site, run
            )

        return called_with_two

    def called_with_any(frame: Frame, dot: object) -> object:
        values = _evaluated(given, frame, dot, final_first=final_first)
        return call_now(frame.run.functions[name], name, values, site, frame.run)

    return called_with_any


def called_callee(
    given: Sequence[Expression], label: str, site: Site, *, final_first: bool
) -> Expression:
    """Call a function that is a value; `label` is how the template wrote it."""

    def called_value(frame: Frame, dot: object) -> object:
        callee, *values = _evaluated(given, frame, dot, final_first=final_first)
        return call_callee(callee, label, values, site, frame.run)

    return called_value


def _evaluated(
    given: Sequence[Expression], frame: Frame, dot: object, *, final_first: bool
) -> list[object]:
    if not final_first:
        return [value(frame, dot) for value in given]
    last = given[-1](frame, dot)
    return [*(value(frame, dot) for value in given[:-1]), last]
