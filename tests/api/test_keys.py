"""API keys: the file, the table of scopes against the routes, the rules as a table, and answers in every dialect."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from quart import Quart

from kit import memory_http
from kit.fake_olm import FakeOlm
from kit.memory_http import MemoryServer, open_memory_server, settings_for_tests
from olm.api.app import create_app
from olm.api.auth import Client, Need, Rules, check, is_this_machine, peer_name, scope_of
from olm.api.errors import Forbidden, Unauthorized
from olm.api.keys import CHECK_S, Key, Keyring, add_key, read_keys, remove_key
from olm.config import Settings
from olm.errors import InvalidRequest, NotFound, OlmError

NOW = "2026-01-02T03:04:05+00:00"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "keys.json"


# --- the file -------------------------------------------------------------------------------------------------------


def test_a_key_is_found_by_itself_only_and_not_kept(path: Path) -> None:
    secret = add_key(path, "alice", ["manage", "infer"], created_at=NOW)
    other = add_key(path, "bob", ["metrics"], created_at=NOW)

    ring = Keyring(path)
    found = ring.find(secret.encode())
    assert found is not None
    assert (found.name, found.scopes, found.created_at) == ("alice", ("infer", "manage"), NOW)
    assert ring.find(secret[:-1].encode()) is None
    assert ring.find(b"") is None
    assert re.fullmatch(r"olm-[A-Za-z0-9_-]{43}", secret)
    assert other != secret
    assert secret not in path.read_text()


def test_the_file_is_its_owners_alone(path: Path) -> None:
    add_key(path, "alice", ["infer"], created_at=NOW)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["keys.json"]


def test_keys_are_removed_by_name(path: Path) -> None:
    add_key(path, "alice", ["infer"], created_at=NOW)
    add_key(path, "bob", ["infer"], created_at=NOW)

    assert remove_key(path, "alice") == 1
    keys = read_keys(path)
    assert keys is not None
    assert [key.name for key in keys] == ["bob"]
    with pytest.raises(NotFound, match="no key named 'alice'"):
        remove_key(path, "alice")


def test_a_name_is_taken_once(path: Path) -> None:
    add_key(path, "alice", ["infer"], created_at=NOW)

    with pytest.raises(InvalidRequest, match="'alice' already"):
        add_key(path, "alice", ["manage"], created_at=NOW)


@pytest.mark.parametrize("name", ["", "local", "127.0.0.1", "a b", "::1", "1st", "a" * 65, "ä"])
def test_names_that_could_be_taken_for_something_else(path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot name a key"):
        add_key(path, name, ["infer"], created_at=NOW)


def test_a_key_without_scopes_is_refused(path: Path) -> None:
    with pytest.raises(InvalidRequest, match="needs a scope"):
        add_key(path, "alice", [], created_at=NOW)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a file of API keys"),
        ("{", "not a file of API keys"),
        ('{"keys":[{"name":"a","sha256":"' + "0" * 64 + '","scopes":["root"]}]}', "'root'"),
        ('{"keys":[{"name":"a","sha256":"00","scopes":[]}]}', "64 hex digits"),
        ('{"keys":[{"name":"1.2.3.4","sha256":"' + "0" * 64 + '","scopes":[]}]}', "cannot name"),
        ('{"keys":[],"verison":1}', "verison"),
        (" " * (1 << 20) + "{}", "too large"),
    ],
)
def test_a_damaged_file_is_no_file_without_keys(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)

    with pytest.raises(OlmError, match=re.escape(words)):
        Keyring(path)


def test_a_file_that_others_can_write_is_refused(path: Path) -> None:
    add_key(path, "alice", ["infer"], created_at=NOW)
    path.chmod(0o620)

    with pytest.raises(InvalidRequest, match="chmod go-w"):
        Keyring(path)


def test_a_device_is_refused_without_being_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "keys.json", 0o600)

    with pytest.raises(InvalidRequest, match="is not a file"):
        Keyring(tmp_path / "keys.json")


# --- while the server runs ------------------------------------------------------------------------------------------


def test_a_running_server_notices_new_and_removed_keys(path: Path) -> None:
    ring = Keyring(path)
    assert not ring.exists

    secret = add_key(path, "alice", ["infer"], created_at=NOW).encode()
    ring.refresh(0.0)
    assert ring.find(secret)

    remove_key(path, "alice")
    ring.refresh(CHECK_S / 2)
    assert ring.find(secret), "the file is looked at once a second"
    ring.refresh(CHECK_S)
    assert ring.find(secret) is None
    assert ring.exists, "a file without keys lets nobody in"


def test_accidents_with_the_file_do_not_open_the_server(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = add_key(path, "alice", ["infer"], created_at=NOW).encode()
    ring = Keyring(path)

    path.write_text("half a fi")
    ring.refresh(0.0)
    assert ring.find(secret)
    path.unlink()
    ring.refresh(2.0)
    assert ring.exists
    assert ring.find(secret)

    assert "stay as they were" in caplog.text
    assert "has gone" in caplog.text


def test_a_bad_file_is_complained_about_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add_key(path, "alice", ["infer"], created_at=NOW)
    ring = Keyring(path)
    path.write_text("half a fi")

    for second in range(5):
        ring.refresh(float(second))

    assert caplog.text.count("stay as they were") == 1


# --- scopes ---------------------------------------------------------------------------------------------------------


def _rules() -> Iterator[tuple[str, str]]:
    api = create_app(FakeOlm().clients, settings_for_tests())
    quart = api._inner
    assert isinstance(quart, Quart)
    for rule in quart.url_map.iter_rules():
        for method in rule.methods or ():
            yield method, re.sub("<[^>]*>", "some/thing", rule.rule)


def test_every_route_is_in_the_table() -> None:
    missing = [(method, path) for method, path in _rules() if scope_of(method, path) is None]

    assert missing == []


def test_only_these_routes_are_public() -> None:
    public = {path for method, path in _rules() if scope_of(method, path) == "public"}

    assert public <= {
        "/", "/health", "/v1/health", "/ready", "/api/version", "/api/openapi.json", "/api/docs",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "need"),
    [
        ("GET", "/", "public"),
        ("POST", "/api/chat", "infer"),
        ("POST", "/v1/messages", "infer"),
        ("GET", "/api/tags", "read"),
        ("POST", "/api/show", "read"),
        ("GET", "/v1/models/org/name", "read"),
        ("DELETE", "/v1/models/name", "manage"),
        ("GET", "/v1/responses/resp_1", "infer"),
        ("POST", "/api/blobs/sha256:0", "manage"),
        ("HEAD", "/api/blobs/sha256:0", "manage"),
        ("DELETE", "/api/delete", "manage"),
        ("GET", "/metrics", "metrics"),
        ("POST", "/api/pull/", None),
        ("POST", "/API/PULL", None),
        ("GET", "/nowhere", None),
    ],
)
def test_scopes(method: str, path: str, need: Need | None) -> None:
    assert scope_of(method, path) == need


# --- the rules ------------------------------------------------------------------------------------------------------

HERE = Client(is_local=True)
ELSEWHERE = Client(is_local=False)


def with_key(*scopes: str, is_local: bool = False) -> Client:
    key = Key("alice", "0" * 64, scopes)  # type: ignore[arg-type]  # plain strings of the table
    return Client(is_local=is_local, presented=True, key=key)


WRONG = Client(is_local=False, presented=True)

# client, need, has_keys, rules, status
TABLE: list[tuple[Client, Need | None, bool, Rules, int]] = [
    (HERE, "manage", False, Rules(), 0),
    (HERE, "manage", True, Rules(), 0),
    (HERE, "infer", True, Rules(require_keys=True), 401),
    (HERE, "infer", False, Rules(require_keys=True), 401),
    (HERE, "public", True, Rules(require_keys=True), 0),
    (with_key("metrics", is_local=True), "manage", True, Rules(), 0),
    (with_key("metrics", is_local=True), "manage", True, Rules(require_keys=True), 403),
    (ELSEWHERE, "infer", False, Rules(), 0),
    (ELSEWHERE, "read", False, Rules(), 0),
    (ELSEWHERE, "metrics", False, Rules(), 0),
    (ELSEWHERE, "manage", False, Rules(), 403),
    (ELSEWHERE, None, False, Rules(), 0),
    (ELSEWHERE, "manage", False, Rules(allow_open=True), 0),
    (ELSEWHERE, "manage", True, Rules(allow_open=True), 401),
    (ELSEWHERE, "public", True, Rules(), 0),
    (ELSEWHERE, "infer", True, Rules(), 401),
    (ELSEWHERE, None, True, Rules(), 401),
    (WRONG, "infer", True, Rules(), 401),
    (WRONG, "infer", False, Rules(), 0),
    (with_key("infer"), "infer", True, Rules(), 0),
    (with_key("infer"), "read", True, Rules(), 0),
    (with_key("infer"), None, True, Rules(), 0),
    (with_key("infer"), "manage", True, Rules(), 403),
    (with_key("infer"), "metrics", True, Rules(), 403),
    (with_key("manage"), "manage", True, Rules(), 0),
    (with_key("manage"), "read", True, Rules(), 0),
    (with_key("manage"), "infer", True, Rules(), 403),
    (with_key("metrics"), "metrics", True, Rules(), 0),
    (with_key("metrics"), "read", True, Rules(), 403),
]


@pytest.mark.parametrize(("client", "need", "has_keys", "rules", "status"), TABLE)
def test_rules(
    client: Client, need: Need | None, has_keys: bool, rules: Rules, status: int
) -> None:
    found = 0
    try:
        check(need, client, rules, has_keys=has_keys)
    except (Unauthorized, Forbidden) as exc:
        found = exc.http_status

    assert found == status


@pytest.mark.parametrize(
    ("host", "peer", "is_local"),
    [
        (None, "local", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.9.9.9", "127.9.9.9", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("::1", "::1", True),
        ("::ffff:203.0.113.9", "203.0.113.9", False),
        ("192.168.1.2", "192.168.1.2", False),
        ("::ffff:0:127.0.0.1", "0:127.0.0.1", False),
        ("fe80::1", "fe80::1", False),
    ],
)
def test_who_sits_on_this_machine(host: str | None, peer: str, is_local: bool) -> None:
    assert peer_name(host) == peer
    assert is_this_machine(peer) is is_local


# --- over HTTP ------------------------------------------------------------------------------------------------------


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every client comes from elsewhere."""
    monkeypatch.setattr(
        memory_http._Socket, "getpeername", lambda _self: ("203.0.113.9", 50000), raising=True
    )


