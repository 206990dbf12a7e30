"""The interactive session on a real terminal, Ctrl-C in the middle of an answer included."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.canned import Canned
from cli.terminal import CTRL_C, CTRL_D, open_terminal

pytestmark = pytest.mark.slow

DONE = {
    "message": {"role": "assistant", "content": ""},
    "done": True,
    "eval_count": 2,
    "eval_duration": 10**9,
}
HINT = "Send a message (/? for help)\n>>> "


def say(*pieces: str) -> list[object]:
    return [
        *({"message": {"role": "assistant", "content": piece}, "done": False} for piece in pieces),
        DONE,
    ]


@pytest.fixture
def chatty(server: Canned) -> Canned:
    server.on("POST", "/api/show", {"capabilities": ["completion"], "system": "Model's own."})
    server.on("POST", "/api/generate", {"done": True, "done_reason": "load"})
    server.on("POST", "/api/chat", say("Hello", " there"))
    return server


def test_a_conversation_loads_asks_and_leaves(
    chatty: Canned, environment: dict[str, str], tmp_path: Path
) -> None:
    with open_terminal(environment, "run", "tiny") as terminal:
        terminal.expect(HINT)
        terminal.line("Hi")
        terminal.expect("Hello there\n\n>>> ")
        terminal.line('"""two')
        terminal.expect("... ")
        terminal.line('lines"""')
        terminal.expect("Hello there\n\n>>> ")
        terminal.line("/bye")

        assert terminal.end() == 0

    assert chatty.bodies("/api/generate") == [{"model": "tiny", "stream": False}]
    assert [m["content"] for m in chatty.bodies("/api/chat")[1]["messages"]] == [
        "Hi",
        "Hello there",
        "two\nlines",
    ]
    assert (tmp_path / "home" / "history").read_text() == 'Hi\n"""two\nlines"""\n/bye\n'


def test_ctrl_c_stops_the_answer_and_not_the_program(
    chatty: Canned, environment: dict[str, str]
) -> None:
    chatty.on("POST", "/api/chat", [*say("Once upon")[:1], None])

    with open_terminal(environment, "run", "tiny") as terminal:
        terminal.expect(HINT)
        terminal.line("Tell me a story")
        terminal.expect("Once upon")
        assert chatty.holding.wait(10)
        terminal.type(CTRL_C)
        terminal.expect("\n\n>>> ")
        assert chatty.gone.wait(10)
        chatty.on("POST", "/api/chat", say("a time"))
        terminal.line("Go on")
        terminal.expect("a time\n\n>>> ")
        terminal.type(CTRL_D)

        assert terminal.end() == 0

    assert [m["content"] for m in chatty.bodies("/api/chat")[1]["messages"]] == [
        "Tell me a story",
        "Once upon",
        "Go on",
    ]


def test_ctrl_c_at_the_prompt_gives_a_hint_and_drops_an_open_block(
    chatty: Canned, environment: dict[str, str]
) -> None:
    with open_terminal(environment, "run", "tiny") as terminal:
        terminal.expect(HINT)
        terminal.line('"""half')
        terminal.expect("... ")
        terminal.interrupt_until("Use Ctrl + d or /bye to exit.\n>>> ")
        terminal.line("whole")
        terminal.expect("Hello there\n\n>>> ")
        terminal.type(CTRL_D)

        assert terminal.end() == 0

    assert chatty.bodies("/api/chat")[0]["messages"] == [{"role": "user", "content": "whole"}]


def test_an_error_is_shown_and_the_conversation_goes_on(
    chatty: Canned, environment: dict[str, str]
) -> None:
    chatty.on("POST", "/api/chat", {"error": "server busy"}, 503)

    with open_terminal(environment, "run", "tiny") as terminal:
        terminal.expect(HINT)
        terminal.line("Hi")
        terminal.expect("Error: server busy\n>>> ")
        chatty.on("POST", "/api/chat", say("now"))
        terminal.line("Hi again")
        terminal.expect("now\n\n>>> ")

    assert chatty.bodies("/api/chat")[1]["messages"] == [{"role": "user", "content": "Hi again"}]


def test_thinking_is_asked_for_and_warned_of(chatty: Canned, environment: dict[str, str]) -> None:
    refusal = '"tiny" does not support thinking'
    warning = 'warning: model "tiny" does not support thinking output\n'

    with open_terminal(environment, "run", "tiny", "--think") as terminal:
        terminal.expect(warning)
        terminal.expect(HINT)
        chatty.on("POST", "/api/chat", {"error": refusal}, 400)
        terminal.line("Hi")
        terminal.expect(f"Error: {refusal}\n>>> ")
        terminal.line("/set think")
        terminal.expect(f"{warning}Set 'think' mode.\n>>> ")
        chatty.on("POST", "/api/show", {"capabilities": ["completion", "thinking"]})
        chatty.on(
            "POST",
            "/api/chat",
            [{"message": {"role": "assistant", "content": "", "thinking": "Hm"}}, *say("Yes")],
        )
        terminal.line("/set think high")
        terminal.expect("/set think high\nSet 'think' mode to 'high'.\n>>> ")
        terminal.line("Hi")
        terminal.expect("Thinking...\nHm\n...done thinking.\n\nYes\n\n>>> ")
        terminal.line("/set think much")
        terminal.expect("Invalid think level. Use one of: high, medium, low, max\n>>> ")
        terminal.line("/set nothink")
        terminal.expect("Set 'nothink' mode.\n>>> ")
        terminal.line("Hi")
        terminal.expect("Yes\n\n>>> ")

    asked = chatty.bodies("/api/chat")
    assert [body["think"] for body in asked] == [True, "high", False]
    assert asked[2]["messages"] == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes", "thinking": "Hm"},
        {"role": "user", "content": "Hi"},
    ]


