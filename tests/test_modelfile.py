"""The Modelfile language: lexing, errors, formatting, and what a create request is made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olm.errors import ModelfileError
from olm.modelfile import (
    Command,
    format_command,
    format_modelfile,
    parse_modelfile,
    spec_of,
)


def test_reads_every_instruction() -> None:
    text = """
FROM model1
ADAPTER adapter1
LICENSE MIT
PARAMETER temperature 0.5
PARAMETER stop one
# a comment
TEMPLATE \"\"\"{{ .System }}
{{ .Prompt }}\"\"\"
SYSTEM You are a bot.
MESSAGE user Hello there
RENDERER r
PARSER p
REQUIRES 0.14.0
DRAFT d
"""

    assert parse_modelfile(text) == [
        Command("from", "model1"),
        Command("adapter", "adapter1"),
        Command("license", "MIT"),
        Command("parameter", "0.5", "temperature"),
        Command("parameter", "one", "stop"),
        Command("template", "{{ .System }}\n{{ .Prompt }}"),
        Command("system", "You are a bot."),
        Command("message", "Hello there", "user"),
        Command("renderer", "r"),
        Command("parser", "p"),
        Command("requires", "0.14.0"),
        Command("draft", "d"),
    ]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("SYSTEM plain text", "plain text"),
        ("system lower case command", "lower case command"),
        ("  SYSTEM   spaces around   ", "spaces around"),
        ("SYSTEM\ttab", "tab"),
        ("SYSTEM inner   spaces\tand tabs", "inner   spaces\tand tabs"),
        ('SYSTEM "quoted"', "quoted"),
        ('SYSTEM "  keeps  "', "  keeps  "),
        ('SYSTEM "two\nlines"', "two\nlines"),
        ('SYSTEM """three\n\n"quoted" lines\n"""', 'three\n\n"quoted" lines\n'),
        ('SYSTEM """one"""', "one"),
        ('SYSTEM """"quoted""""', '"quoted"'),
        ("SYSTEM 'single' quotes", "'single' quotes"),
        ('SYSTEM say "hi" to them', 'say "hi" to them'),
        ('SYSTEM "a" and "b"', 'a" and "b'),
        ('SYSTEM ""', ""),
        ('SYSTEM """"""', ""),
        (r"SYSTEM no \n escapes", r"no \n escapes"),
        ("SYSTEM # not a comment", "# not a comment"),
        ('SYSTEM """\n# not a comment\nFROM x\n"""', "\n# not a comment\nFROM x\n"),
        ("SYSTEM 你好\U0001f44b", "你好\U0001f44b"),
        ("SYSTEM be\x07ll\u200b", "bell"),
    ],
)
def test_values(line: str, value: str) -> None:
    assert parse_modelfile(f"FROM a\n{line}\n")[1].value == value
    assert parse_modelfile(f"FROM a\n{line}")[1].value == value
    assert parse_modelfile(f"{line}\nFROM a")[0].value == value


def test_comments_blank_lines_and_crlf_are_fine() -> None:
    text = '# first\r\n\r\n  # indented\r\nFROM a\r\nSYSTEM """x\r\ny"""\r\n#end'

    assert parse_modelfile(text) == [Command("from", "a"), Command("system", "x\r\ny")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings(encoding: str) -> None:
    text = "FROM bob\nSYSTEM Ünïcode 你好\n"
    bom = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")

    assert parse_modelfile(bom + text.encode(encoding)) == [
        Command("from", "bob"),
        Command("system", "Ünïcode 你好"),
    ]


COMMANDS = (
    'command must be one of "from", "license", "template", "system", "adapter", "draft", "renderer", '
    '"parser", "parameter", "message", or "requires"'
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no FROM line"),
        ("SYSTEM x\n", "no FROM line"),
        ("# FROM x\n", "no FROM line"),
        ("FROM foo\nBADCOMMAND param1 value1\n", f"(line 2): {COMMANDS}"),
        ("FROM foo\r\n\r\nBADCOMMAND x\r\n", f"(line 3): {COMMANDS}"),
        ("FROM foo\nSYSTEM: x\n", f"(line 2): {COMMANDS}"),
        ("FROM foo\n{}\n", f"(line 2): {COMMANDS}"),
        ("FROM foo\nPARAM ETER x\n", f"(line 2): {COMMANDS}"),
        (
            "FROM foo\nMESSAGE badguy I'm a bad guy!\n",
            '(line 2): message role must be one of "system", "user", or "assistant"',
        ),
        (
            "FROM foo\nMESSAGE User hi\n",
            '(line 2): message role must be one of "system", "user", or "assistant"',
        ),
        ("FROM", "unexpected EOF"),
        ("FROM foo\nPARAMETER param1", "unexpected EOF"),
        ("FROM foo\nPARAMETER param1\n", "unexpected EOF"),
        ("FROM foo\nPARAMETER ", "unexpected EOF"),
        ("FROM foo\nMESSAGE user", "unexpected EOF"),
        ('FROM foo\nSYSTEM "', "unexpected EOF"),
        ('FROM foo\nSYSTEM "open\n\n', "unexpected EOF"),
        ('FROM foo\nSYSTEM """open"', "unexpected EOF"),
        ('FROM foo\nSYSTEM """', "unexpected EOF"),
        ('FROM foo\nSYSTEM """"', "unexpected EOF"),
    ],
)
def test_errors_are_ollamas(text: str, message: str) -> None:
    with pytest.raises(ModelfileError) as caught:
        parse_modelfile(text)

    assert caught.value.message == message