def settings(path: Path, *, require_keys: bool = False, allow_open: bool = False) -> Settings:
    open_to_all = settings_for_tests("0.0.0.0")
    return attrs.evolve(
        open_to_all, api_keys=path, require_keys=require_keys, allow_open=allow_open
    )


async def status(server: MemoryServer, method: str, where: str, **headers: str) -> int:
    return (await server.connect().request(method, where, b"{}", headers)).status


@pytest.mark.usefixtures("peer")
async def test_elsewhere_a_key_opens_what_its_scope_says(path: Path) -> None:
    secret = add_key(path, "alice", ["infer"], created_at=NOW)
    bearer = {"Authorization": f"Bearer {secret}"}
    async with open_memory_server(settings=settings(path)) as server:
        assert await status(server, "GET", "/api/tags") == 401
        assert await status(server, "GET", "/api/tags", **bearer) == 200
        assert await status(server, "GET", "/api/tags", **{"X-API-Key": secret}) == 200
        assert await status(server, "GET", "/api/tags", Authorization=f"bearer {secret}") == 200
        assert await status(server, "GET", "/api/tags", Authorization=secret) == 401
        assert await status(server, "GET", "/api/tags", Authorization=f"Bearer {secret}x") == 401
        assert await status(server, "DELETE", "/api/delete", **bearer) == 403
        assert await status(server, "POST", "/api/blobs/sha256:" + "0" * 64, **bearer) == 403
        assert await status(server, "GET", "/api/version") == 200
        assert await status(server, "GET", "/nowhere") == 401
        assert await status(server, "GET", "/nowhere", **bearer) == 404


