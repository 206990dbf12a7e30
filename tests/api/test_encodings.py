"""Compressed bodies: what is undone, what is refused, and that nothing unfolds beyond its limit."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import trio
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.memory_http import MemoryClient
from olm.api.encodings import Decompressor, decode_body
from olm.api.errors import BodyTooLarge
from olm.api.gate import Buffer, Gate
from olm.errors import InvalidRequest, OlmError

BODY = b'{"model":"tiny","input":"' + b"hello " * 500 + b'"}'
LIMIT = 1 << 20
PACK: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstandard.compress,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}


def streamed(data: bytes) -> bytes:
    """A zstd frame that does not say how much it holds, as clients that stream make them."""
    compressor = zstandard.ZstdCompressor().compressobj()
    return compressor.compress(data) + compressor.flush()


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("", BODY),
        ("identity", BODY),
        ("zstd", zstandard.compress(BODY)),
        ("ZSTD", streamed(BODY)),
        ("zstd", zstandard.compress(BODY[:100]) + streamed(BODY[100:])),
        ("gzip", gzip.compress(BODY)),
        ("x-gzip", gzip.compress(BODY[:100]) + gzip.compress(BODY[100:])),
        ("deflate", zlib.compress(BODY)),
        ("gzip, zstd", zstandard.compress(gzip.compress(BODY))),
        (" identity , zstd", zstandard.compress(BODY)),
    ],
)
def test_codings_are_undone(encoding: str, data: bytes) -> None:
    assert decode_body(data, encoding, LIMIT) == BODY


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=4000), st.sampled_from(["zstd", "gzip", "deflate"]))
def test_any_bytes_come_back(data: bytes, coding: str) -> None:
    packed = PACK[coding](data)

    assert decode_body(packed, coding, 4000) == data


@pytest.mark.parametrize("coding", ["zstd", "gzip", "deflate"])
@pytest.mark.parametrize("damage", ["cut", "none", "noise", "tail"])
def test_damaged_bodies_are_refused(coding: str, damage: str) -> None:
    whole = PACK[coding](BODY)
    data = {"cut": whole[:-9], "none": b"", "noise": BODY, "tail": whole + b"xyz"}[damage]

    with pytest.raises(InvalidRequest, match=f"^failed to decompress {coding} body$"):
        decode_body(data, coding, LIMIT)


def test_unknown_and_many_codings_are_refused() -> None:
    with pytest.raises(OlmError, match="unsupported content encoding 'br'") as refused:
        decode_body(BODY, "br", LIMIT)

    assert refused.value.http_status == 415
    with pytest.raises(InvalidRequest, match="too many content codings"):
        decode_body(BODY, "gzip,gzip,gzip,gzip", LIMIT)


@pytest.mark.parametrize("coding", ["zstd", "gzip"])
def test_bodies_of_many_frames_are_refused(coding: str) -> None:
    frame = zstandard.compress(b"") if coding == "zstd" else gzip.compress(b"")

    with pytest.raises(InvalidRequest):
        decode_body(frame * 100, coding, LIMIT)


@pytest.mark.parametrize("coding", ["zstd", "gzip"])
def test_bombs_stop_at_the_limit(coding: str) -> None:
    zeros = bytes(64 << 20)
    bomb = zstandard.compress(zeros) if coding == "zstd" else gzip.compress(zeros, 1)
    del zeros

    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge, match="more than 1024 KiB"):
            decode_body(bomb, coding, LIMIT)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak_bytes < 24 << 20


def test_frames_with_huge_windows_are_refused() -> None:
    """The window is memory of the decoder, before a byte of the body is out."""
    parameters = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = compressor.compress(bytes(32 << 20)) + compressor.flush()

    with pytest.raises(InvalidRequest, match="failed to decompress zstd body"):
        decode_body(data, "zstd", 64 << 20)


async def test_small_and_large_bodies_are_decoded_and_counted() -> None:
    gate = Gate()
    decompressor = Decompressor()
    for body in (BODY, b"x" * (1 << 20)):
        packed = zstandard.compress(body)
        buffer = Buffer(gate)

        with trio.fail_after(5):
            decoded = await decompressor.decoded(packed, "zstd", 1 << 20, buffer)

        assert decoded == body
        assert buffer.size_bytes == len(body) - len(packed)
        buffer.release()


@pytest.mark.parametrize("path", ["/api/chat", "/v1/responses"])
@pytest.mark.parametrize("coding", ["zstd", "gzip"])
async def test_requests_may_be_compressed(client: MemoryClient, path: str, coding: str) -> None:
    fields = {"messages": [{"role": "user", "content": "Hi"}], "input": "Hi", "stream": False}
    data = PACK[coding](json.dumps({"model": "tiny", **fields}).encode())

    for _ in range(2):  # the connection lives on
        reply = await client.request("POST", path, data, {"Content-Encoding": coding})
        assert reply.status == 200


async def test_refused_bodies_are_answered_in_the_api_s_form(client: MemoryClient) -> None:
    zstd = {"Content-Encoding": "zstd"}
    damaged = await client.request("POST", "/v1/responses", b"{}", zstd)
    native = await client.request("POST", "/api/chat", b"{}", zstd)
    unknown = await client.request("POST", "/api/chat", b"{}", {"Content-Encoding": "br"})
    huge = await client.request("POST", "/api/chat", zstandard.compress(bytes(65 << 20)), zstd)

    assert (damaged.status, native.status, unknown.status, huge.status) == (400, 400, 415, 413)
    assert damaged.json["error"]["message"] == "failed to decompress zstd body"  # type: ignore[index]
    assert native.error == "failed to decompress zstd body"
