"""What an error looks like on the wire: status, body and headers for each dialect, in one place.

Ollama: `{"error":"…"}` (spec/ollama §1.1). OpenAI and Anthropic wrap the same message (§2.1, §2.7). The status comes
from the error itself (`olm.errors`), and so do OpenAI's `param` (the field at fault) and `code`: two details of that
name. Nothing is logged here.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
import trio

from olm.api.encoding import to_json
from olm.errors import (
    Busy,
    ContextTooLong,
    ModelNotFound,
    OlmError,
    ShuttingDown,
    first_error,
)
from olm.log import get_logger

__all__ = [
    "SHUTTING_DOWN",
    "BodyTooLarge",
    "Dialect",
    "Forbidden",
    "SlowBody",
    "Unauthorized",
    "dialect_of",
    "error_body",
    "error_headers",
    "error_line",
    "expected_error",
    "unfinished",
]

Dialect = Literal["ollama", "openai", "anthropic"]

SHUTTING_DOWN: Final = "server is shutting down, please try again later"
JSON_TYPE: Final = "application/json; charset=utf-8"

_log = get_logger("http")


class BodyTooLarge(OlmError):
    """The request body is larger than olm takes."""

    status = 413


class Unauthorized(OlmError):
    """The client needs an API key, and sent none or a wrong one."""

    status = 401


class Forbidden(OlmError):
    """The client is known, or needs not be, and may not do this."""

    status = 403


class SlowBody(OlmError):
    """The client stopped in the middle of its request body."""

    status = 408


class _OllamaError(msgspec.Struct):
    error: str


class _OpenAIDetail(msgspec.Struct):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class _OpenAIError(msgspec.Struct):
    error: _OpenAIDetail


class _AnthropicDetail(msgspec.Struct):
    type: str
    message: str


class _AnthropicError(msgspec.Struct):
    type: str
    error: _AnthropicDetail
    request_id: str


_OPENAI_TYPES: Final = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    403: "invalid_request_error",
    404: "not_found_error",
}
_OPENAI_CODES: Final = (
    (ModelNotFound, "model_not_found"),
    (ContextTooLong, "context_length_exceeded"),
)
"""OpenAI's codes that clients act on. Ollama leaves the code null."""
_ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


_MAX_MESSAGE_CHARS: Final = 2000
"""Longest error text: some quote what they complain about, and a template or a grammar may have a megabyte."""


def unfinished() -> OlmError:
    """The error of a turn that ended without saying how."""
    return OlmError("the answer ended without a final event")


def dialect_of(path: str) -> Dialect:
    """Tell which API a path belongs to, so that its errors take that API's form."""
    if path.startswith("/v1/messages"):
        return "anthropic"
    return "openai" if path.startswith("/v1/") else "ollama"


def error_body(error: OlmError, dialect: Dialect = "ollama", request_id: str = "") -> bytes:
    """Write an error as a JSON document of the dialect."""
    status, message = error.http_status, _bounded(error.message)
    match dialect:
        case "ollama":
            return to_json(_OllamaError(message))
        case "openai":
            return to_json(_OpenAIError(_openai_detail(error)))
        case "anthropic":
            kind = _ANTHROPIC_TYPES.get(status, "api_error")
            if isinstance(error, ContextTooLong):
                # Claude Code shortens the conversation when it meets Anthropic's words.
                message = f"prompt is too long: {message}"
            return to_json(_AnthropicError("error", _AnthropicDetail(kind, message), request_id))


def _bounded(message: str) -> str:
    if len(message) <= _MAX_MESSAGE_CHARS:
        return message
    # What was wrong stands at the end as often as at the beginning.
    half = _MAX_MESSAGE_CHARS // 2
    return f"{message[:half]} ... {message[-half:]}"


def _openai_detail(error: OlmError) -> _OpenAIDetail:
    """`param` and `code` come from the error's details, else from what it is."""
    kind = _OPENAI_TYPES.get(error.http_status, "api_error")
    is_unknown = isinstance(error, ModelNotFound)
    param = error.details.get("param", "model" if is_unknown else None)
    code = error.details.get("code")
    if not isinstance(code, str) or code.isupper():
        # Codes in capitals are the engine's (see olm.native.lib) and say nothing to a client.
        code = next((code for cls, code in _OPENAI_CODES if isinstance(error, cls)), None)
    return _OpenAIDetail(
        _bounded(error.message), kind, param if isinstance(param, str) else None, code
    )


def error_line(error: OlmError) -> bytes:
    """Write an error as a line of an NDJSON stream whose status is already out."""
    return error_body(error) + b"\n"


def error_headers(error: OlmError) -> list[tuple[str, str]]:
    """Header fields that belong to an error: its type, and when to come back if it is worth it."""
    headers = [("content-type", JSON_TYPE)]
    if isinstance(error, Busy):
        retry_after_s = error.details.get("retry_after_s")
        number = retry_after_s if isinstance(retry_after_s, int | float) else 1
        headers.append(("retry-after", str(max(1, round(number)))))
        position = error.details.get("queue_position")
        if isinstance(position, int):
            headers.append(("x-olm-queue-position", str(position)))
    if isinstance(error, Unauthorized):
        headers.append(("www-authenticate", "Bearer"))
    if isinstance(error, ShuttingDown):
        headers.append(("connection", "close"))
    return headers


async def expected_error(exc: BaseException, *, request_id: str) -> OlmError:
    """Turn whatever a handler raised into the one error to answer with; bugs are logged here with their traceback.

    Groups are opened once, at this edge. A group that holds our own cancellation raises that instead.
    """
    if isinstance(exc, BaseExceptionGroup):
        if exc.subgroup(trio.Cancelled) is not None:
            await trio.lowlevel.checkpoint_if_cancelled()
        known = first_error(exc)
        if known is not None:
            return known
    if isinstance(exc, OlmError):
        return exc
    _log.error("request %s failed", request_id, exc_info=exc)
    return OlmError(f"internal error, see the log for request {request_id}")
