"""Registries by name, without a network: a proxy that leads each host to a registry of the test's, which speaks TLS."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from kit.certificates import make_certificate
from kit.proxy import Proxy, open_proxy
from kit.registry import Fault, Registry, digest_of, open_registry
from olm.actors.jobs import Jobs
from olm.actors.jobs_client import PullRequest, PushRequest
from olm.actors.runtime import SupervisorSpec, open_supervisor
from olm.actors.store import Store, store_spec
from olm.errors import InvalidRequest, OlmError
from olm.registry.errors import RegistryError
from store.conftest import Shop
from store.gguf_files import model

GGUF = model()
CONFIG = b'{"model_format":"gguf","model_family":"llama"}'
NAME = "hf.co/Some-Org/Model.v1-GGUF:Q4_K_M"


@pytest.fixture
async def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Registry]:
    files = make_certificate(tmp_path, "hf", "hf.co", "reg.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    monkeypatch.setenv("SSL_CERT_FILE", str(files.cert))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    async with open_registry(context) as opened:
        opened.add("Model.v1-GGUF", [("model", GGUF)], CONFIG)
        yield opened


@pytest.fixture
async def proxy(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    for name in ("HTTP_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with open_proxy() as opened:
        opened.hosts = {"hf.co:443": registry.port, "reg.example:443": registry.port}
        monkeypatch.setenv("HTTPS_PROXY", opened.url)
        yield opened


@asynccontextmanager
async def open_jobs(root: Path) -> AsyncIterator[Shop]:
    async with open_supervisor(children=[store_spec(root), SupervisorSpec("jobs")]) as top:
        store = Store(top.address("store"), root)
        yield Shop(store, Jobs(top.supervisor("jobs"), store), root)


@pytest.fixture
async def jobs(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_jobs(tmp_path / "models") as opened:
        yield opened


async def pull(jobs: Shop, name: str) -> None:
    with trio.fail_after(20):
        async with jobs.jobs.pull(PullRequest(name)) as steps:
            async for _ in steps:
                pass


async def push(jobs: Shop, name: str) -> None:
    with trio.fail_after(20):
        async with jobs.jobs.push(PushRequest(name)) as steps:
            async for _ in steps:
                pass


async def test_a_model_of_hugging_face_is_pulled_through_a_proxy(
    jobs: Shop, registry: Registry, proxy: Proxy
) -> None:
    await pull(jobs, NAME)

    first = registry.requests[0]
    found = await jobs.store.get("hf.co/some-org/model.v1-gguf:q4_k_m")
    assert first.path == "/v2/Some-Org/Model.v1-GGUF/manifests/Q4_K_M"
    assert first.headers["user-agent"].startswith("ollama/")  # Hugging Face goes by it
    assert first.headers["accept"].startswith(
        "application/vnd.docker.distribution.manifest.v2+json"
    )
    assert {request.headers["host"] for request in registry.requests} == {"hf.co"}
    assert found.full_name == NAME
    assert found.weights.read_bytes() == GGUF
    assert set(proxy.log) == {("CONNECT", "hf.co:443")}


async def test_a_push_goes_through_the_proxy_too(
    jobs: Shop, registry: Registry, proxy: Proxy
) -> None:
    await pull(jobs, NAME)
    await jobs.store.copy(NAME, "reg.example/me/copy:v1")
    registry.blobs.clear()

    await push(jobs, "reg.example/me/copy:v1")

    assert registry.manifests["copy"] == registry.manifests["Model.v1-GGUF"]
    assert set(registry.blobs) == {digest_of(GGUF), digest_of(CONFIG)}
    assert ("CONNECT", "reg.example:443") in proxy.log


async def test_a_proxy_may_want_a_password(
    jobs: Shop, registry: Registry, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.wants = "Basic bWU6c2VjcmV0"
    with pytest.raises(RegistryError, match="407") as refused:
        await pull(jobs, NAME)
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret@127.0.0.1:{proxy.port}")

    await pull(jobs, NAME)

    assert "secret" not in str(refused.value)


async def test_this_machine_needs_no_proxy(jobs: Shop, registry: Registry, proxy: Proxy) -> None:
    registry.manifests["tiny"] = registry.manifests["Model.v1-GGUF"]

    await pull(jobs, f"localhost:{registry.port}/library/tiny")

    assert proxy.log == []


async def test_plain_requests_go_through_the_proxy_of_http(
    jobs: Shop, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_registry() as plain:
        plain.add("good", [("model", GGUF)], CONFIG)
        proxy.hosts["plain.example:80"] = plain.port
        monkeypatch.setenv("HTTP_PROXY", proxy.url)

        with trio.fail_after(20):
            async with jobs.jobs.pull(
                PullRequest("http://plain.example/library/good", insecure=True)
            ) as steps:
                async for _ in steps:
                    pass

    assert ("GET", "http://plain.example/v2/library/good/manifests/latest") in proxy.log


@pytest.mark.parametrize("faults", [[], ["reset", "500"]], ids=["well", "badly"])
async def test_http_1_0_is_enough_for_a_pull(jobs: Shop, faults: list[Fault]) -> None:
    async with open_registry() as old:
        old.is_old = True
        old.add("good", [("model", GGUF)], CONFIG)
        old.faults.extend(faults)

        with trio.fail_after(30):
            async with jobs.jobs.pull(PullRequest(old.name("good"), insecure=True)) as steps:
                async for _ in steps:
                    pass

    assert (jobs.root / "blobs" / digest_of(GGUF).replace(":", "-")).read_bytes() == GGUF


async def test_a_proxy_that_cannot_be_used_is_one_line(
    jobs: Shop, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1")

    with pytest.raises(InvalidRequest, match=r"cannot use the proxy 'socks5://127.0.0.1:1'"):
        await pull(jobs, NAME)


async def test_a_certificate_that_nobody_trusts_is_said_to_be(
    jobs: Shop, registry: Registry, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")

    with pytest.raises(
        OlmError, match=": the server's certificate is not trusted: self-signed certificate"
    ):
        await pull(jobs, NAME)

    assert registry.requests == []
