"""Modelfiles: parse, format, and read out what a create request needs. Pure; no paths are opened here.

The language and the error texts are Ollama's (`parser/parser.go`, commit fb30760; spec/ollama §5). Where its formatter
writes a value that its own parser would read differently (one that begins with a quote), ours quotes it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import attrs

from olm.chat.adapters import read_adapters
from olm.chat.options import OPTION_TYPES
from olm.errors import InvalidOption, ModelfileError

__all__ = [
    "DEPRECATED_PARAMETERS",
    "Command",
    "ModelSpec",
    "format_command",
    "format_modelfile",
    "parse_modelfile",
    "read_parameter",
    "spec_of",
]

_COMMANDS: Final = (
    "from",
    "license",
    "template",
    "system",
    "adapter",
    "draft",
    "renderer",
    "parser",
    "parameter",
    "message",
    "requires",
)
_UNKNOWN_COMMAND: Final = (
    "command must be one of "
    + ", ".join(f'"{name}"' for name in _COMMANDS[:-1])
    + f', or "{_COMMANDS[-1]}"'
)
_ROLES: Final = ("system", "user", "assistant")
_UNKNOWN_ROLE: Final = 'message role must be one of "system", "user", or "assistant"'

# Ollama warns about these and ignores them; its mirostat family is missing here because olm has it.
DEPRECATED_PARAMETERS: Final = frozenset(
    ("penalize_newline", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock")
)

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_WORD: Final = re.compile(r"[A-Za-z]+")
_KEY: Final = re.compile(r"[A-Za-z0-9_]+")
_SPACE: Final = re.compile(r"[ \t]+")
_TRIPLE_END: Final = re.compile(r'"""[ \t]*(?=[\r\n]|$(?!\n))')
_SINGLE_END: Final = re.compile(r'"[ \t]*(?=[\r\n]|$(?!\n))')
_LINE_END: Final = re.compile(r"[\r\n]|$(?!\n)")
_NEWLINE: Final = re.compile(r"\r\n|\r|\n")
_SEMVER: Final = re.compile(
    r"v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?"
)
_GO_BOOLS: Final = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}
_GO_INT: Final = re.compile(r"[+-]?[0-9]+")
_GO_FLOAT: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_INT64: Final = range(-(1 << 63), 1 << 63)


class Command(NamedTuple):
    """One instruction. `name` is lower case; `key` is a PARAMETER's name or a MESSAGE's role, else empty."""

    name: str
    value: str
    key: str = ""


def parse_modelfile(source: str | bytes) -> list[Command]:
    """Parse a Modelfile.

    Args:
        source: text, or bytes in UTF-8 (with or without BOM) or UTF-16 with BOM.

    Raises:
        ModelfileError: with Ollama's text; `line` is in the details.
    """
    text = _printable(
        _decode(source) if isinstance(source, bytes) else source.removeprefix("\ufeff")
    )
    commands: list[Command] = []
    at = _end(_BLANK, text, 0)
    while at < len(text):
        command, at = _command(text, at)
        commands.append(command)
        at = _end(_BLANK, text, at)
    if not any(command.name == "from" for command in commands):
        raise ModelfileError("no FROM line")
    return commands


def _decode(data: bytes) -> str:
    for bom, encoding in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if data.startswith(bom):
            return data[len(bom) :].decode(encoding, errors="replace")
    return data.removeprefix(codecs.BOM_UTF8).decode(errors="replace")


def _printable(text: str) -> str:
    """Drop what cannot be printed, as Go's `strconv.IsPrint` has it; spaces, tabs and line ends stay."""
    if text.isprintable():
        return text
    return "".join(c for c in text if c in "\t\r\n" or c.isprintable())


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()


def _fail(text: str, at: int, message: str, *, numbered: bool = True) -> ModelfileError:
    line = 1 + sum(1 for _ in _NEWLINE.finditer(text, 0, at))
    return ModelfileError(f"(line {line}): {message}" if numbered else message, line=line)


def _command(text: str, begin: int) -> tuple[Command, int]:
    """Read one instruction at `begin`; returns it and where it ends."""
    at = _end(_WORD, text, begin)
    name = text[begin:at].lower()
    if name not in _COMMANDS or (at < len(text) and text[at] not in " \t\r\n"):
        raise _fail(text, begin, _UNKNOWN_COMMAND)
    at = _after_space(text, at)
    key = ""
    if name in ("parameter", "message"):
        key_begin = at
        at = _end(_KEY if name == "parameter" else _WORD, text, at)
        key = text[key_begin:at]
        if name == "message" and key not in _ROLES:
            raise _fail(text, begin, _UNKNOWN_ROLE)
        if not key:
            raise _fail(text, begin, "unexpected EOF", numbered=False)
        at = _after_space(text, at)
    value, at = _value(text, at)
    return Command(name, value, key), at


def _after_space(text: str, at: int) -> int:
    """Step over the space that must follow a word: what comes next, be it empty, is the value."""
    end = _end(_SPACE, text, at)
    if end == at:
        raise _fail(text, at, "unexpected EOF", numbered=False)
    return end


