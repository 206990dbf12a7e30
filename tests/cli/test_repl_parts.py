'''The session without a terminal: commands, `"""` blocks, history, and the requests a conversation leads to.'''

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olm.cli.answer import Answer, AnswerView, Look
from olm.cli.repl import commands as c
from olm.cli.repl.compose import Composed, Composer, Purpose
from olm.cli.repl.help import HELP
from olm.cli.repl.history import MAX_LINES, HistoryFile, remember
from olm.cli.repl.session import Session, parse_parameter
from olm.cli.run import Request, join_prompt, parse_format
from olm.errors import InvalidRequest, ModelfileError


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("hello /bye", None),
        ("/bye", c.Bye()),
        ("/exit now", c.Bye()),
        ("/clear", c.Clear()),
        ("/?", c.Help()),
        ("/help set", c.Help("set")),
        ("/? /show", c.Help("show")),
        ("/? shortcuts", c.Help("shortcuts")),
        ("/list", c.ListModels()),
        ("/list ti", c.ListModels("ti")),
        ("/load tiny", c.Load("tiny")),
        ("/load", c.Usage("Usage:\n  /load <modelname>")),
        ("/save a b", c.Usage("Usage:\n  /save <modelname>")),
        ("/save mine", c.Save("mine")),
        ("/set", c.Help("set")),
        ("/set verbose", c.SetMode("verbose")),
        ("/set nohistory", c.SetMode("nohistory")),
        ("/set format json", c.SetFormat("json")),
        ("/set noformat", c.SetFormat(None)),
        ("/set think", c.SetThink(think=True)),
        ("/set think low", c.SetThink("low")),
        ("/set nothink", c.SetThink(think=False)),
        ("/set parameter", c.Help("parameters")),
        ("/set parameter seed", c.Help("parameters")),
        ("/set parameter stop a b", c.SetParameter("stop", ("a", "b"))),
        ("/set system", c.Help("set")),
        ("/set system  You  are  kind", c.SetSystem("You  are  kind")),
        ('/set system """', c.SetSystem('"""')),
        ("/set colour", c.Unknown("/set colour")),
        ("/show", c.Help("show")),
        ("/show modelfile", c.Show("modelfile")),
        ("/show nothing", c.Unknown("/show nothing")),
        ("/shows", c.Unknown("/shows")),
        ("/tmp/x.png what is it", c.Unknown("/tmp/x.png")),
        ("/", c.Unknown("/")),
    ],
)
def test_commands(line: str, command: c.Command | None) -> None:
    assert c.parse_command(line) == command


@pytest.mark.parametrize("line", ["/set format", "/set format xml", "/set think hard"])
def test_commands_used_wrongly_say_how_to_use_them(line: str) -> None:
    assert isinstance(c.parse_command(line), c.Usage)


def test_every_topic_has_help() -> None:
    for topic in ("/?", "/set", "/show", "/? shortcuts", "/set parameter"):
        command = c.parse_command(topic)
        assert isinstance(command, c.Help)
        assert HELP[command.topic].startswith("Available")


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["hello"], "hello"),
        (['"""hello"""'], "hello"),
        (['"""', "a", "b", '"""'], "\na\nb\n"),
        (['"""a', 'b"""'], "a\nb"),
        (['"""a', "", '  b """'], "a\n\n  b "),
        (['say """x"""'], 'say """x"""'),
        (["pasted\ntext"], "pasted\ntext"),
    ],
)
def test_blocks_end_where_they_are_closed(lines: list[str], text: str) -> None:
    composer = Composer()

    results = [composer.feed(line) for line in lines]

    assert results == [None] * (len(lines) - 1) + [Composed(text, Purpose.MESSAGE)]
    assert not composer.is_open


