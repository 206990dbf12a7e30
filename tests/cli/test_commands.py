"""The commands as processes against a canned server: what they send, print and return."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.canned import Canned, Run
from cli.terminal import open_terminal
from olm import __version__

pytestmark = pytest.mark.slow

TAGS = {
    "models": [
        {
            "name": "tiny:latest",
            "digest": "c" * 64,
            "size": 2_600_000,
            "modified_at": "0001-01-01T00:00:00Z",
        }
    ]
}
DONE = {
    "model": "tiny",
    "response": "",
    "done": True,
    "done_reason": "stop",
    "eval_count": 3,
    "eval_duration": 1_000_000_000,
}
CHATTY = {"capabilities": ["completion"], "details": {}}


def test_version_of_a_server_of_the_same_version(server: Canned, olm: Run) -> None:
    server.on("GET", "/api/version", {"version": __version__})

    done = olm("--version")

    assert (done.stdout, done.returncode) == (f"olm version is {__version__}\n", 0)


def test_version_of_an_olm_server_is_olms_and_not_the_ollama_it_behaves_like(
    server: Canned, olm: Run
) -> None:
    server.on("GET", "/api/version", {"version": "0.33.0"})
    server.product = f"olm/{__version__}"

    assert olm("--version").stdout == f"olm version is {__version__}\n"


def test_version_warns_of_another_server_version(server: Canned, olm: Run) -> None:
    server.on("GET", "/api/version", {"version": "9.9.9"})

    assert olm("-v").stdout == f"olm version is 9.9.9\nWarning: client version is {__version__}\n"


def test_version_without_a_server_warns_and_succeeds(olm: Run) -> None:
    done = olm("--version", OLM_HOST="127.0.0.1:1")

    assert done.stdout == (
        "Warning: could not connect to a running olm instance\n"
        f"Warning: client version is {__version__}\n"
    )
    assert done.returncode == 0


def test_without_a_server_a_command_says_how_to_start_one(olm: Run) -> None:
    done = olm("list", OLM_HOST="127.0.0.1:1")

    assert done.stderr == "Error: could not connect to an olm server, run 'olm serve' to start it\n"
    assert done.returncode == 1


@pytest.mark.parametrize("name", ["list", "ls"])
def test_list_prints_the_table(server: Canned, olm: Run, name: str) -> None:
    server.on("GET", "/api/tags", TAGS)

    assert olm(name).stdout.splitlines()[1].split() == [
        "tiny:latest",
        "c" * 12,
        "2.6",
        "MB",
        "Never",
    ]
    assert len(olm(name, "other").stdout.splitlines()) == 1


def test_output_nobody_reads_is_no_traceback(server: Canned, environment: dict[str, str]) -> None:
    server.on("GET", "/api/version", {"version": __version__})
    ours, theirs = os.pipe()
    os.close(ours)
    buffered = {k: v for k, v in environment.items() if k != "PYTHONUNBUFFERED"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "olm", "--version"],
            env=buffered, stdout=theirs, stderr=subprocess.PIPE, check=False, timeout=30,
        )  # fmt: skip
    finally:
        os.close(theirs)

    assert (done.stderr, done.returncode) == (b"", 1)


def test_bad_usage_is_one_line_and_status_one(olm: Run) -> None:
    for args in (["cp", "a"], ["nonsense"], ["list", "--nope"], ["rm"]):
        done = olm(*args)

        assert done.stderr.startswith("Error: "), args
        assert len(done.stderr.splitlines()) == 1
        assert done.returncode == 1


def test_bare_olm_and_help_print_the_commands(olm: Run) -> None:
    assert "Commands:\n  serve" in olm().stdout
    assert olm().stdout == olm("--help").stdout == olm("help").stdout
    assert olm("help", "cp").stdout == olm("cp", "--help").stdout


def test_serve_help_lists_the_environment(olm: Run) -> None:
    done = olm("serve", "--help")

    assert "OLM_KEEP_ALIVE" in done.stdout
    assert olm("start", "--help").returncode == 0


def test_cp_and_rm_say_what_they_did(server: Canned, olm: Run) -> None:
    server.on("POST", "/api/copy", None)
    server.on("POST", "/api/generate", {"error": "no"}, 500)
    server.on("DELETE", "/api/delete", None)

    assert olm("cp", "a", "b").stdout == "copied 'a' to 'b'\n"
    assert olm("rm", "a", "b").stdout == "deleted 'a'\ndeleted 'b'\n"
    assert server.bodies("/api/copy") == [{"source": "a", "destination": "b"}]
    assert server.bodies("/api/delete") == [{"model": "a"}, {"model": "b"}]


def test_rm_of_a_missing_model_ends_with_the_servers_error(server: Canned, olm: Run) -> None:
    server.on("DELETE", "/api/delete", {"error": "model 'a' not found"}, 404)

    done = olm("rm", "a", "b")

    assert (done.stdout, done.stderr, done.returncode) == ("", "Error: model 'a' not found\n", 1)


def test_stop_unloads(server: Canned, olm: Run) -> None:
    server.on("POST", "/api/generate", DONE)

    assert olm("stop", "tiny").returncode == 0
    assert server.bodies("/api/generate") == [{"model": "tiny", "keep_alive": 0, "stream": False}]


def test_stop_of_a_missing_model(server: Canned, olm: Run) -> None:
    server.on("POST", "/api/generate", {"error": "model 'x' not found"}, 404)

    assert olm("stop", "x").stderr == 'Error: couldn\'t find model "x" to stop\n'


def test_show_selects_one_part(server: Canned, olm: Run) -> None:
    server.on(
        "POST",
        "/api/show",
        {**CHATTY, "system": "Be kind.", "license": "MIT", "template": "{{ .Prompt }}"},
    )

    assert olm("show", "tiny", "--license").stdout == "MIT\n"
    assert olm("show", "--system", "tiny").stdout == "Be kind."
    assert olm("show", "tiny", "--template").stdout == "{{ .Prompt }}"
    assert "  Capabilities\n    completion    \n" in olm("show", "tiny").stdout
    assert olm("show", "-v", "tiny").returncode == 0
    assert [body.get("verbose") for body in server.bodies("/api/show")] == [None] * 4 + [True]


def test_show_of_two_parts_is_refused(olm: Run) -> None:
    done = olm("show", "tiny", "--license", "--system")

    assert done.stderr == (
        "Error: only one of '--license', '--modelfile', '--parameters', '--system', or '--template' can be specified\n"
    )


def test_pull_shows_statuses_and_the_error_of_the_stream(server: Canned, olm: Run) -> None:
    server.on(
        "POST",
        "/api/pull",
        [{"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"}],
    )

    done = olm("pull", "nope")

    assert done.stderr == "pulling manifest\nError: pull model manifest: file does not exist\n"
    assert (done.returncode, done.stdout) == (1, "")


def test_push_shows_statuses(server: Canned, olm: Run) -> None:
    server.on("POST", "/api/push", [{"status": "retrieving manifest"}, {"status": "success"}])

    done = olm("push", "mine", "--insecure")

    assert done.stderr == "retrieving manifest\nsuccess\n"
    assert server.bodies("/api/push")[-1] == {"model": "mine", "insecure": True}


@pytest.mark.parametrize(
    ("model", "place"),
    [
        ("me/mine", "https://ollama.com/me/mine"),
        ("me/mine:v2", "https://ollama.com/me/mine:v2"),
        ("http://reg.example:5000/me/mine", "reg.example:5000/me/mine:latest"),
    ],
)
def test_push_says_where_the_model_is(server: Canned, olm: Run, model: str, place: str) -> None:
    server.on("POST", "/api/push", [{"status": "success"}])
    assert olm("push", model).stdout == f"\nYou can find your model at:\n\n\t{place}\n"

    server.on("POST", "/api/push", [{"error": "file does not exist"}])
    assert olm("push", model).stdout == ""


def test_an_archive_needs_a_path(olm: Run) -> None:
    assert olm("export", "mine", "").stderr.startswith("Error: the archive needs a path")
    assert olm("import", "").stderr.startswith("Error: the archive needs a path")


def test_an_archive_is_not_read_from_a_terminal(environment: dict[str, str]) -> None:
    with open_terminal(environment, "import", "-") as terminal:
        terminal.expect("Error: nobody types an archive: pipe it in, or name a file")

        assert terminal.end() == 1


def test_a_limit_is_sent_in_bytes(server: Canned, olm: Run) -> None:
    for command in ("pull", "push"):
        server.on("POST", f"/api/{command}", [{"status": "success"}])

        olm(command, "mine", "--limit-rate", "1.5MB")

        assert server.bodies(f"/api/{command}")[-1]["limit_rate"] == 1_500_000
    assert "invalid size 'fast'" in olm("push", "mine", "--limit-rate", "fast").stderr


def answering(server: Canned, *pieces: str) -> None:
    server.on("POST", "/api/show", CHATTY)
    server.on(
        "POST", "/api/generate", [*({"response": piece, "done": False} for piece in pieces), DONE]
    )


def test_run_answers_a_prompt_and_joins_its_words(server: Canned, olm: Run) -> None:
    answering(server, "Hel", "lo", "\n\x1b[31mred")

    done = olm("run", "tiny", "Why", "is it?")

    assert done.stdout == "Hello\n\x1b[31mred\n\n"
    assert (done.stderr, done.returncode) == ("", 0)
    assert server.bodies("/api/generate") == [{"model": "tiny", "prompt": "Why is it?"}]


def test_run_puts_what_is_piped_before_the_prompt(server: Canned, olm: Run) -> None:
    answering(server, "ok")

    olm("run", "tiny", "sum it up", input="some text")

    assert server.bodies("/api/generate")[0]["prompt"] == "some text sum it up"


def test_run_passes_its_flags_on(server: Canned, olm: Run) -> None:
    answering(server, "{}")

    olm("run", "--think", "tiny", "x", "--format", "json", "--keepalive", "1h30m")
    olm("run", "tiny", "x", "--think=high", "--format", '{"type":"object"}')

    assert server.bodies("/api/generate") == [
        {"model": "tiny", "prompt": "x", "format": "json", "keep_alive": "1h30m", "think": True},
        {"model": "tiny", "prompt": "x", "format": {"type": "object"}, "think": "high"},
    ]


def test_run_refuses_bad_flags_before_it_asks_the_server(server: Canned, olm: Run) -> None:
    assert (
        olm("run", "tiny", "x", "--keepalive", "5").stderr
        == 'Error: time: missing unit in duration "5"\n'
    )
    assert olm("run", "tiny", "x", "--think=maybe").stderr == (
        'Error: invalid value for --think: "maybe" (must be true, false, high, medium, low, or max)\n'
    )
    assert server.seen == []


def test_run_verbose_prints_statistics_to_stderr(server: Canned, olm: Run) -> None:
    answering(server, "ok")

    done = olm("run", "tiny", "x", "--verbose")

    assert done.stderr == (
        "eval count:           3 token(s)\neval duration:        1s\neval rate:            3.00 tokens/s\n"
    )


def test_run_shows_thinking_unless_hidden(server: Canned, olm: Run) -> None:
    server.on("POST", "/api/show", CHATTY)
    server.on(
        "POST",
        "/api/generate",
        [
            {"response": "", "thinking": "Well", "done": False},
            {"response": "Yes", "done": False},
            DONE,
        ],
    )

    assert olm("run", "tiny", "x").stdout == "Thinking...\nWell\n...done thinking.\n\nYes\n\n"
    assert olm("run", "tiny", "x", "--hidethinking").stdout == "Yes\n\n"


@pytest.mark.parametrize(
    ("flags", "think"),
    [
        (["--think"], True),
        (["--think=true"], True),
        (["--think=false"], False),
        (["--think=high"], "high"),
        ([], None),
    ],
)
def test_run_asks_for_thinking(server: Canned, olm: Run, flags: list[str], think: object) -> None:
    server.on("POST", "/api/show", CHATTY)
    server.on("POST", "/api/generate", [DONE])

    olm("run", *flags, "tiny", "x")

    assert server.bodies("/api/generate")[0].get("think") == think


def test_run_tells_the_servers_refusal_to_think(server: Canned, olm: Run) -> None:
    server.on("POST", "/api/show", CHATTY)
    server.on("POST", "/api/generate", {"error": '"tiny" does not support thinking'}, 400)

    done = olm("run", "--think", "tiny", "x")

    assert (done.stdout, done.stderr, done.returncode) == (
        "",
        'Error: "tiny" does not support thinking\n',
        1,
    )


def test_run_sends_a_schema_from_a_file(server: Canned, olm: Run, tmp_path: Path) -> None:
    server.on("POST", "/api/show", CHATTY)
    server.on("POST", "/api/generate", [DONE])
    (tmp_path / "schema.json").write_text('{"type": "object"}')

    olm("run", "tiny", "x", "--format", "schema.json")

    assert server.bodies("/api/generate")[0]["format"] == {"type": "object"}


def test_run_shows_tool_calls(server: Canned, olm: Run) -> None:
    call = {"id": "i", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}}
    server.on("POST", "/api/show", CHATTY)
    server.on(
        "POST",
        "/api/generate",
        [{"response": "See:", "done": False}, {**DONE, "tool_calls": [call]}],
    )

    assert olm("run", "tiny", "x").stdout == 'See:\nTool call: f {"a": 1}\n\n'


def test_run_closes_the_thinking_before_an_error(server: Canned, olm: Run) -> None:
    server.on("POST", "/api/show", CHATTY)
    server.on("POST", "/api/generate", [{"response": "", "thinking": "Well"}, {"error": "gone"}])

    done = olm("run", "tiny", "x")

    assert done.stdout == "Thinking...\nWell\n...done thinking.\n\n"
    assert done.stderr == "Error: gone\n"


def test_run_ends_with_the_error_of_a_broken_stream(server: Canned, olm: Run) -> None:
    server.on("POST", "/api/show", CHATTY)
    server.on(
        "POST",
        "/api/generate",
        [{"response": "Half", "done": False}, {"error": "the model runner stopped"}],
    )

    done = olm("run", "tiny", "x")

    assert (done.stdout, done.stderr, done.returncode) == (
        "Half\n\n",
        "Error: the model runner stopped\n",
        1,
    )


def test_run_of_an_embedding_model_prints_the_vector(server: Canned, olm: Run) -> None:
    server.on("POST", "/api/show", {"capabilities": ["embedding"]})
    server.on("POST", "/api/embed", {"embeddings": [[0.5, -0.25]]})

    assert olm("run", "minilm", "hello", "--dimensions", "2").stdout == "[0.5, -0.25]\n"
    assert server.bodies("/api/embed") == [{"model": "minilm", "input": "hello", "dimensions": 2}]
    assert olm("run", "minilm").stderr == (
        'Error: embedding models require input text. Usage: olm run minilm "your text here"\n'
    )


def test_run_pulls_a_missing_model(server: Canned, olm: Run) -> None:
    server.on("POST", "/api/show", {"error": "model 'new' not found"}, 404)
    server.on("POST", "/api/pull", {"error": "pulling models is not supported yet"}, 501)

    assert olm("run", "new", "x").stderr == (
        "Error: model 'new' not found (pulling models is not supported yet)\n"
    )


def test_a_reader_that_goes_early_is_no_traceback(
    server: Canned, olm: Run, environment: dict[str, str]
) -> None:
    answering(server, *["word "] * 50_000)
    command = [sys.executable, "-m", "olm", "run", "tiny", "x"]

    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(5)
        process.stdout.close()
        stderr = process.stderr.read()
        process.wait(timeout=20)

    assert stderr == b""
    assert process.returncode == 1


@pytest.mark.parametrize(
    "args",
    [["--version"], ["list"], ["ps"], ["show", "tiny"], ["run", "tiny", "x"], ["cp", "a", "b"]],
)
def test_client_commands_import_no_server(
    server: Canned, environment: dict[str, str], args: list[str]
) -> None:
    """What `olm list` loads decides how fast a prompt that calls it is."""
    server.on("GET", "/api/tags", TAGS)
    server.on("GET", "/api/ps", TAGS)
    server.on("POST", "/api/copy", None)
    answering(server, "ok")

    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "olm", *args],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip

    loaded = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()
    }
    assert {"socket", "json"} <= loaded
    assert not loaded & {
        "trio",
        "quart",
        "quart_trio",
        "hypercorn",
        "numpy",
        "msgspec",
        "asyncio",
        "email",
        "ssl",
    }
    assert "attr" not in loaded or args[0] == "run"