def _value(text: str, at: int) -> tuple[str, int]:
    """Read a value: the rest of the line, or up to the quote that ends a line."""
    for quote, pattern in (('"""', _TRIPLE_END), ('"', _SINGLE_END)):
        if text.startswith(quote, at):
            begin = at + len(quote)
            match = pattern.search(text, begin)
            if match is None:
                raise _fail(text, at, "unexpected EOF", numbered=False)
            return text[begin : match.start()], match.end()
    match = _LINE_END.search(text, at)
    assert match is not None, "the pattern matches the end of the text"
    return text[at : match.start()].rstrip(" \t"), match.start()


def format_modelfile(commands: Iterable[Command]) -> str:
    """Write instructions one a line; parsing the result gives them again, wherever the language can say them."""
    return "".join(f"{format_command(command)}\n" for command in commands)


def format_command(command: Command) -> str:
    """Write one instruction as `show --modelfile` prints it."""
    words = [command.name.upper(), command.key, _quoted(command.value)]
    return " ".join(word for i, word in enumerate(words) if word or i == 2)


def _quoted(value: str) -> str:
    """Quote only where needed: in `"` when that can be read back, else in three of them."""
    is_bare = not (
        "\n" in value or "\r" in value or value != value.strip(" \t") or value.startswith('"')
    )
    if is_bare:
        return value
    return f'"""{value}"""' if '"' in value else f'"{value}"'


@attrs.frozen(kw_only=True)
class ModelSpec:
    """What a Modelfile asks for, ready for a create request. Paths and names in `sources` are as written.

    Attributes:
        sources: the FROM values in order: model names or paths.
        parameters: JSON values, typed by the option table; `stop` a list.
        messages: (role, content) in order; None without a MESSAGE line.
        warnings: lines for the user, such as deprecated parameters.
    """

    sources: Sequence[str]
    adapters: Sequence[str] = ()
    drafts: Sequence[str] = ()
    template: str | None = None
    system: str | None = None
    licenses: Sequence[str] = ()
    parameters: Mapping[str, object] = attrs.field(factory=dict)
    messages: Sequence[tuple[str, str]] | None = None
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    warnings: Sequence[str] = ()


def spec_of(commands: Iterable[Command]) -> ModelSpec:
    """Read parsed instructions: values that repeat accumulate where the language says so, else the last wins.

    Raises:
        ModelfileError: an unknown parameter, a value of the wrong type, a bad version.
    """
    many: dict[str, list[str]] = {name: [] for name in _COMMANDS}
    parameters: dict[str, object] = {}
    messages: list[tuple[str, str]] = []
    warnings: list[str] = []
    for name, value, key in commands:
        if name == "parameter":
            if key in DEPRECATED_PARAMETERS:
                warnings.append(f"warning: parameter {key} is deprecated")
            else:
                _add_parameter(parameters, key, value)
        elif name == "message":
            messages.append((key, value))
        else:
            many[name].append(value)
    return ModelSpec(
        sources=many["from"],
        adapters=many["adapter"],
        drafts=many["draft"],
        template=many["template"][-1] if many["template"] else None,
        system=many["system"][-1] if many["system"] else None,
        licenses=many["license"],
        parameters=parameters,
        messages=messages or None,
        renderer=many["renderer"][-1] if many["renderer"] else "",
        parser=many["parser"][-1] if many["parser"] else "",
        requires=_version(many["requires"]),
        warnings=warnings,
    )


def _add_parameter(parameters: dict[str, object], key: str, value: str) -> None:
    parsed = read_parameter(key, value)
    existing = parameters.get(key)
    if isinstance(existing, list) and isinstance(parsed, list):
        existing.extend(parsed)
    else:
        parameters[key] = parsed


def read_parameter(key: str, value: str) -> object:
    """Read a parameter's text as the JSON value the option table wants; a list holds the one value.

    Raises:
        ModelfileError: `unknown parameter 'x'`, `invalid int value [x]` and the like.
    """
    match OPTION_TYPES.get(key):
        case "integer":
            if not _GO_INT.fullmatch(value) or int(value) not in _INT64:
                raise ModelfileError(f"invalid int value [{value}]")
            return int(value)
        case "float32":
            if not _GO_FLOAT.fullmatch(value) or abs(float(value)) > 3.4028235e38:
                raise ModelfileError(f"invalid float value [{value}]")
            return float(value)
        case "boolean":
            if value not in _GO_BOOLS:
                raise ModelfileError(f"invalid bool value [{value}]")
            return _GO_BOOLS[value]
        case "array":
            return [value]
        case "adapters":
            try:
                read_adapters([value])
            except InvalidOption as exc:
                raise ModelfileError(
                    f"invalid adapters value [{value}]: wanted name=scale"
                ) from exc
            return [value]
        case _:  # unknown, or of a kind that has no text form
            raise ModelfileError(f"unknown parameter '{key}'")


def _version(values: Sequence[str]) -> str:
    if not values:
        return ""
    if not _SEMVER.fullmatch(values[-1]):
        raise ModelfileError("requires must be a valid semver (e.g. 0.14.0)")
    return values[-1].removeprefix("v")
