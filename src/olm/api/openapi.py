"""The OpenAPI 3.1 document: the routes that are registered, described by `openapi_table`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from olm import __version__
from olm.api.errors import Dialect, dialect_of
from olm.api.openapi_schemas import Schema, SchemaBook
from olm.api.openapi_table import ROUTES, Described

__all__ = ["openapi_document"]

_STREAMS: Final = {"ndjson": "application/x-ndjson", "sse": "text/event-stream"}
_VARIABLE: Final = re.compile(r"{(\w+)}")
_DIGEST_PATTERN: Final = "^sha256:[0-9a-f]{64}$"

_ABOUT: Final = (
    "Local language models behind Ollama's, OpenAI's and Anthropic's APIs. In requests `null` is the same as leaving a"
    " field out, and unknown fields are ignored; in answers fields that are zero or empty may be left out."
)

_ERROR_TEXT: Final[Schema] = {"type": "string"}
_ERRORS: Final[dict[str, Schema]] = {
    "OllamaError": {
        "type": "object",
        "properties": {"error": _ERROR_TEXT},
        "required": ["error"],
    },
    "OpenAIError": {
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "message": _ERROR_TEXT,
                    "type": _ERROR_TEXT,
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                },
                "required": ["message", "type", "param", "code"],
            }
        },
        "required": ["error"],
    },
    "AnthropicError": {
        "type": "object",
        "properties": {
            "type": {"const": "error"},
            "error": {
                "type": "object",
                "properties": {"type": _ERROR_TEXT, "message": _ERROR_TEXT},
                "required": ["type", "message"],
            },
            "request_id": {"type": "string"},
        },
        "required": ["type", "error", "request_id"],
    },
}
_ERROR_NAMES: Final[dict[Dialect, str]] = {
    "ollama": "OllamaError",
    "openai": "OpenAIError",
    "anthropic": "AnthropicError",
}
_ID_HEADER: Final = {
    "X-Request-Id": {"schema": {"type": "string"}, "description": "the request's id, as in the log"}
}


def openapi_document(registered: Iterable[str]) -> dict[str, object]:
    """Describe the routes that are there.

    Args:
        registered: `METHOD /path/{variable}`, as in the table. What the table does not know is left out.
    """
    book = SchemaBook()
    paths: dict[str, dict[str, object]] = {}
    there = set(registered)
    for key, described in ROUTES.items():
        method, _, path = key.partition(" ")
        if key not in there:
            continue
        item = paths.setdefault(path, _path_item(path))
        item[method.lower()] = _operation(method, path, described, book)
        if method == "GET" and f"HEAD {path}" in there:
            item["head"] = _operation("HEAD", path, described, book)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "olm",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"bearer": []}, {"key": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(row.tag for row in ROUTES.values())],
        "paths": paths,
        "components": {
            "schemas": {**book.components, **_ERRORS},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _path_item(path: str) -> dict[str, object]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _variable(name)}
        for name in _VARIABLE.findall(path)
    ]
    return {"parameters": parameters} if parameters else {}


def _variable(name: str) -> Schema:
    if name == "digest":
        return {"type": "string", "pattern": _DIGEST_PATTERN}
    return {"type": "string", "minLength": 1}


def _operation(method: str, path: str, described: Described, book: SchemaBook) -> Schema:
    operation: Schema = {
        "operationId": _operation_id(method, path),
        "summary": described.summary,
        "tags": [described.tag],
    }
    if described.query:
        operation["parameters"] = [
            {"name": name, "in": "query", "schema": {"type": kind}}
            for name, kind in described.query.items()
        ]
    body = _body(described, book)
    if body:
        operation["requestBody"] = {"required": True, "content": body}
    good: Schema = {"description": "done", "headers": _ID_HEADER}
    content = _answer(described, book)
    if content and method != "HEAD":
        good["content"] = content
    responses: Schema = {str(described.status): good}
    if described.status == 201:
        responses["200"] = {**good, "description": "it was there already"}
    responses["default"] = _failure(method, path)
    operation["responses"] = responses
    return operation


def _operation_id(method: str, path: str) -> str:
    words = re.findall(r"\w+", path)
    return "_".join([method.lower(), *words])


def _body(described: Described, book: SchemaBook) -> Schema:
    if described.request is not None:
        schema = book.ref(described.request)
        if described.required:
            schema["required"] = list(described.required)
        media: Schema = {"schema": schema}
        if described.example is not None:
            media["example"] = dict(described.example)
        return {"application/json": media}
    return {described.body_media: {}} if described.body_media else {}


def _answer(described: Described, book: SchemaBook) -> Schema:
    content: Schema = {}
    if described.response is not None:
        content["application/json"] = {"schema": book.ref(described.response)}
    if described.media:
        content[described.media] = {}
    if described.streamed:
        line = book.ref(described.line) if described.line is not None else {"type": "string"}
        content[_STREAMS[described.streamed]] = {"schema": line}
    return content


def _failure(method: str, path: str) -> Schema:
    failure: Schema = {"description": "an error, in the form of its API", "headers": _ID_HEADER}
    if method != "HEAD":
        ref = f"#/components/schemas/{_ERROR_NAMES[dialect_of(path)]}"
        failure["content"] = {"application/json": {"schema": {"$ref": ref}}, "text/plain": {}}
    return failure