def test_slash_commands_change_the_session(chatty: Canned, environment: dict[str, str]) -> None:
    chatty.on("POST", "/api/create", {"status": "success"})
    chatty.on(
        "GET", "/api/tags", {"models": [{"name": "tiny:latest", "digest": "c" * 64, "size": 1}]}
    )
    steps = [
        ("/set parameter seed 7", "Set parameter 'seed' to '7'"),
        ("/set parameter seed x", 'Couldn\'t set parameter: "invalid int value [x]"'),
        ("/set system Be kind.", "Set system message."),
        ('/set system """Be', "... "),
        ('brief."""', "Set system message."),
        ("/set format json", "Set format to 'json' mode."),
        ("/set noformat", "Disabled format."),
        ("/set format json", "Set format to 'json' mode."),
        ("/set nothink", "Set 'nothink' mode."),
        ("/set verbose", "Set 'verbose' mode."),
        ("/show system", "Be\nbrief."),
        ("/show parameters", "seed                           7"),
        ("/show license", "No license was specified for this model."),
        ("/list", "tiny:latest    cccccccccccc"),
        ("/save mine", "Created new model 'mine'"),
        ("/whatever", "Unknown command '/whatever'. Type /? for help"),
        ("/?", "Available Commands:"),
        ("Hi", "eval rate:            2.00 tokens/s"),
        ("/clear", "Cleared session context"),
    ]

    with open_terminal(environment, "run", "tiny") as terminal:
        terminal.expect(HINT)
        for typed, shown in steps:
            terminal.line(typed)
            terminal.expect(shown)

    assert chatty.bodies("/api/chat") == [
        {
            "model": "tiny",
            "format": "json",
            "think": False,
            "messages": [
                {"role": "system", "content": "Be\nbrief."},
                {"role": "user", "content": "Hi"},
            ],
            "options": {"seed": 7},
        }
    ]
    assert chatty.bodies("/api/create") == [
        {
            "model": "mine",
            "from": "tiny",
            "system": "Be\nbrief.",
            "parameters": {"seed": 7},
            "stream": False,
        }
    ]


def test_load_switches_the_model_or_says_that_it_is_not_there(
    chatty: Canned, environment: dict[str, str]
) -> None:
    with open_terminal(environment, "run", "tiny") as terminal:
        terminal.expect(HINT)
        terminal.line("/load other")
        terminal.expect("Loading model 'other'\n>>> ")
        chatty.on("POST", "/api/show", {"error": "model 'nope' not found"}, 404)
        terminal.line("/load nope")
        terminal.expect("Couldn't find model 'nope'\n>>> ")
        terminal.line("Hi")
        terminal.expect("Hello there")

    assert chatty.bodies("/api/chat")[0]["model"] == "other"


def test_the_models_own_messages_are_shown_first(
    chatty: Canned, environment: dict[str, str]
) -> None:
    opening = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]
    chatty.on("POST", "/api/show", {"capabilities": ["completion"], "messages": opening})

    with open_terminal(environment, "run", "tiny") as terminal:
        terminal.expect(">>> Who?\nMe.\n\nSend a message")


def test_answers_wrap_at_words_unless_told_not_to(
    chatty: Canned, environment: dict[str, str]
) -> None:
    chatty.on("POST", "/api/chat", say("one two three four five six seven"))

    with open_terminal(environment, "run", "tiny", columns=30) as terminal:
        terminal.expect(HINT)
        terminal.line("Hi")
        terminal.expect("six seven\n\n>>> ")
        assert "\nsix seven" in terminal.shown()
        terminal.line("/set nowordwrap")
        terminal.expect("Set 'nowordwrap' mode.")
        terminal.line("Hi")
        terminal.expect("one two three four five six seven")


def test_a_pasted_text_of_several_lines_is_one_message(
    chatty: Canned, environment: dict[str, str]
) -> None:
    with open_terminal(environment, "run", "tiny") as terminal:
        terminal.expect(HINT)
        assert "\x1b[?2004h" in terminal.raw, "the terminal is asked to mark pasted text"
        terminal.type("\x1b[200~/first\nsecond\x1b[201~")
        terminal.line("")
        terminal.expect("Hello there")

    assert chatty.bodies("/api/chat")[0]["messages"] == [
        {"role": "user", "content": "/first\nsecond"}
    ]


def test_no_history_when_told_so(
    chatty: Canned, environment: dict[str, str], tmp_path: Path
) -> None:
    with open_terminal({**environment, "OLM_NOHISTORY": "1"}, "run", "tiny") as terminal:
        terminal.expect(HINT)
        terminal.line("secret")
        terminal.expect("Hello there\n\n>>> ")

    assert not (tmp_path / "home").exists()


def test_ctrl_c_in_a_one_shot_answer_stops_it_and_ends_with_130(
    chatty: Canned, environment: dict[str, str]
) -> None:
    chatty.on("POST", "/api/generate", [{"response": "Once upon", "done": False}, None])

    with open_terminal(environment, "run", "tiny", "Tell me") as terminal:
        terminal.expect("Once upon")
        assert chatty.holding.wait(10)
        terminal.type(CTRL_C)

        assert terminal.end() == 130

    assert chatty.gone.wait(10)
    assert "Traceback" not in terminal.shown()


def test_on_a_terminal_statuses_turn_and_stay(
    server: Canned, environment: dict[str, str], tmp_path: Path
) -> None:
    server.on("POST", "/api/pull", [{"status": "pulling manifest"}, {"status": "success"}])

    with open_terminal(environment, "pull", "tiny") as terminal:
        assert terminal.end() == 0

    assert "pulling manifest" in terminal.shown()
    assert terminal.shown().endswith("success\n")