@pytest.mark.usefixtures("peer")
async def test_refusals_take_the_form_of_the_dialect(path: Path) -> None:
    secret = add_key(path, "alice", ["metrics"], created_at=NOW)
    wrong = {"Authorization": "Bearer ollama"}
    async with open_memory_server(settings=settings(path)) as server:
        client = server.connect()
        ollama = await client.request("POST", "/api/chat", {}, wrong)
        openai = await client.request("POST", "/v1/chat/completions", {}, wrong)
        scope = await client.request(
            "POST", "/v1/chat/completions", {}, {"Authorization": f"Bearer {secret}"}
        )
        anthropic = await client.request("POST", "/v1/messages", {}, {"x-api-key": "x"})

    assert ollama.status == openai.status == anthropic.status == 401
    assert ollama.headers["www-authenticate"] == "Bearer"
    assert ollama.json == {"error": "invalid API key"}
    assert openai.json == {
        "error": {
            "message": "invalid API key",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_api_key",
        }
    }
    assert scope.status == 403
    assert "lacks the scope infer" in scope.text
    assert '"code":"missing_scope"' in scope.text
    assert anthropic.json["type"] == "error"
    assert '"type":"authentication_error"' in anthropic.text


@pytest.mark.usefixtures("peer")
async def test_without_keys_strangers_infer_and_change_nothing(path: Path) -> None:
    async with open_memory_server(settings=settings(path)) as server:
        client = server.connect()
        refused = await client.request("DELETE", "/api/delete", {"model": "tiny"})
        assert await status(server, "GET", "/api/tags", Authorization="Bearer ollama") == 200
        for where in ("/api/pull", "/api/push", "/api/create", "/api/copy"):
            assert await status(server, "POST", where) == 403
        assert await status(server, "POST", "/api/blobs/sha256:" + "0" * 64) == 403
        assert await status(server, "GET", "/v1/models/tiny") == 200, "it is still there"

    assert refused.status == 403
    assert "olm keys add" in refused.error
    assert "OLM_ALLOW_OPEN=1" in refused.error


