"""The conformance cases: where they are, how their data becomes values of ours, and how ours are run.

The Go side is `go/main.go`; its types and functions are mirrored here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from olm.errors import TemplateError
from olm.template import Function, FunctionError, GoList, GoMap, GoStruct, GoType, parse
from olm.template.formatting import go_print
from olm.template.ollama import ollama_functions

HERE: Final = Path(__file__).parent
CASES: Final = sorted((HERE / "cases").glob("*.json"))
GOLDENS: Final = HERE / "goldens.json"
DATA: Final = HERE / "data.json"

Result = str | dict[str, str]


def _refuse(words: str) -> Function:
    def refuse(*_args: object) -> object:
        raise FunctionError(words)

    return Function(refuse)


def _field(person: GoStruct, name: str) -> object:
    return person.go_field(name)


FUNCTIONS: Final[Mapping[str, Function]] = {
    "shout": Function(
        lambda text: f"{text.upper()}!", ("string",), type_name="func(string) string"
    ),
    "sum": Function(lambda *numbers: sum(numbers), rest="int"),
    "refuse": _refuse("refused"),
    "json": ollama_functions()["json"],
}
_PERSON_METHODS: Final = {
    "Greet": Function(lambda me, greeting: f"{greeting}, {_field(me, 'Name')}", ("string",)),
    "Older": Function(lambda me, years: _field(me, "Age") + years, ("int",)),
    "Scaled": Function(lambda me, factor: f"{_field(me, 'Age') * factor:.2f}", ("float",)),
    "Choose": Function(lambda _, first: "first" if first else "second", ("bool",)),
    "Join": Function(lambda _, sep, *parts: sep.join(parts), ("string",), "string"),
    "Any": Function(lambda _, value: go_print((value,), 1000), ("any",)),
    "Fail": _refuse("no luck"),
    "Self": Function(lambda me: me),
}
_FIELDS: Final = ("Name", "Age", "Active", "Tags", "Home", "Extra")
PERSON: Final = GoType("main.Person", fields=_FIELDS, methods=_PERSON_METHODS)
POINTER: Final = GoType("main.Person", fields=_FIELDS, methods=_PERSON_METHODS, is_pointer=True)
ADDRESS: Final = GoType("main.Address", fields=("Street", "Number"), is_pointer=True)
READING: Final = GoType(
    "main.Reading",
    fields=("Degrees",),
    text=lambda value: f"{value.go_field('Degrees'):.1f} degrees",
)
STRINGS: Final = GoType("[]string")
PEOPLE: Final = GoType("[]main.Person")
WORDS: Final = GoType("main.Words", text=lambda value: "+".join(value))
BAG: Final = GoType("main.Bag", text=lambda value: f"bag of {len(value)}")


def _person(fields: Mapping[str, object], go_type: GoType) -> GoStruct:
    values = {
        **fields,
        "Age": int(fields["Age"]),
        "Tags": GoList(STRINGS, fields["Tags"]),
        "Extra": build(fields["Extra"]),
    }
    home = fields["Home"]
    if home is not None:
        values["Home"] = GoStruct(ADDRESS, {**home, "Number": int(home["Number"])})
    return GoStruct(go_type, values)


_SPECIAL: Final = {
    "$int": int,
    "$bytes": str.encode,
    "$strings": lambda items: GoList(STRINGS, items),
    "$words": lambda items: GoList(WORDS, items),
    "$bag": lambda items: GoMap(BAG, build(items)),
    "$reading": lambda degrees: GoStruct(READING, {"Degrees": degrees}),
    "$person": lambda fields: _person(fields, PERSON),
    "$pointer": lambda fields: _person(fields, POINTER),
    "$people": lambda items: GoList(PEOPLE, [_person(item, PERSON) for item in items]),
    "$function": FUNCTIONS.__getitem__,
}


def build(value: object) -> object:
    """Make a template's value from the data of a case."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in _SPECIAL:
                return _SPECIAL[key](item)
        return {key: build(item) for key, item in value.items()}
    return [build(item) for item in value] if isinstance(value, list) else value


def load_data() -> dict[str, object]:
    """Read the named data; all numbers are floats, as Go decodes JSON."""
    named = json.loads(DATA.read_text(encoding="utf-8"), parse_int=float)
    return {name: build(value) for name, value in named.items()}


def load_cases(path: Path) -> list[list[str]]:
    """Read one file of cases: template, name of the data, and perhaps the missingkey option."""
    return json.loads(path.read_text(encoding="utf-8"))


def run_case(case: list[str], data: Mapping[str, object]) -> Result:
    """Run one case through our implementation."""
    text, name, missing = (*case, "zero")[:3]
    try:
        return parse(text, functions=FUNCTIONS, missing_key=missing).execute(data[name])
    except TemplateError as exc:
        return {"error": str(exc)}
