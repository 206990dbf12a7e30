#!/usr/bin/env python3
"""Stream N completions at once from a server and report what a client sees.

    python bench/load.py http://127.0.0.1:11434 --model tiny -n 8 -k 128
    python bench/load.py http://127.0.0.1:8080 --api llama -n 8 -k 128 --pid 1234

Speaks Ollama's `/api/generate`, OpenAI's `/v1/completions` and llama-server's `/completion`. While the run lasts
one selector loop only receives and stamps; everything is parsed afterwards, so that the client takes little of a
small machine. Starting servers and comparing them is the business of `serve.py`.

Time to first token (TTFT) counts from the last byte of the request to the first piece of text; a gap is the time
between two pieces. Token counts are those the server reports at the end of each stream: a piece may hold several
tokens or, when a character is incomplete, none.
"""

from __future__ import annotations

import argparse
import bisect
import json
import random
import selectors
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final, Literal
from urllib.parse import urlsplit

import attrs
from machine import CpuWindow

__all__ = ["Api", "LoadError", "LoadResult", "LoadSpec", "run_load"]

Api = Literal["ollama", "openai", "llama"]

# Common English words: one token each, with its blank, in every vocabulary in use.
_WORD_LIST: Final = """time year people way day man thing woman life child world school state family student group country
problem hand part place case week company system program question work government number night point home water room
mother area money story fact month lot right study book eye job word business issue side kind head house service
friend father power hour game line end member law car city community name president team minute idea body back parent
face others level office door health person art war history party result change morning reason research girl guy
moment air teacher force"""
_WORDS: Final = _WORD_LIST.split()

_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"

# A stream that is silent for this long has failed; the slowest prompt processing wanted here is far below it.
_SILENCE_LIMIT_S: Final = 180.0


class LoadError(Exception):
    """A stream failed or ended without its final record."""


@attrs.frozen
class LoadSpec:
    """What to ask of which server.

    Attributes:
        n_streams: requests sent at the same time.
        n_tokens: tokens each is to generate; end-of-generation tokens are ignored.
        prompt_words: words of a prompt, each prompt a different one.
        prefix_words: words that all prompts begin with.
        late_words: if not 0, one more request with this many words starts when the others are a third through.
        seed: chooses the words; another seed gives prompts that no cache has seen.
        options: added to the request (Ollama: to its `options`).
    """

    url: str
    api: Api = "ollama"
    model: str = "tiny"
    n_streams: int = 1
    n_tokens: int = 128
    prompt_words: int = 8
    prefix_words: int = 0
    late_words: int = 0
    seed: int = 1
    options: dict[str, object] = attrs.field(factory=dict)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `url`."""
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or 80


@attrs.frozen
class LoadResult:
    """What the client saw. Milliseconds, tokens a second, CPU seconds for 1000 tokens; `late_ttft_ms` of the late one."""

    n_streams: int
    n_tokens: int
    n_prompt_tokens: int
    wall_s: float
    tokens_per_s: float
    ttft_p50_ms: float
    ttft_max_ms: float
    gap_p50_ms: float
    gap_p95_ms: float
    gap_max_ms: float
    cpu_s_per_1k: float
    foreign_frac: float
    late_ttft_ms: float | None = None


@attrs.define
class _Stream:
    """One request under way: the bytes received, and when each piece of them came."""

    is_late: bool
    sent_at: float
    data: bytearray = attrs.field(factory=bytearray)
    ends: list[int] = attrs.field(factory=list)
    times: list[float] = attrs.field(factory=list)

    def receive(self, piece: bytes, now: float) -> None:
        self.data += piece
        self.ends.append(len(self.data))
        self.times.append(now)

    @property
    def is_complete(self) -> bool:
        """Whether the last chunk of a chunked body is here; JSON never ends a chunk with a bare "0" line."""
        return self.data.endswith(_LAST_CHUNK)

    def time_at(self, offset: int) -> float:
        """When the byte before `offset` had arrived."""
        return self.times[bisect.bisect_left(self.ends, offset)]


def _body(spec: LoadSpec, prompt: str) -> tuple[str, dict[str, object]]:
    match spec.api:
        case "llama":
            body = {
                "prompt": prompt,
                "n_predict": spec.n_tokens,
                "ignore_eos": True,
                "temperature": 0,
            }
            return "/completion", {**body, "stream": True, **spec.options}
        case "openai":
            body = {
                "model": spec.model,
                "prompt": prompt,
                "max_tokens": spec.n_tokens,
                "temperature": 0,
            }
            usage = {"stream_options": {"include_usage": True}}
            return "/v1/completions", {**body, "stream": True, **usage, **spec.options}
        case "ollama":
            options = {
                "num_predict": spec.n_tokens,
                "temperature": 0,
                "ignore_eos": True,
                **spec.options,
            }
            body = {"model": spec.model, "prompt": prompt, "raw": True, "keep_alive": "10m"}
            return "/api/generate", {**body, "stream": True, "options": options}


def _request(spec: LoadSpec, prompt: str) -> bytes:
    path, body = _body(spec, prompt)
    payload = json.dumps(body).encode()
    host, port = spec.address
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + payload


def _prompts(spec: LoadSpec) -> Iterator[str]:
    """The prompts of all streams, then the late one's."""
    rng = random.Random(spec.seed)
    prefix = rng.choices(_WORDS, k=spec.prefix_words)
    for n_words in [spec.prompt_words] * spec.n_streams + [spec.late_words]:
        # The first word differs from stream to stream, so that nothing but the prefix is shared.
        yield " ".join([*prefix, str(rng.randrange(10**6)), *rng.choices(_WORDS, k=n_words)])