def test_a_block_keeps_its_purpose_and_can_be_thrown_away() -> None:
    composer = Composer()

    assert composer.feed('"""be', Purpose.SYSTEM) is None
    assert composer.is_open
    assert composer.feed('kind"""') == Composed("be\nkind", Purpose.SYSTEM)
    composer.feed('"""lost')
    composer.reset()
    assert composer.feed("new") == Composed("new", Purpose.MESSAGE)


def test_history_keeps_the_last_hundred_lines_without_repetitions() -> None:
    lines: tuple[str, ...] = ()
    for line in ["a", "a", "  ", "b\nc", *map(str, range(200))]:
        lines = remember(lines, line)

    assert remember(remember((), "a"), "a") == ("a",)
    assert remember((), "b\nc") == ("b c",)
    assert lines == tuple(map(str, range(200 - MAX_LINES, 200)))


def test_history_survives_on_disk_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "home" / "history"

    assert HistoryFile(path, enabled=True).add("grüße")

    assert HistoryFile(path, enabled=True).lines == ("grüße",)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["history"]


def test_history_that_is_off_reads_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text("old\n")
    history = HistoryFile(path, enabled=False)

    assert not history.add("secret")
    assert history.lines == ()
    assert path.read_text() == "old\n"


def test_history_that_cannot_be_written_stays_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    history = HistoryFile(tmp_path / "file" / "history", enabled=True)

    assert history.add("line")
    assert history.lines == ("line",)


@pytest.mark.parametrize(
    ("name", "values", "value"),
    [
        ("seed", ["5"], 5),
        ("top_p", ["0.5"], 0.5),
        ("stop", ["a", "b"], ["a", "b"]),
        ("use_mmap", ["false"], False),
    ],
)
def test_parameters_take_the_type_of_their_option(
    name: str, values: list[str], value: object
) -> None:
    assert parse_parameter(name, values) == value


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("seed", "x", "invalid int value [x]"),
        ("top_p", "x", "invalid float value [x]"),
        ("nope", "1", "unknown parameter 'nope'"),
    ],
)
def test_bad_parameters_are_refused_in_ollamas_words(name: str, value: str, words: str) -> None:
    with pytest.raises(ModelfileError) as caught:
        parse_parameter(name, [value])

    assert str(caught.value) == words


def new_session() -> Session:
    return Session(Request("tiny"), Look(), opening=({"role": "user", "content": "first"},))


def test_a_conversation_is_sent_whole_each_time() -> None:
    session = new_session().with_system("Be kind.").with_option("seed", 1).asked("Hi")
    session = session.answered(Answer("Hello", "hm", {})).asked("And?")

    assert session.chat_body() == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello", "thinking": "hm"},
            {"role": "user", "content": "And?"},
        ],
        "options": {"seed": 1},
    }
    assert new_session().asked("x").chat_body() == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "x"}],
    }


def test_an_answer_cut_short_stays_and_one_never_begun_takes_its_question_back() -> None:
    asked = new_session().asked("Hi")

    assert asked.answered(Answer("Hel", "", {}, interrupted=True)).messages[-1]["content"] == "Hel"
    assert asked.answered(Answer("", "", {}, interrupted=True)).messages == ()


def test_a_system_message_nobody_answered_is_replaced() -> None:
    twice = new_session().with_system("a").with_system("b")

    assert [message["content"] for message in twice.messages] == ["b"]
    later = twice.asked("x").answered(Answer("y", "", {})).with_system("c")
    assert [message["content"] for message in later.messages] == ["b", "x", "y", "c"]


def test_clear_and_load_keep_the_system_message_and_the_options() -> None:
    session = new_session().with_system("Be kind.").with_option("seed", 1).asked("Hi")

    for fresh in (session.cleared(), session.with_model("other", [])):
        assert fresh.messages == ({"role": "system", "content": "Be kind."},)
        assert fresh.options == {"seed": 1}
    assert session.with_model("other", []).request == attrs.evolve(session.request, model="other")
    assert new_session().asked("x").cleared().messages == ()


