"""The whole way: the commands against a real daemon on a unix socket, with the built-in model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from cli.canned import Run
from cli.terminal import CTRL_D, open_terminal
from olm.cli.client import Client, Endpoint
from olm.errors import OlmError

pytestmark = [pytest.mark.slow, pytest.mark.native, pytest.mark.daemon]

START_WITHIN_S = 30.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a running daemon; its socket is `s` in it."""
    path = tmp_path_factory.mktemp("olm")
    env = {**clean(), "OLM_HOME": str(path), "OLM_HOST": f"unix:{path}/s"}
    with (
        (path / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "olm", "serve"], env=env, stdout=log, stderr=log
        ) as daemon,
    ):
        try:
            wait_until_up(daemon, Client(Endpoint(unix_path=f"{path}/s")), path / "log")
            yield path
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(timeout=30)


def clean() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("OLM_", "OLLAMA_"))}


def wait_until_up(daemon: subprocess.Popen[bytes], client: Client, log: Path) -> None:
    deadline = time.monotonic() + START_WITHIN_S
    while True:
        try:
            client.call("GET", "/api/version")
        except OlmError:
            assert daemon.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    """The environment of commands that talk to the daemon."""
    return {
        **clean(),
        "OLM_HOST": f"unix:{home}/s",
        "OLM_HOME": str(home),
        "TERM": "xterm-256color",
    }


def test_a_model_lives_from_create_to_rm(olm: Run, tmp_path: Path) -> None:
    weights = next(
        entry for entry in files("olm.data.tiny").iterdir() if entry.name.endswith(".gguf")
    )
    (tmp_path / "Modelfile").write_text(
        f'FROM {weights}\nSYSTEM Be brief.\nPARAMETER stop "<|im_end|>"\n'
    )

    created = olm("create", "mine")
    assert created.stderr.splitlines()[0] == "gathering model components"
    assert created.stderr.splitlines()[-1] == "success"
    assert olm("show", "mine", "--system").stdout == "Be brief."
    assert olm("cp", "mine", "other").stdout == "copied 'mine' to 'other'\n"
    assert {line.split()[0] for line in olm("list").stdout.splitlines()} >= {
        "NAME",
        "mine:latest",
        "other:latest",
    }
    assert olm("rm", "mine", "other").stdout == "deleted 'mine'\ndeleted 'other'\n"
    assert "mine" not in olm("list").stdout


def test_an_answer_loads_the_model_and_stop_unloads_it(olm: Run) -> None:
    done = olm("run", "tiny", "Why is the sky blue?", "--verbose")

    assert done.returncode == 0
    assert "blue" in done.stdout
    assert "eval rate:" in done.stderr
    assert olm("ps").stdout.splitlines()[1].startswith("tiny:latest")
    assert olm("stop", "tiny").returncode == 0
    assert len(olm("ps").stdout.splitlines()) == 1


def test_thinking_and_forms_of_an_answer(olm: Run, tmp_path: Path) -> None:
    schema = '{"type":"object","properties":{"a":{"enum":[1]}},"required":["a"],"additionalProperties":false}'
    (tmp_path / "Modelfile").write_text("FROM tiny\nPARAMETER temperature 0\n")
    olm("create", "calm")

    shown = olm("show", "calm").stdout
    thought = olm("run", "calm", "--think", "Who are you?").stdout
    hidden = olm("run", "calm", "--think", "--hidethinking", "Who are you?").stdout
    formed = olm("run", "calm", "--think=false", "--format", schema, "Count.").stdout
    refused = olm("run", "calm", "--format", '{"type":"nonsense"}', "Count.")

    assert "thinking" in shown.split()
    assert re.fullmatch(r"Thinking\.\.\.\n.+\n\.\.\.done thinking\.\n\n.+\n\n", thought, re.DOTALL)
    assert "hinking" not in hidden
    assert hidden.strip()
    assert json.loads(formed) == {"a": 1}
    assert refused.stderr.startswith("Error: ")
    assert len(refused.stderr.splitlines()) == 1


def test_a_conversation_remembers_and_saves(environment: dict[str, str], olm: Run) -> None:
    with open_terminal(environment, "run", "tiny") as terminal:
        terminal.expect("Send a message (/? for help)\n>>> ")
        terminal.line("/set parameter temperature 0")
        terminal.expect("Set parameter 'temperature' to '0'\n>>> ")
        terminal.line("Hello!")
        answer = terminal.expect("\n\n>>> ")
        terminal.line("/save spoken")
        terminal.expect("Created new model 'spoken'\n>>> ")
        terminal.type(CTRL_D)

        assert terminal.end() == 0

    assert answer.removeprefix("Hello!\n").strip(" \n>")
    assert "MESSAGE user Hello!" in olm("show", "spoken", "--modelfile").stdout


def test_what_the_daemon_cannot_do_is_said_in_one_line(olm: Run) -> None:
    for args in (
        ["push", "http://127.0.0.1:1/library/x"],
        ["run", "http://127.0.0.1:1/library/nope", "hi"],
        ["stop", "nope"],
        ["show", "nope"],
        ["rm", "nope"],
    ):
        done = olm(*args)

        assert done.returncode == 1, args
        assert done.stderr.startswith("Error: "), args
        assert len(done.stderr.splitlines()) == 1, args


def test_a_second_daemon_on_the_same_store_says_so_and_ends(home: Path, olm: Run) -> None:
    done = olm("serve", OLM_HOST="127.0.0.1:0", OLM_HOME=str(home))

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "another olm daemon" in done.stderr


def test_a_setting_that_cannot_be_read_is_named(olm: Run) -> None:
    done = olm("serve", OLM_KEEP_ALIVE="soon")

    assert done.returncode == 1
    assert done.stderr.startswith("Error: environment variable OLM_KEEP_ALIVE: cannot read 'soon'")