def _drive(spec: LoadSpec) -> list[_Stream]:
    """Send the requests and receive until every stream has ended."""
    *requests, late = (_request(spec, prompt) for prompt in _prompts(spec))
    is_late_due = spec.late_words > 0
    streams: list[_Stream] = []
    with selectors.DefaultSelector() as selector:

        def start(request: bytes, *, is_late: bool = False) -> None:
            connection = socket.create_connection(spec.address)
            connection.sendall(request)
            connection.setblocking(False)
            streams.append(_Stream(is_late, time.perf_counter()))
            selector.register(connection, selectors.EVENT_READ, streams[-1])

        for request in requests:
            start(request)
        while selector.get_map():
            ready = selector.select(_SILENCE_LIMIT_S)
            if not ready:
                raise LoadError(f"no stream said anything for {_SILENCE_LIMIT_S:.0f} s")
            for key, _ in ready:
                connection = key.fileobj
                assert isinstance(connection, socket.socket), "only sockets are registered"
                piece = connection.recv(1 << 18)
                key.data.receive(piece, time.perf_counter())
                # A complete answer is over even where the server is slow to close, as for any other HTTP client.
                if not piece or key.data.is_complete:
                    selector.unregister(connection)
                    connection.close()
            if is_late_due and all(len(s.times) > spec.n_tokens / 3 for s in streams):
                is_late_due = False
                start(late, is_late=True)
    return streams


def _body_lines(stream: _Stream) -> Iterator[tuple[bytes, float]]:
    """The lines of a response's body with the time each was complete; raises LoadError unless the status is 200."""
    head, separator, _ = bytes(stream.data).partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0] + b" ":
        raise LoadError(f"the server answered {bytes(stream.data[:400])!r}")
    raw, offset = bytes(stream.data), len(head) + len(separator)
    is_chunked = b"transfer-encoding: chunked" in head.lower()
    line = bytearray()
    while offset < len(raw):
        end = len(raw)
        if is_chunked:
            size_end = raw.index(b"\r\n", offset)
            offset, size = size_end + 2, int(raw[offset:size_end].split(b";")[0], 16)
            end = offset + size
        for part in raw[offset:end].splitlines(keepends=True):
            offset += len(part)
            line += part
            if line.endswith(b"\n"):
                yield bytes(line.strip()), stream.time_at(offset)
                line.clear()
        offset = end + (2 if is_chunked else 0)
    if line.strip():
        yield bytes(line.strip()), stream.times[-1]


@attrs.frozen
class _Parsed:
    """One finished stream: when text came, and the server's own counts."""

    piece_times: list[float]
    ended_at: float
    n_tokens: int
    n_prompt_tokens: int


def _text_and_counts(api: Api, event: dict[str, object]) -> tuple[str, tuple[int, int] | None]:
    """The text of one event, and (generated, prompt) counts if it is the one that carries them."""
    if "error" in event:
        raise LoadError(f"the stream broke off: {event['error']}")
    match api:
        case "llama":
            if event.get("stop"):
                return "", (_count(event, "tokens_predicted"), _count(event, "tokens_evaluated"))
            return str(event["content"]), None
        case "openai":
            usage, choices = event.get("usage"), event.get("choices")
            text = str(choices[0].get("text", "")) if isinstance(choices, list) and choices else ""
            if isinstance(usage, dict):
                return text, (_count(usage, "completion_tokens"), _count(usage, "prompt_tokens"))
            return text, None
        case "ollama":
            if event.get("done"):
                return "", (_count(event, "eval_count"), _count(event, "prompt_eval_count"))
            return str(event["response"]), None


