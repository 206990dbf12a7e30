"""Grammar rules for members in a fixed order, some of which may be left out: arguments of calls that are not JSON."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["members", "new_rule"]


def new_rule(rules: list[str], body: str) -> str:
    """Add a rule of Lark to `rules` and return its name."""
    name = f"call_part_{len(rules)}"
    rules.append(f"{name}: {body}")
    return name


def members(
    rules: list[str], written: Sequence[str], needed: Sequence[bool], between: str = ""
) -> str:
    """Write members one after the other, those not `needed` optional. Costs rules linear in their number.

    Args:
        rules: takes the rules that are made.
        written: the members as right-hand sides.
        between: an expression that stands between two members; empty when nothing does.
    """
    if not written:
        return '""'
    names = [new_rule(rules, member) for member in written]
    tails = [""]
    for name, is_needed in zip(names[:0:-1], needed[:0:-1], strict=True):
        here = f"{between} {name}" if is_needed else f"({between} {name})?"
        tails.append(new_rule(rules, f"{here} {tails[-1]}"))
    tails.reverse()
    firsts: list[str] = []
    for name, is_needed, tail in zip(names, needed, tails, strict=True):
        firsts.append(f"{name} {tail}")
        if is_needed:
            return "(" + " | ".join(firsts) + ")"
    return "(" + " | ".join(firsts) + ")?"
