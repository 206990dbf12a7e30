"""OpenAI's `/v1/audio/transcriptions`: reading its form. Pure.

olm has no models that hear yet, so the form is only checked, as Ollama checks it (spec/ollama §2.6).
"""

from __future__ import annotations

from typing import Final

import attrs
from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from olm.api.dialects.openai_common import model_name
from olm.errors import InvalidRequest

__all__ = ["Transcription", "transcription_request"]

MAX_FIELD_BYTES: Final = 1 << 20
"""Most bytes of all fields but the file: a prompt is a few hundred."""
MAX_PARTS: Final = 64


@attrs.frozen
class Transcription:
    """Sound to be written down. `audio` are the bytes of a file, WAV or MP3."""

    model: str
    audio: bytes
    language: str = ""
    prompt: str = ""
    response_format: str = "json"


def transcription_request(body: bytes, content_type: str) -> Transcription:
    """Read the form of a request.

    Raises:
        InvalidRequest: no form, or one without a model or a file; in Ollama's words.
    """
    fields, audio = _read_form(body, content_type)
    model = model_name(fields.get("model"))
    if audio is None:
        raise InvalidRequest("file is required: http: no such file", param="file")
    if not audio:
        raise InvalidRequest("audio file is empty", param="file")
    return Transcription(
        model,
        audio,
        language=fields.get("language", ""),
        prompt=fields.get("prompt", ""),
        response_format=fields.get("response_format") or "json",
    )


def _read_form(body: bytes, content_type: str) -> tuple[dict[str, str], bytes | None]:
    """Read the text fields of a form, and its first part named `file`, None without one."""
    kind, options = parse_options_header(content_type)
    boundary = options.get("boundary", "")
    if kind != "multipart/form-data" or not boundary:
        raise InvalidRequest("request Content-Type isn't multipart/form-data")
    decoder = MultipartDecoder(boundary.encode("latin1", "replace"), max_parts=MAX_PARTS)
    fields: dict[str, bytearray] = {}
    files: dict[str, bytearray] = {}
    into = bytearray()
    try:
        decoder.receive_data(body)
        decoder.receive_data(None)
        while True:
            match decoder.next_event():
                case Field(name, _) if name not in fields:
                    into = fields[name] = bytearray()
                case File(name, _, _) if name not in files:
                    into = files[name] = bytearray()
                case Field() | File():
                    into = bytearray()  # of several with one name Go's FormValue takes the first
                case Data(data, _):
                    into += data
                case Epilogue() | NeedData():
                    break
    except (ValueError, HTTPException):
        raise InvalidRequest("malformed multipart form") from None
    if sum(map(len, fields.values())) > MAX_FIELD_BYTES:
        raise InvalidRequest("the fields of the form are too large")
    audio = files.get("file")
    texts = {name: data.decode("utf-8", "replace") for name, data in fields.items()}
    return texts, bytes(audio) if audio is not None else None