def _count(event: dict[str, object], key: str) -> int:
    value = event.get(key)
    if isinstance(value, int):
        return value
    raise LoadError(f"the final record has no {key}: {str(event)[:400]}")


def _parse(api: Api, stream: _Stream) -> _Parsed:
    piece_times: list[float] = []
    counts: tuple[int, int] | None = None
    ended_at = 0.0
    for line, arrived in _body_lines(stream):
        payload = line.removeprefix(b"data:").strip()
        if not payload.startswith(b"{"):
            continue  # blank lines and [DONE] of server-sent events
        text, found = _text_and_counts(api, json.loads(payload))
        if found:
            counts, ended_at = found, arrived
        if text:
            piece_times.append(arrived)
    if counts is None:
        raise LoadError(f"a stream ended without its final record: {bytes(stream.data[-300:])!r}")
    # A stream of nothing but invisible tokens has its first token at its end, as far as a client can tell.
    return _Parsed(piece_times or [ended_at], ended_at, *counts)


def _quantile(values: Sequence[float], frac: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * frac))] if ordered else 0.0


def run_load(spec: LoadSpec, pid: int | None = None) -> LoadResult:
    """Run the load once; `pid` is the server's, for its CPU time.

    Raises:
        LoadError: a status other than 200, an error in a stream, a stream without its end.
        OSError: nobody listens.
    """
    window = CpuWindow(pid)
    started = time.perf_counter()
    streams = _drive(spec)
    window_s = time.perf_counter() - started
    server_s, foreign_frac = window.server_s(), window.foreign_frac(window_s)
    parsed = [(stream, _parse(spec.api, stream)) for stream in streams]
    wall_s = max(p.ended_at for _, p in parsed) - started
    ttft = [p.piece_times[0] - s.sent_at for s, p in parsed if not s.is_late]
    late = [p.piece_times[0] - s.sent_at for s, p in parsed if s.is_late]
    gaps = [
        after - before
        for s, p in parsed
        if not s.is_late
        for before, after in zip(p.piece_times, p.piece_times[1:], strict=False)
    ]
    n_tokens = sum(p.n_tokens for _, p in parsed)
    return LoadResult(
        n_streams=spec.n_streams,
        n_tokens=n_tokens,
        n_prompt_tokens=sum(p.n_prompt_tokens for _, p in parsed),
        wall_s=wall_s,
        tokens_per_s=n_tokens / wall_s,
        ttft_p50_ms=_quantile(ttft, 0.5) * 1e3,
        ttft_max_ms=max(ttft) * 1e3,
        gap_p50_ms=_quantile(gaps, 0.5) * 1e3,
        gap_p95_ms=_quantile(gaps, 0.95) * 1e3,
        gap_max_ms=max(gaps, default=0.0) * 1e3,
        cpu_s_per_1k=server_s / max(n_tokens, 1) * 1e3,
        foreign_frac=foreign_frac,
        late_ttft_ms=late[0] * 1e3 if late else None,
    )


def main() -> None:
    """Print one JSON line a round."""
    parser = argparse.ArgumentParser(description="Stream N completions at once and report.")
    parser.add_argument("url")
    parser.add_argument("--api", choices=["ollama", "openai", "llama"], default="ollama")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("-n", type=int, default=1, help="streams at once")
    parser.add_argument("-k", type=int, default=128, help="tokens of each stream")
    parser.add_argument("--prompt-words", type=int, default=8)
    parser.add_argument("--prefix-words", type=int, default=0, help="words all prompts share")
    parser.add_argument(
        "--late-words", type=int, default=0, help="words of a prompt that comes later"
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pid", type=int, help="the server's process, for its CPU time")
    parser.add_argument("--options", type=json.loads, default={}, help="further options, JSON")
    args = parser.parse_args()
    spec = LoadSpec(
        url=args.url,
        api=args.api,
        model=args.model,
        n_streams=args.n,
        n_tokens=args.k,
        prompt_words=args.prompt_words,
        prefix_words=args.prefix_words,
        late_words=args.late_words,
        options=args.options,
    )
    try:
        for number in range(args.rounds):
            result = run_load(attrs.evolve(spec, seed=args.seed + number), args.pid)
            print(json.dumps(attrs.asdict(result)), flush=True)
    except (LoadError, OSError) as exc:
        sys.exit(f"load: {exc}")


if __name__ == "__main__":
    main()