def test_save_asks_for_a_model_with_the_session_in_it() -> None:
    session = new_session().with_system("Be kind.").with_option("stop", ["x"]).asked("Hi")
    session = session.answered(Answer("Hello", "thought", {}))

    assert session.save_body("mine") == {
        "model": "mine",
        "from": "tiny",
        "system": "Be kind.",
        "parameters": {"stop": ["x"]},
        "messages": [
            {"role": "user", "content": "first"},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
        ],
    }
    assert session.show_body() == {
        "model": "tiny",
        "system": "Be kind.",
        "options": {"stop": ["x"]},
    }


def view_of(pieces: list[tuple[str, str]], *, terminal: bool, hide: bool = False) -> str:
    view = AnswerView(terminal=terminal, hide_thinking=hide)
    return "".join(view.feed(*piece) for piece in pieces) + view.finish()


def test_thinking_stands_between_its_marks() -> None:
    pieces = [("We", ""), ("ll\n", ""), ("", "Yes")]

    assert view_of(pieces, terminal=False) == "Thinking...\nWell\n...done thinking.\n\nYes"
    assert view_of(pieces, terminal=False, hide=True) == "Yes"
    assert view_of(pieces[:1], terminal=False) == "Thinking...\nWe\n...done thinking.\n\n"
    assert view_of(pieces[:1], terminal=True).endswith("\x1b[0m\n\n")


def test_tool_calls_stand_on_lines_of_their_own() -> None:
    call = {"id": "x", "function": {"name": "f", "arguments": {"b": "ä", "a": 1}}}
    view = AnswerView(terminal=False)

    shown = (
        view.feed("Hm", "") + view.calls([call, {}]) + view.feed("", "Text") + view.calls([call])
    )

    assert shown + view.end() == (
        'Thinking...\nHm\n...done thinking.\n\nTool call: f {"b": "ä", "a": 1}\nTool call:  {}\n'
        'Text\nTool call: f {"b": "ä", "a": 1}\n\n'
    )
    assert view.calls([]) == ""


def test_a_tool_call_cannot_steer_the_terminal() -> None:
    call = {"function": {"name": "\x1b[2J", "arguments": {"a": "\x9b1m"}}}

    shown = AnswerView(terminal=True).calls([call])

    assert shown == '\x1b[38;5;245mTool call: [2J {"a": "1m"}\x1b[0m\n'


def test_thinking_after_text_begins_on_a_line_of_its_own() -> None:
    pieces = [("", "Yes"), ("Or", ""), ("", "No")]

    assert view_of(pieces, terminal=False) == "Yes\nThinking...\nOr\n...done thinking.\n\nNo"


@given(st.text())
def test_a_model_cannot_steer_the_terminal(text: str) -> None:
    shown = view_of([("", text)], terminal=True)

    assert not any(ch < " " or "\x7f" <= ch <= "\x9f" for ch in shown if ch not in "\n\t")
    assert view_of([("", text)], terminal=False) == text


def test_prompts_and_formats() -> None:
    assert join_prompt("piped\n", ("a", "b")) == "piped\n a b"
    assert join_prompt("", ("a",)) == "a"
    assert parse_format("") is None
    assert parse_format("json") == "json"
    assert parse_format('{"type": "object"}') == {"type": "object"}
    assert parse_format("[1]") == "[1]"


def test_a_format_may_be_in_a_file(tmp_path: Path) -> None:
    schema, other = tmp_path / "schema.json", tmp_path / "other.json"
    schema.write_text('{"type": "object"}')
    other.write_bytes(b"\xff")

    assert parse_format(str(schema)) == {"type": "object"}
    assert parse_format(str(tmp_path / "missing.json")) == str(tmp_path / "missing.json")
    assert parse_format("x" * 5000) == "x" * 5000
    with pytest.raises(InvalidRequest, match="holds no JSON schema"):
        parse_format(str(other))
