"""Who is told what: challenges, logins, tokens, and hosts that nobody named."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from kit.registry import Registry, digest_of, open_registry
from olm.errors import InvalidRequest
from olm.registry.auth import Challenge, choose_proof, parse_challenge, token_url
from olm.registry.client import open_registry as open_client
from olm.registry.credentials import Credentials, Login, read_credentials
from olm.registry.errors import RegistryError
from olm.store.names import Digest

ME = Login("me", "pass:word")
BASIC = "Basic " + base64.b64encode(b"me:pass:word").decode()
ORIGIN = "https://reg.example:5000/v2/a/b"


def bearer(realm: str, scope: str = "repository:a/b:pull,push") -> Challenge:
    return Challenge(realm, "svc", scope)


@pytest.mark.parametrize(
    ("header", "challenge"),
    [
        (
            'Bearer realm="https://x/t",service="svc",scope="repository:a/b:pull,push"',
            bearer("https://x/t"),
        ),
        ('bearer realm="https://x/t"', Challenge("https://x/t")),
        ('Basic realm="Registry, the"', Challenge("Registry, the", scheme="basic")),
        ("Basic", Challenge("", scheme="basic")),
        ('Basic realm="r", Bearer realm="https://x/t"', Challenge("https://x/t")),
        ('Bearer realm="https://x/t", Basic realm="r"', Challenge("https://x/t")),
        ('Bearer service="svc"', None),
        ("Negotiate", None),
        ("", None),
    ],
)
def test_challenges_are_read(header: str, challenge: Challenge | None) -> None:
    assert parse_challenge(header) == challenge


def test_the_key_signs_for_the_registry_itself_only() -> None:
    here, there = bearer("https://reg.example:5000/token"), bearer("https://auth.example/token")

    assert choose_proof(here, ORIGIN, Credentials()) == ("signature", "")
    for other in (there, bearer("https://reg.example/token"), bearer("https://reg.example:1/t")):
        with pytest.raises(RegistryError, match=r'^realm host ".*" does not match original host'):
            choose_proof(other, ORIGIN, Credentials())


def test_a_login_goes_to_its_own_host_only() -> None:
    here, there = bearer("https://reg.example:5000/token"), bearer("https://auth.example/token")
    mine = Credentials({"reg.example:5000": ME})
    theirs = Credentials({"reg.example:5000": ME, "auth.example": Login("other", "x")})
    nothing = Credentials({"reg.example:5000": ME, "auth.example": Login()})

    assert choose_proof(here, ORIGIN, mine) == ("login", BASIC)
    assert choose_proof(there, ORIGIN, theirs) == ("login", Login("other", "x").authorization)
    assert choose_proof(there, ORIGIN, nothing) == ("login", "")
    with pytest.raises(RegistryError, match="does not match"):
        choose_proof(there, ORIGIN, mine)


@pytest.mark.parametrize("realm", ["http://reg.example:5000/token", "file:///etc/passwd", "token"])
def test_a_realm_without_tls_is_refused_where_the_registry_has_it(realm: str) -> None:
    with pytest.raises(RegistryError, match="without TLS"):
        choose_proof(bearer(realm), ORIGIN, Credentials({"reg.example:5000": ME}))


def test_a_token_is_asked_for_with_every_scope() -> None:
    url = token_url(bearer("https://x/t?a=b"), ["p:q", "r:s"])

    assert url == "https://x/t?a=b&scope=p%3Aq&scope=r%3As&service=svc"


def write_logins(path: Path, **auths: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": auths, "credsStore": "desktop"}))


def entry(name: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{name}:{password}".encode()).decode()}


def test_logins_are_read_from_olms_file_and_dockers(tmp_path: Path) -> None:
    home, docker = tmp_path / "home", tmp_path / "docker"
    write_logins(home / "registry-auth.json", **{"a.example": entry("me", "pass:word")})
    write_logins(
        docker / "config.json",
        **{
            "a.example": entry("not", "this"),
            "https://B.example:5000/v2/": {"username": "me", "password": "pass:word"},
            "https://index.docker.io/v1/": entry("hub", "x"),
            "c.example": {},
        },
    )

    found = read_credentials(home, {"DOCKER_CONFIG": str(docker)})

    assert found.find("a.example") == ME
    assert found.find("b.EXAMPLE:5000") == ME
    assert found.find("b.example") is None
    assert found.find("registry-1.docker.io") == Login("hub", "x")
    assert found.find("c.example") == Login()
    assert "pass" not in repr(found)


def test_without_files_there_are_no_logins(tmp_path: Path) -> None:
    user = tmp_path / "user"
    assert read_credentials(tmp_path, {"HOME": str(user)}).logins == {}

    write_logins(user / ".docker" / "config.json", **{"a.example": entry("me", "x")})
    assert read_credentials(tmp_path, {"HOME": str(user)}).find("a.example") == Login("me", "x")


@pytest.mark.parametrize("text", ["{", "[]", '{"auths":{"a":{"auth":"secret!"}}}', '{"auths":3}'])
def test_a_file_that_is_none_is_named_without_its_content(tmp_path: Path, text: str) -> None:
    (tmp_path / "registry-auth.json").write_text(text)

    with pytest.raises(
        RegistryError, match=r"cannot use the logins in .*registry-auth.json"
    ) as bad:
        read_credentials(tmp_path, {})

    assert "secret" not in str(bad.value)


@pytest.fixture
async def registry(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Registry]:
    monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")
    async with open_registry() as opened:
        opened.add("good", [("model", b"weights")])
        yield opened


async def manifest(registry: Registry, home: Path) -> bytes:
    base = f"http://127.0.0.1:{registry.port}/v2/library/good"
    with trio.fail_after(10):
        async with open_client(base, home) as client:
            return await client.manifest("latest")


def told(registry: Registry) -> list[str]:
    return [request.headers.get("authorization", "") for request in registry.requests]


async def test_basic_auth_is_answered_with_the_login(registry: Registry, tmp_path: Path) -> None:
    registry.basic = BASIC
    write_logins(
        tmp_path / "registry-auth.json",
        **{f"127.0.0.1:{registry.port}": entry("me", "pass:word")},
    )

    assert await manifest(registry, tmp_path) == registry.manifests["good"]
    assert told(registry) == ["", BASIC]


async def test_without_a_login_basic_auth_is_a_refusal(registry: Registry, tmp_path: Path) -> None:
    registry.basic = BASIC

    with pytest.raises(RegistryError, match=r"^unauthorized: access denied$"):
        await manifest(registry, tmp_path)
    write_logins(
        tmp_path / "registry-auth.json", **{f"127.0.0.1:{registry.port}": entry("me", "wrong")}
    )
    with pytest.raises(RegistryError, match=r"^unauthorized: access denied$"):
        await manifest(registry, tmp_path)

    assert len(registry.requests) == 3


async def test_a_token_is_asked_for_with_the_login(registry: Registry, tmp_path: Path) -> None:
    registry.needs_token, registry.token_login = True, BASIC
    write_logins(
        tmp_path / "registry-auth.json",
        **{f"127.0.0.1:{registry.port}": entry("me", "pass:word")},
    )

    assert await manifest(registry, tmp_path) == registry.manifests["good"]
    assert told(registry) == ["", BASIC, "Bearer good"]
    assert not (tmp_path / "id_ed25519").exists()


async def test_a_registry_that_knows_no_signatures_is_asked_as_anybody(
    registry: Registry, tmp_path: Path
) -> None:
    registry.needs_token, registry.token_login = True, ""

    assert await manifest(registry, tmp_path) == registry.manifests["good"]
    first, signed, unsigned, last = told(registry)
    assert (first, unsigned, last) == ("", "", "Bearer good")
    assert ":" in signed


async def test_a_realm_elsewhere_gets_nothing_unless_it_is_named(
    registry: Registry, tmp_path: Path
) -> None:
    registry.needs_token, registry.token_login = True, BASIC
    registry.realm = f"http://127.0.0.1:{registry.direct_port}/token"
    logins = tmp_path / "registry-auth.json"
    write_logins(logins, **{f"127.0.0.1:{registry.port}": entry("me", "secret")})

    with pytest.raises(RegistryError, match=f"name 127.0.0.1:{registry.direct_port} among the log"):
        await manifest(registry, tmp_path)
    assert told(registry) == [""]

    write_logins(logins, **{f"127.0.0.1:{registry.direct_port}": entry("me", "pass:word")})
    assert await manifest(registry, tmp_path) == registry.manifests["good"]
    assert told(registry) == ["", "", BASIC, "Bearer good"]


async def test_redirects_carry_no_login(registry: Registry, tmp_path: Path) -> None:
    registry.basic, registry.redirects = BASIC, True
    write_logins(
        tmp_path / "registry-auth.json",
        **{f"127.0.0.1:{registry.port}": entry("me", "pass:word")},
    )
    base = f"http://127.0.0.1:{registry.port}/v2/library/good"

    digest = Digest.parse(digest_of(b"weights"))
    async with open_client(base, tmp_path) as client, client.blob(digest, None) as pieces:
        data = b"".join([piece async for piece in pieces])

    assert data == b"weights"
    assert told(registry) == ["", BASIC, ""]


async def test_certificates_that_are_none_are_named(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tmp_path / "none.pem", tmp_path / "bad.pem"):
        (tmp_path / "bad.pem").write_text("no certificate")
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        with pytest.raises(InvalidRequest, match=f"^cannot read the certificates of {path}: "):
            await manifest(registry, tmp_path)