def test_a_large_unterminated_value_is_refused_quickly() -> None:
    """No quadratic scan: a megabyte of quotes is one pass."""
    with pytest.raises(ModelfileError):
        parse_modelfile('FROM a\nSYSTEM """' + '" ' * 500_000)


VALUES = st.text(
    st.characters(
        exclude_categories=("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"),
        include_characters=' \n"\t',
    ),
    max_size=40,
)


def is_sayable(value: str) -> bool:
    """Whether the language has a way to write the value: not when it ends a quote's line inside itself."""
    lines = value.split("\n")
    return not any(line.rstrip(" \t").endswith('"""') for line in lines[:-1])


@given(
    st.lists(
        st.one_of(
            st.builds(
                Command,
                st.sampled_from(["system", "template", "license", "adapter"]),
                VALUES,
                st.just(""),
            ),
            st.builds(
                Command,
                st.just("parameter"),
                VALUES,
                st.from_regex(r"[a-z0-9_]{1,12}", fullmatch=True),
            ),
            st.builds(
                Command,
                st.just("message"),
                VALUES,
                st.sampled_from(["user", "assistant", "system"]),
            ),
        ).filter(lambda c: is_sayable(c.value)),
        max_size=6,
    )
)
def test_formatting_and_parsing_gives_the_same_again(commands: list[Command]) -> None:
    commands = [Command("from", "base"), *commands]

    assert parse_modelfile(format_modelfile(commands)) == commands


@given(st.text(max_size=80))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        commands = parse_modelfile("FROM x\n" + text)
    except ModelfileError:
        return
    assert commands[0].name == "from"


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (Command("from", "/a/b"), "FROM /a/b"),
        (Command("system", "plain"), "SYSTEM plain"),
        (Command("system", "a\nb"), 'SYSTEM "a\nb"'),
        (Command("system", 'a\n"b"'), 'SYSTEM """a\n"b""""'),
        (Command("system", " lead"), 'SYSTEM " lead"'),
        (Command("system", 'say "hi" now'), 'SYSTEM say "hi" now'),
        (Command("parameter", "<|im_end|>", "stop"), "PARAMETER stop <|im_end|>"),
        (Command("message", "hi", "user"), "MESSAGE user hi"),
    ],
)
def test_values_are_quoted_only_where_needed(command: Command, line: str) -> None:
    assert format_command(command) == line


def test_spec_types_parameters_and_accumulates() -> None:
    spec = spec_of(
        parse_modelfile(
            """FROM a
FROM b
ADAPTER x
LICENSE one
LICENSE two
SYSTEM first
SYSTEM second
PARAMETER stop a
PARAMETER stop b
PARAMETER num_ctx 1024
PARAMETER num_ctx 2048
PARAMETER temperature 0.25
PARAMETER use_mmap true
PARAMETER low_vram true
MESSAGE user hi
MESSAGE assistant hello
REQUIRES v0.14.0
"""
        )
    )

    assert spec.sources == ["a", "b"]
    assert spec.licenses == ["one", "two"]
    assert spec.system == "second"
    assert spec.parameters == {
        "stop": ["a", "b"],
        "num_ctx": 2048,
        "temperature": 0.25,
        "use_mmap": True,
    }
    assert spec.messages == [("user", "hi"), ("assistant", "hello")]
    assert spec.requires == "0.14.0"
    assert spec.warnings == ["warning: parameter low_vram is deprecated"]
    assert spec.template is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("PARAMETER nope 1", "unknown parameter 'nope'"),
        ("PARAMETER temperature hot", "invalid float value [hot]"),
        ("PARAMETER temperature 1e999", "invalid float value [1e999]"),
        ("PARAMETER num_ctx 4k", "invalid int value [4k]"),
        ("PARAMETER num_ctx 1_000", "invalid int value [1_000]"),
        ("PARAMETER num_ctx 4096.0", "invalid int value [4096.0]"),
        ("PARAMETER use_mmap yes", "invalid bool value [yes]"),
        ("REQUIRES 1.2", "requires must be a valid semver (e.g. 0.14.0)"),
    ],
)
def test_bad_values_are_refused_in_ollamas_words(line: str, message: str) -> None:
    with pytest.raises(ModelfileError) as caught:
        spec_of(parse_modelfile(f"FROM a\n{line}\n"))

    assert caught.value.message == message
