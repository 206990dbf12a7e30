"""The OpenAPI document and its page: complete, well formed, and true to what the routes answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

import msgspec
import pytest
from quart import Quart

from kit.fake_olm import FakeOlm
from kit.memory_http import MemoryClient, MemoryServer, settings_for_tests
from olm.api import schemas, schemas_openai
from olm.api.app import create_app
from olm.api.openapi import openapi_document
from olm.api.openapi_schemas import SchemaBook
from olm.api.openapi_table import ROUTES
from olm.api.routes.openapi import registered

Json = dict[str, object]

NOT_DESCRIBED: Final = {
    "POST /v1/responses/{response_id}/cancel": "refused: a response is not made in the background",
    "POST /api/me": "refused: there is no cloud",
    "POST /api/signout": "refused: there is no cloud",
    "DELETE /api/user/keys/{key}": "refused: there is no cloud",
    "POST /api/experimental/web_search": "refused: there is no cloud",
    "POST /api/experimental/web_fetch": "refused: there is no cloud",
}
"""Routes that are there only to say no, and why."""


@pytest.fixture
def routes() -> set[str]:
    api = create_app(FakeOlm().clients, settings_for_tests())
    return set(registered(cast("Quart", api._inner)))


@pytest.fixture
def document(routes: set[str]) -> Json:
    return openapi_document(routes)


def get(value: object, *path: str) -> object:
    for key in path:
        assert isinstance(value, dict)
        value = value[key]
    return value


def refs(value: object) -> Iterator[str]:
    """All references of a document."""
    if isinstance(value, dict):
        ref = value.get("$ref")
        if isinstance(ref, str):
            yield ref
        for inner in value.values():
            yield from refs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from refs(inner)


def test_every_route_is_described_or_has_a_reason_not_to_be(routes: set[str]) -> None:
    """A new route needs its line in `olm.api.openapi_table`."""
    silent = {
        key
        for key in routes
        if key not in ROUTES
        and key not in NOT_DESCRIBED
        and not (key.startswith("HEAD ") and "GET " + key[5:] in ROUTES)
    }

    assert silent == set()


def test_nothing_is_described_that_is_not_there(routes: set[str]) -> None:
    assert {*ROUTES, *NOT_DESCRIBED} - routes == set()
    assert set(ROUTES) & set(NOT_DESCRIBED) == set()


def test_a_route_that_is_not_registered_is_left_out() -> None:
    document = openapi_document(["GET /api/tags", "GET /api/new"])

    assert list(cast("Json", document["paths"])) == ["/api/tags"]


def test_the_document_hangs_together(document: Json) -> None:
    paths = cast("dict[str, dict[str, Json]]", document["paths"])
    operations = [
        (path, method, operation)
        for path, item in paths.items()
        for method, operation in item.items()
        if method != "parameters"
    ]

    assert document["openapi"] == "3.1.0"
    assert len({operation["operationId"] for *_, operation in operations}) == len(operations)
    for ref in refs(document):
        assert get(document, *ref.removeprefix("#/").split("/"))
    for path, item in paths.items():
        declared = [
            cast("Json", p)["name"] for p in cast("list[object]", item.get("parameters", []))
        ]
        assert declared == re.findall(r"{(\w+)}", path)
    for _, method, operation in operations:
        responses = cast("Json", operation["responses"])
        assert "default" in responses
        assert ("content" in cast("Json", responses["default"])) == (method != "head")


def test_names_of_components_can_be_written_in_a_reference(document: Json) -> None:
    names = cast("Json", get(document, "components", "schemas"))

    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names)
    assert {"ChatRequest", "OpenAIChatCompletionRequest", "AnthropicMessage"} <= set(names)


def test_structs_become_schemas() -> None:
    book = SchemaBook()

    class Inner(msgspec.Struct, tag="in"):
        """What is inside."""

        size: int = 0

    class Outer(msgspec.Struct):
        a: str
        b: list[Inner] | None = None
        c: bytes | None = None
        d: object = None
        e: msgspec.Raw = msgspec.Raw(b"")
        f: dict[str, float] | None = None
        own: str | None = msgspec.field(default=None, name="from")

    Outer.__annotations__  # noqa: B018  # they are resolved when the class is inspected
    globals().update(Inner=Inner)
    name = cast("str", book.ref(Outer)["$ref"]).rpartition("/")[2]
    globals().pop("Inner")

    schema = book.components[name]
    assert schema["required"] == ["a"]
    inner = {"$ref": f"#/components/schemas/{name.removesuffix('Outer')}Inner"}
    assert schema["properties"] == {
        "a": {"type": "string"},
        "b": {"anyOf": [{"type": "array", "items": inner}, {"type": "null"}]},
        "c": {"anyOf": [{"type": "string", "contentEncoding": "base64"}, {"type": "null"}]},
        "d": {},
        "e": {},
        "f": {
            "anyOf": [
                {"type": "object", "additionalProperties": {"type": "number"}},
                {"type": "null"},
            ]
        },
        "from": {"type": ["string", "null"]},
    }
    assert book.components[f"{name.removesuffix('Outer')}Inner"] == {
        "type": "object",
        "properties": {"type": {"const": "in"}, "size": {"type": "integer"}},
        "required": ["type"],
        "description": "What is inside.",
    }


def test_structs_of_one_name_stay_apart() -> None:
    book = SchemaBook()

    assert book.ref(schemas.Message) != book.ref(schemas_openai.Message)
    assert len({"Message", "OpenAIMessage"} & set(book.components)) == 2


async def test_the_document_is_served(client: MemoryClient, document: Json) -> None:
    reply = await client.get("/api/openapi.json")

    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    assert reply.json == json.loads(json.dumps(document))


EXAMPLES = [key for key, described in ROUTES.items() if described.example is not None]


@pytest.mark.parametrize("key", EXAMPLES)
async def test_examples_are_bodies_that_routes_take(server: MemoryServer, key: str) -> None:
    method, _, path = key.partition(" ")
    server.olm.store.add("reranker")
    server.olm.store.add("mine")

    reply = await server.connect().request(method, path, ROUTES[key].example)

    assert reply.status == 200, reply.text


ANSWERS = [key for key, described in ROUTES.items() if described.response is not None]


@pytest.mark.parametrize("key", ANSWERS)
async def test_answers_fit_their_structs(server: MemoryServer, key: str, document: Json) -> None:
    """What is described is what comes: every field of an answer is in its schema, and the promised ones are there."""
    described = ROUTES[key]
    method, _, path = key.partition(" ")
    server.olm.store.add("reranker")
    if "{response_id}" in path:
        made = await server.connect().post("/v1/responses", {"model": "tiny", "input": "Hello"})
        path = path.replace("{response_id}", str(made.json["id"]))
    body = None if described.example is None else {**described.example, "stream": False}
    if path == "/v1/rerank":
        body = {**(body or {}), "return_documents": True}

    reply = await server.connect().request(method, path.replace("{model}", "tiny"), body)

    assert reply.status == 200, reply.text
    book = SchemaBook()
    check(reply.json, book.ref(cast("type[msgspec.Struct]", described.response)), book)


def check(value: object, schema: Json, book: SchemaBook, where: str = "") -> None:
    """Hold a value against a schema of ours; stricter than JSON Schema: unknown fields fail."""
    if "$ref" in schema:
        schema = book.components[str(schema["$ref"]).rpartition("/")[2]]
    if "anyOf" in schema:
        errors = []
        for option in cast("list[Json]", schema["anyOf"]):
            try:
                return check(value, option, book, where)
            except AssertionError as exc:
                errors.append(str(exc))
        raise AssertionError(f"{where}: {value!r} fits none of {errors}")
    kinds = schema.get("type", [])
    names = [kinds] if isinstance(kinds, str) else cast("list[str]", kinds)
    assert not names or any(_is(value, name) for name in names), f"{where}: {value!r} is no {names}"
    if "const" in schema:
        assert value == schema["const"], where
    if isinstance(value, list) and "items" in schema:
        for item in value:
            check(item, cast("Json", schema["items"]), book, f"{where}[]")
    if isinstance(value, dict) and "properties" in schema:
        properties = cast("dict[str, Json]", schema["properties"])
        assert set(value) <= set(properties), f"{where}: {set(value) - set(properties)}"
        missing = set(cast("list[str]", schema.get("required", []))) - set(value)
        assert not missing, f"{where}: {missing} are missing"
        for key, item in value.items():
            check(item, properties[key], book, f"{where}.{key}")
    return None


def _is(value: object, name: str) -> bool:
    kinds: dict[str, tuple[type, ...]] = {
        "object": (dict,),
        "array": (list,),
        "string": (str,),
        "boolean": (bool,),
        "integer": (int,),
        "number": (int, float),
        "null": (type(None),),
    }
    return isinstance(value, kinds[name]) and (name == "boolean" or not isinstance(value, bool))


async def test_the_page_needs_nothing_from_elsewhere(client: MemoryClient) -> None:
    reply = await client.get("/api/docs")

    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert re.findall(r"""(?:src|href)\s*=\s*["']([^"'#]+)""", reply.text) == []
    assert "http:" not in reply.text
    assert "https:" not in reply.text
    assert "innerHTML" not in reply.text


async def test_the_pages_policy_lets_only_its_own_script_run(client: MemoryClient) -> None:
    import base64
    import hashlib

    reply = await client.get("/api/docs")
    policy = reply.headers["content-security-policy"]

    assert policy.startswith("default-src 'none';")
    for kind in ("script", "style"):
        [text] = re.findall(f"<{kind}>(.*?)</{kind}>", reply.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert " style=" not in reply.text  # the policy would refuse it
    assert re.findall(r"\son\w+=", reply.text) == []


def test_every_route_is_in_the_documentation_with_a_request(routes: set[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    paths = {key.partition(" ")[2] for key in routes}

    assert [path for path in sorted(paths) if f"{path}`" not in text] == []
    assert [path for path in sorted(paths) if f"localhost:11434{_begin(path)}" not in text] == []


def _begin(path: str) -> str:
    return path.partition("{")[0]
