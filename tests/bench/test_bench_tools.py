"""The benchmarks' own arithmetic: what a client sees is counted right, and a broken run is no result."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def load() -> Iterator[ModuleType]:
    """The scripts import each other by their plain names, as they do when one of them is run."""
    sys.path.insert(0, str(BENCH))
    try:
        import load

        yield load
    finally:
        sys.path.remove(str(BENCH))


@pytest.fixture(scope="module")
def report(load: ModuleType) -> ModuleType:
    import report

    return report


@contextmanager
def answering(*pieces: bytes) -> Iterator[str]:
    """A loopback server that answers every connection with these bytes, one send for each piece."""

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.recv(1 << 16)
                for piece in pieces:
                    connection.sendall(piece)
                connection.shutdown(socket.SHUT_WR)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def chunked(body: bytes, sizes: Sequence[int]) -> bytes:
    """The body in HTTP chunks of these sizes, the rest in a last one: lines do not have to end where chunks do."""
    out, offset = b"", 0
    for size in [*sizes, len(body)]:
        piece = body[offset : offset + size]
        offset += size
        out += b"%x\r\n%s\r\n" % (len(piece), piece) if piece else b""
    return out + b"0\r\n\r\n"


OLLAMA = b"".join(
    json.dumps(line).encode() + b"\n"
    for line in (
        {"response": "Hi", "done": False},
        {"response": "", "done": False},
        {"response": " there", "done": False},
        {"response": "", "done": True, "eval_count": 7, "prompt_eval_count": 3},
    )
)
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("sizes", [[], [1, 1, 1], [40, 3, 60]])
def test_counts_come_from_the_final_record_however_the_body_is_chunked(
    load: ModuleType, sizes: list[int]
) -> None:
    with answering(CHUNKED_HEAD, chunked(OLLAMA, sizes)) as url:
        result = load.run_load(load.LoadSpec(url, n_streams=2))

    assert result.n_tokens == 14
    assert result.n_prompt_tokens == 6
    assert result.gap_max_ms >= 0


def test_server_sent_events_of_llama_server_are_read(load: ModuleType) -> None:
    events = (
        b'data: {"content":"a","stop":false}\n\n'
        b'data: {"content":"","stop":true,"tokens_predicted":5,"tokens_evaluated":2}\n\n'
    )
    with answering(b"HTTP/1.1 200 OK\r\n\r\n", events) as url:
        result = load.run_load(load.LoadSpec(url, api="llama"))

    assert (result.n_tokens, result.n_prompt_tokens) == (5, 2)


def test_openai_usage_is_read(load: ModuleType) -> None:
    events = (
        b'data: {"choices":[{"text":"a"}]}\n\n'
        b'data: {"choices":[],"usage":{"completion_tokens":4,"prompt_tokens":9}}\n\ndata: [DONE]\n\n'
    )
    with answering(b"HTTP/1.1 200 OK\r\n\r\n", events) as url:
        result = load.run_load(load.LoadSpec(url, api="openai"))

    assert (result.n_tokens, result.n_prompt_tokens) == (4, 9)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b'HTTP/1.1 503 Service Unavailable\r\n\r\n{"error":"busy"}\n', "503"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"error":"model runner has stopped"}\n', "broke off"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"response":"a"}\n', "final record"),
        (b"", "answered"),
    ],
)
def test_a_broken_stream_is_an_error_not_a_figure(
    load: ModuleType, answer: bytes, words: str
) -> None:
    with answering(answer) as url, pytest.raises(load.LoadError, match=words):
        load.run_load(load.LoadSpec(url))


def test_another_seed_gives_other_prompts_that_share_only_the_prefix(load: ModuleType) -> None:
    def prompts(seed: int) -> list[str]:
        return list(load._prompts(load.LoadSpec("", n_streams=3, prefix_words=2, seed=seed)))

    first, again, other = prompts(1), prompts(1), prompts(2)

    assert first == again
    assert not set(first) & set(other)
    assert len({prompt.split()[2] for prompt in first}) == len(first)
    assert len({tuple(prompt.split()[:2]) for prompt in first}) == 1


def test_ratios_are_taken_pair_by_pair(report: ModuleType) -> None:
    ratio = report.pairwise_ratio([10, 40, 30], [10, 20, 60])

    assert (ratio.median, ratio.lowest, ratio.highest) == (1.0, 0.5, 2.0)
    assert str(ratio) == "1.00 (0.50–2.00)"


def test_publish_replaces_only_its_own_section(report: ModuleType, tmp_path: Path) -> None:
    document = tmp_path / "doc.md"
    document.write_text("a\n<!-- idle -->\nold\n<!-- /idle -->\nb\n")

    report.publish("idle", "new", document)

    assert document.read_text() == "a\n<!-- idle -->\nnew\n<!-- /idle -->\nb\n"
    with pytest.raises(ValueError, match="serve"):
        report.publish("serve", "new", document)
