"""`/v1/audio/transcriptions`: its form is read as Ollama reads it, and the model is looked up before it is refused."""

from __future__ import annotations

import attrs
import pytest

from kit.fake_olm import FakeOlm
from kit.memory_http import MemoryClient, Reply
from olm.api.dialects.openai_audio import transcription_request
from olm.errors import InvalidRequest

TYPE = "multipart/form-data; boundary=XX"


def form(*parts: tuple[str, bytes]) -> bytes:
    """A form; the part `file` has a file name."""
    body = b""
    for name, data in parts:
        extra = '; filename="a.wav"' if name == "file" else ""
        head = f'--XX\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'
        body += head.encode() + data + b"\r\n"
    return body + b"--XX--\r\n"


async def post(client: MemoryClient, body: bytes, content_type: str = TYPE) -> Reply:
    return await client.request(
        "POST", "/v1/audio/transcriptions", body, {"Content-Type": content_type}
    )


def test_form() -> None:
    body = form(
        ("model", b"tiny"),
        ("file", b"RIFF\r\n--X"),
        ("language", b"de"),
        ("prompt", "Füchse".encode()),
        ("response_format", b"text"),
        ("model", b"other"),
        ("file", b"second"),
    )
    read = transcription_request(body, TYPE)

    assert (read.model, read.audio) == ("tiny", b"RIFF\r\n--X")
    assert (read.language, read.prompt, read.response_format) == ("de", "Füchse", "text")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([("file", b"RIFF")], "model is required"),
        ([("model", b"tiny")], "file is required: http: no such file"),
        ([("model", b"tiny"), ("file", b"")], "audio file is empty"),
        ([(f"f{i}", b"x") for i in range(99)], "malformed multipart form"),
        (
            [("model", b"tiny"), ("prompt", b"x" * (1 << 21))],
            "the fields of the form are too large",
        ),
    ],
)
async def test_refusals(client: MemoryClient, parts: list[tuple[str, bytes]], message: str) -> None:
    reply = await post(client, form(*parts))

    assert reply.status == 400
    assert reply.json["error"]["message"] == message  # type: ignore[index]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{}", "application/json"),
        (b"--XX", "multipart/form-data"),
        (b"", ""),
    ],
)
async def test_what_is_no_form(client: MemoryClient, body: bytes, content_type: str) -> None:
    reply = await post(client, body, content_type)

    assert reply.status == 400
    assert "isn't multipart/form-data" in reply.text


@pytest.mark.parametrize(
    "body", [b"", b"--XX", b"--XX\r\nfoo", b"junk", form(("model", b"t"))[:60]]
)
def test_broken_forms(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        transcription_request(body, TYPE)


async def test_no_model_can_hear_yet(client: MemoryClient, olm: FakeOlm) -> None:
    unknown = await post(client, form(("model", b"nope"), ("file", b"RIFF")))
    deaf = await post(client, form(("model", b"tiny"), ("file", b"RIFF")))
    model = olm.store.models["tiny:latest"]
    olm.store.models["tiny:latest"] = attrs.evolve(model, capabilities=("audio",))
    hearing = await post(client, form(("model", b"tiny"), ("file", b"RIFF")))

    assert unknown.status == 404
    assert deaf.status == 400
    assert "registry.ollama.ai/library/tiny:latest does not support audio" in deaf.text
    assert hearing.status == 501
