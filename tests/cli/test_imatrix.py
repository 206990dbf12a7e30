"""`olm imatrix` against canned answers: what is asked, what is written, and that nothing half is left."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from cli.canned import Canned, Run

DATA = bytes(range(256)) * 40
LINES: list[dict[str, object]] = [
    {"status": "loading model"},
    {"status": "computing imatrix", "total": 1024, "completed": 512},
    {"status": "writing imatrix", "data": base64.b64encode(DATA[:5001]).decode()},
    {"status": "writing imatrix", "data": base64.b64encode(DATA[5001:]).decode()},
    {
        "status": "success",
        "digest": "sha256:" + hashlib.sha256(DATA).hexdigest(),
        "total": len(DATA),
    },
]


def test_the_text_goes_up_and_the_file_comes_back(server: Canned, olm: Run, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(b"Gr\xc3\xbc\xff\n")
    server.on("POST", "/api/imatrix", LINES)

    done = olm("imatrix", "me/llama:8b", "-f", "text.txt", "--chunks", "7", "--ctx", "64")

    assert (done.returncode, done.stdout) == (0, "wrote llama-8b.imatrix.gguf\n")
    assert (tmp_path / "llama-8b.imatrix.gguf").read_bytes() == DATA
    (asked,) = server.bodies("/api/imatrix")
    assert asked == {
        "model": "me/llama:8b",
        "text": "Grü\N{REPLACEMENT CHARACTER}\n",
        "dataset": "text.txt",
        "chunks": 7,
        "ctx": 64,
        "parse_special": False,
        "num_thread": 0,
        "num_gpu": 0,
    }


def test_standard_input_is_a_text_without_a_name(server: Canned, olm: Run, tmp_path: Path) -> None:
    server.on("POST", "/api/imatrix", LINES)

    done = olm("imatrix", "tiny:latest", "-f", "-", "-o", "x.gguf", input="Hi")

    assert done.returncode == 0
    assert (tmp_path / "x.gguf").read_bytes() == DATA
    (asked,) = server.bodies("/api/imatrix")
    assert (asked["text"], asked["dataset"]) == ("Hi", "")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (LINES[:-1], "did not come whole"),
        ([*LINES[:3], LINES[4]], "did not come whole"),
        ([LINES[0], {"error": "the text is too short"}], "the text is too short"),
        ([{"status": "writing imatrix", "data": "?"}], "no base64"),
    ],
)
def test_what_is_not_whole_leaves_what_was_there(
    server: Canned, olm: Run, tmp_path: Path, lines: list[dict[str, object]], words: str
) -> None:
    (tmp_path / "text").write_text("Hi")
    (tmp_path / "x.gguf").write_bytes(b"before")
    server.on("POST", "/api/imatrix", lines)

    done = olm("imatrix", "tiny", "-f", "text", "-o", "x.gguf")

    assert done.returncode == 1
    assert words in done.stderr
    assert (tmp_path / "x.gguf").read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir()} == {"text", "x.gguf"}


def test_a_text_that_is_not_there_is_said_before_anybody_is_asked(server: Canned, olm: Run) -> None:
    done = olm("imatrix", "tiny", "-f", "gone.txt")

    assert done.stderr == "Error: cannot read gone.txt: No such file or directory\n"
    assert server.seen == []