@pytest.mark.usefixtures("peer")
async def test_allow_open_lets_strangers_change_models(path: Path) -> None:
    async with open_memory_server(settings=settings(path, allow_open=True)) as server:
        answered = await server.connect().request("DELETE", "/api/delete", {"model": "tiny"})

    assert answered.status == 200


async def test_this_machine_needs_no_key_and_any_key_will_do(path: Path) -> None:
    add_key(path, "alice", ["metrics"], created_at=NOW)
    async with open_memory_server(settings=settings(path)) as server:
        assert await status(server, "GET", "/api/tags") == 200
        assert await status(server, "GET", "/api/tags", Authorization="Bearer ollama") == 200


async def test_this_machine_needs_a_key_where_told_so(path: Path) -> None:
    async with open_memory_server(settings=settings(path, require_keys=True)) as server:
        assert await status(server, "GET", "/api/tags") == 401
        assert await status(server, "GET", "/health") == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "198.51.100.1"},
        {"Forwarded": "for=198.51.100.1"},
        {"Via": "1.1 proxy"},
        {"Host": "rebound.example.com"},
    ],
)
async def test_what_comes_through_a_proxy_or_by_a_foreign_name_is_not_local(
    path: Path, headers: dict[str, str]
) -> None:
    async with open_memory_server(settings=settings(path)) as server:
        assert await status(server, "POST", "/api/copy", **headers) == 403
        assert await status(server, "GET", "/api/tags", **headers) == 200


@pytest.mark.parametrize("where", ["http://localhost/api/copy", "/api/%63opy", "//api/copy"])
@pytest.mark.usefixtures("peer")
async def test_other_spellings_of_a_path_do_not_pass_by_the_rules(path: Path, where: str) -> None:
    async with open_memory_server(settings=settings(path)) as server:
        assert await status(server, "POST", where) in (403, 404)


async def test_a_preflight_needs_no_key(path: Path) -> None:
    async with open_memory_server(settings=settings(path, require_keys=True)) as server:
        assert await status(server, "OPTIONS", "/api/chat", Origin="http://localhost:3000") == 204


@pytest.mark.usefixtures("peer")
async def test_the_name_of_the_key_is_who_the_client_is(path: Path) -> None:
    secret = add_key(path, "alice", ["infer"], created_at=NOW)
    seen: list[str] = []
    async with open_memory_server(settings=settings(path)) as server:
        server.api.gate.watch(lambda call: seen.append(call.client))
        await status(server, "GET", "/api/tags", Authorization=f"Bearer {secret}")
        await status(server, "GET", "/api/tags")

    assert seen == ["alice", "203.0.113.9"]
