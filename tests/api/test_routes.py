"""Every route: form, field order, what is left out, statuses and error texts."""

from __future__ import annotations

import re

import pytest

from kit.fake_olm import DETAILS, FakeOlm, answer
from kit.memory_http import MemoryClient, Reply
from olm.actors.client import LoadedModel
from olm.actors.jobs_client import Progress
from olm.chat.types import Constraint, Done, Piece
from olm.errors import Busy, InvalidOption, LoadFailed, NotSupported, OlmError

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
JSON = "application/json; charset=utf-8"
ABC = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
MESSAGES = [{"role": "user", "content": "Hello"}]


def masked(reply: Reply) -> str:
    """The text with stamps and measured times made equal."""
    text = STAMP.sub("T", reply.text)
    return re.sub(r'"total_duration":\d+', '"total_duration":1', text)


# --- small ones -----------------------------------------------------------------------------------------------------


async def test_root_says_it_is_running(client: MemoryClient) -> None:
    reply = await client.get("/")

    assert (reply.status, reply.text) == (200, "Ollama is running")
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert "server" not in reply.headers


async def test_version_is_a_recent_ollamas(client: MemoryClient) -> None:
    reply = await client.get("/api/version")

    assert (reply.status, reply.text) == (200, '{"version":"0.33.0"}')
    assert reply.headers["content-type"] == JSON


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/tags"])
async def test_head_is_served_where_ollama_serves_it(client: MemoryClient, path: str) -> None:
    head = await client.request("HEAD", path)
    full = await client.get(path)

    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(full.body))


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("HEAD", "/api/ps", "GET"),
        ("GET", "/api/chat", "POST"),
        ("PUT", "/api/tags", "GET, HEAD"),
        ("POST", "/api/delete", "DELETE"),
        ("POST", "/", "GET, HEAD"),
        ("POST", "/api/version", "GET, HEAD"),
        ("GET", f"/api/blobs/{ABC}", "HEAD, POST"),
    ],
)
async def test_other_methods_are_405(
    client: MemoryClient, method: str, path: str, allow: str
) -> None:
    reply = await client.request(method, path)

    assert (reply.status, reply.headers["allow"]) == (405, allow)


@pytest.mark.parametrize("path", ["/nope", "/api", "//api/tags", "/API/tags", "/api/systemone"])
async def test_unknown_paths_are_404_in_plain_text(client: MemoryClient, path: str) -> None:
    reply = await client.get(path)

    assert (reply.status, reply.text) == (404, "404 page not found")
    assert reply.headers["content-type"] == "text/plain"


@pytest.mark.parametrize(("method", "status"), [("GET", 301), ("HEAD", 307)])
async def test_a_slash_at_the_end_is_redirected(
    client: MemoryClient, method: str, status: int
) -> None:
    reply = await client.request(method, "/api/tags/?a=b")

    assert (reply.status, reply.headers["location"]) == (status, "/api/tags?a=b")


async def test_a_post_is_redirected_with_its_method(client: MemoryClient) -> None:
    reply = await client.post("/api/chat/", {"model": "tiny"})

    assert (reply.status, reply.headers["location"]) == (307, "/api/chat")


async def test_status_says_there_is_no_cloud(client: MemoryClient) -> None:
    reply = await client.get("/api/status")

    assert reply.text == '{"cloud":{"disabled":true,"source":"config"}}'


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        (
            "POST",
            "/api/me",
            403,
            '{"error":"ollama cloud is disabled: account lookup is unavailable"}',
        ),
    ],
)
async def test_what_is_not_there_yet_says_so_in_its_dialect(
    client: MemoryClient, method: str, path: str, status: int, body: str
) -> None:
    reply = await client.request(method, path, {} if method == "POST" else None)

    assert (reply.status, reply.text) == (status, body)


async def test_anthropics_refusal_has_their_envelope(client: MemoryClient) -> None:
    reply = await client.request("POST", "/v1/messages", {}, {"X-Request-Id": "req-7"})

    assert reply.text == (
        '{"type":"error","error":{"type":"invalid_request_error","message":"model is required"},'
        '"request_id":"req-7"}'
    )


# --- models ---------------------------------------------------------------------------------------------------------

DETAILS_JSON = (
    '{"parent_model":"","format":"gguf","family":"llama","families":["llama"],"parameter_size":"2.4M",'
    '"quantization_level":"Q8_0","context_length":2048,"embedding_length":128}'
)


async def test_tags_golden(client: MemoryClient, olm: FakeOlm) -> None:
    digest = olm.store.models["tiny:latest"].digest

    reply = await client.get("/api/tags")

    assert masked(reply) == (
        '{"models":[{"name":"tiny:latest","model":"tiny:latest","modified_at":"T","size":2019393189,'
        f'"digest":"{digest}","details":{DETAILS_JSON},"capabilities":["completion"]}}]}}'
    )


async def test_no_models_is_an_empty_list(client: MemoryClient, olm: FakeOlm) -> None:
    olm.store.models.clear()

    tags, ps = await client.get("/api/tags"), await client.get("/api/ps")

    assert tags.text == ps.text == '{"models":[]}'


@pytest.mark.parametrize("expires_s", [float("inf"), 1e300])
async def test_ps_golden_and_forever(
    client: MemoryClient, olm: FakeOlm, monkeypatch: pytest.MonkeyPatch, expires_s: float
) -> None:
    async def ps() -> list[LoadedModel]:
        return [LoadedModel("tiny:latest", "ab" * 32, DETAILS, 3_000_000, 0, 2048, expires_s)]

    monkeypatch.setattr(olm.models, "ps", ps)

    reply = await client.get("/api/ps")

    assert masked(reply) == (
        f'{{"models":[{{"name":"tiny:latest","model":"tiny:latest","size":3000000,"digest":"{"ab" * 32}",'
        f'"details":{DETAILS_JSON},"expires_at":"T","size_vram":0,"context_length":2048}}]}}'
    )
    year = int(re.search(r'"expires_at":"(\d{4})', reply.text)[1])  # type: ignore[index]
    assert year > 2300


async def test_show_golden(client: MemoryClient) -> None:
    reply = await client.post("/api/show", {"model": "tiny"})

    assert masked(reply) == (
        r'{"license":"MIT","modelfile":"# Modelfile\nFROM tiny:latest\n",'
        r'"parameters":"stop                           \"\u003c|im_end|\u003e\"",'
        '"template":"{{ .Prompt }}",'
        f'"details":{DETAILS_JSON},'
        '"model_info":{"general.architecture":"llama","llama.context_length":2048,"tokenizer.ggml.tokens":null},'
        '"tensors":[{"name":"token_embd.weight","type":"Q8_0","shape":[128,512]}],'
        '"capabilities":["completion"],"modified_at":"T"}'
    )


async def test_show_takes_the_old_name_verbose_and_copilots_wish(client: MemoryClient) -> None:
    reply = await client.request(
        "POST",
        "/api/show",
        {"name": "tiny", "verbose": True},
        {"User-Agent": "GitHubCopilotChat/1.0"},
    )

    info = reply.json["model_info"]
    assert isinstance(info, dict)
    assert info["tokenizer.ggml.tokens"] == ["a", "b"]
    assert info["general.basename"] == "tiny"


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "model is required"),
        ({"model": "nope"}, 404, "model 'nope' not found"),
        ({"model": "x:cloud"}, 403, "ollama cloud is disabled: remote model is unavailable"),
    ],
)
async def test_show_errors(
    client: MemoryClient, body: dict[str, str], status: int, message: str
) -> None:
    reply = await client.post("/api/show", body)

    assert (reply.status, reply.error) == (status, message)


async def test_copy_and_delete_answer_with_nothing(client: MemoryClient, olm: FakeOlm) -> None:
    copied = await client.post("/api/copy", {"source": "tiny", "destination": "mine"})
    deleted = await client.request("DELETE", "/api/delete", {"name": "tiny"})

    assert (copied.status, copied.body) == (deleted.status, deleted.body) == (200, b"")
    assert list(olm.store.models) == ["mine:latest"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"source": "/", "destination": "b"}, 400, 'source "/" is invalid'),
        ({"source": "tiny", "destination": ""}, 400, 'destination "" is invalid'),
        ({"source": "nope", "destination": "b"}, 404, 'model "nope" not found'),
    ],
)
async def test_copy_errors(
    client: MemoryClient, body: dict[str, str], status: int, message: str
) -> None:
    reply = await client.post("/api/copy", body)

    assert (reply.status, reply.error) == (status, message)


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [("..", 400, 'name ".." is invalid'), ("nope", 404, "model 'nope' not found")],
)
async def test_delete_errors(client: MemoryClient, name: str, status: int, message: str) -> None:
    reply = await client.request("DELETE", "/api/delete", {"model": name})

    assert (reply.status, reply.error) == (status, message)


async def test_blobs_are_stored_once(client: MemoryClient, olm: FakeOlm) -> None:
    before = await client.request("HEAD", f"/api/blobs/{ABC}")
    first = await client.request("POST", f"/api/blobs/{ABC}", b"abc")
    again = await client.request("POST", f"/api/blobs/{ABC.replace(':', '-')}", b"abc")
    after = await client.request("HEAD", f"/api/blobs/{ABC}")

    assert [r.status for r in (before, first, again, after)] == [404, 201, 200, 200]
    assert first.body == again.body == b""
    assert olm.store.blobs == {ABC: b"abc"}
    assert olm.store.n_open_writers == 0


async def test_blob_errors(client: MemoryClient) -> None:
    other = "sha256:" + "0" * 64

    mismatch = await client.request("POST", f"/api/blobs/{other}", b"abc")
    malformed = await client.request("POST", "/api/blobs/sha256:xyz", b"abc")
    traversal = await client.request("POST", "/api/blobs/sha256:..%2f..%2fetc", b"abc")

    assert (mismatch.status, mismatch.error) == (
        400,
        f'digest mismatch, expected "{other}", got "{ABC}"',
    )
    assert (malformed.status, malformed.error) == (400, "invalid digest format")
    assert (traversal.status, traversal.error) == (400, "invalid digest format")


# --- chat and generate ----------------------------------------------------------------------------------------------

METRICS = (
    '"total_duration":1,"load_duration":41234567,"prompt_eval_count":11,"prompt_eval_duration":20000000,'
    '"eval_count":2,"eval_duration":18000000'
)


async def test_chat_stream_golden(client: MemoryClient) -> None:
    reply = await client.post("/api/chat", {"model": "tiny", "messages": MESSAGES})

    assert (reply.status, reply.headers["content-type"]) == (200, "application/x-ndjson")
    assert reply.headers["transfer-encoding"] == "chunked"
    assert masked(reply).splitlines(keepends=True) == [
        '{"model":"tiny","created_at":"T","message":{"role":"assistant","content":"Hi"},"done":false}\n',
        '{"model":"tiny","created_at":"T","message":{"role":"assistant","content":" there"},"done":false}\n',
        (
            '{"model":"tiny","created_at":"T","message":{"role":"assistant","content":""},"done":true,'
            f'"done_reason":"stop",{METRICS}}}\n'
        ),
    ]


async def test_generate_stream_golden(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.script = [
        Piece(content="Hi"),
        Done("length", n_prompt=3, n_cached=2, n_generated=1, context=(1, 2, 3)),
    ]
    olm.models.load_ns = 0

    reply = await client.post("/api/generate", {"model": "tiny", "prompt": "Hello"})

    assert masked(reply).splitlines(keepends=True) == [
        '{"model":"tiny","created_at":"T","response":"Hi","done":false}\n',
        (
            '{"model":"tiny","created_at":"T","response":"","done":true,"done_reason":"length","context":[1,2,3],'
            '"total_duration":1,"prompt_eval_count":3,"prompt_eval_cached_count":2,"eval_count":1}\n'
        ),
    ]


async def test_whole_answers_merge_the_events(client: MemoryClient) -> None:
    body = {"model": "tiny", "stream": False, "messages": MESSAGES, "prompt": "Hello"}

    chat, generated = await client.post("/api/chat", body), await client.post("/api/generate", body)

    assert masked(chat) == (
        '{"model":"tiny","created_at":"T","message":{"role":"assistant","content":"Hi there"},"done":true,'
        f'"done_reason":"stop",{METRICS}}}'
    )
    assert masked(generated) == (
        f'{{"model":"tiny","created_at":"T","response":"Hi there","done":true,"done_reason":"stop",{METRICS}}}'
    )
    assert chat.headers["content-type"] == JSON


async def test_html_characters_are_escaped_as_go_does(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.script = answer('<a href="x">&\u2028</a>')

    reply = await client.post("/api/generate", {"model": "tiny", "prompt": "x"})

    assert rb'"response":"\u003ca href=\"x\"\u003e\u0026\u2028\u003c/a\u003e"' in reply.body
    assert reply.lines[0]["response"] == '<a href="x">&\u2028</a>'


async def test_the_model_is_echoed_as_it_was_asked_for(client: MemoryClient) -> None:
    reply = await client.post("/api/generate", {"model": "TINY:latest", "prompt": "x"})

    assert {line["model"] for line in reply.lines} == {"TINY:latest"}


async def test_empty_requests_load_and_unload(client: MemoryClient, olm: FakeOlm) -> None:
    loaded = await client.post("/api/generate", {"model": "tiny", "options": {"num_ctx": 9}})
    chat_loaded = await client.post("/api/chat", {"model": "tiny", "keep_alive": "10m"})
    unloaded = await client.post("/api/generate", {"model": "tiny", "keep_alive": 0})
    chat_unloaded = await client.post("/api/chat", {"model": "tiny", "keep_alive": "0"})

    assert masked(loaded) == (
        '{"model":"tiny","created_at":"T","response":"","done":true,"done_reason":"load"}'
    )
    assert masked(chat_unloaded) == (
        '{"model":"tiny","created_at":"T","message":{"role":"assistant","content":""},"done":true,'
        '"done_reason":"unload"}'
    )
    assert (chat_loaded.json["done_reason"], unloaded.json["done_reason"]) == ("load", "unload")
    assert loaded.headers["content-type"] == JSON
    assert olm.models.requests == [
        ("load", "tiny", {"num_ctx": 9}, None),
        ("load", "tiny", {}, 600.0),
        ("unload", "tiny"),
        ("unload", "tiny"),
    ]


async def test_every_field_reaches_the_model(client: MemoryClient, olm: FakeOlm) -> None:
    await client.post(
        "/api/generate",
        {
            "model": "tiny:local",
            "prompt": "p",
            "suffix": "s",
            "system": "sys",
            "template": "t",
            "context": [1, 2],
            "format": {"type": "object"},
            "keep_alive": -1,
            "images": ["aGk="],
            "options": {"seed": 4096.0},
            "think": "high",
            "truncate": False,
            "shift": False,
            "logprobs": True,
            "top_logprobs": 3,
        },
    )

    (request,) = olm.models.requests
    assert request.model == "tiny"  # type: ignore[attr-defined]
    assert (request.prompt, request.suffix, request.system, request.template) == (
        "p",
        "s",
        "sys",
        "t",
    )  # type: ignore[attr-defined]
    assert (request.context, request.images) == ((1, 2), (b"hi",))  # type: ignore[attr-defined]
    assert request.constraint == Constraint("json_schema", '{"type": "object"}')  # type: ignore[attr-defined]
    assert request.keep_alive_s == float("inf")  # type: ignore[attr-defined]
    assert request.options == {"seed": 4096.0}  # type: ignore[attr-defined]
    assert (request.think, request.truncate, request.shift, request.n_logprobs) == (  # type: ignore[attr-defined]
        "high",
        False,
        False,
        3,
    )


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("generate", b"", 400, "missing request body"),
        ("generate", {}, 404, "model '' not found"),
        ("generate", {"model": "nope", "prompt": "x"}, 404, "model 'nope' not found"),
        ("generate", {"model": "nope"}, 404, "model 'nope' not found"),
        ("generate", {"model": "a b", "prompt": "x"}, 404, "model 'a b' not found"),
        ("generate", {"model": "../x", "prompt": "x"}, 404, "model '../x' not found"),
        ("generate", {"top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
        (
            "generate",
            {"model": "tiny", "prompt": "x", "top_logprobs": -1},
            400,
            "top_logprobs must be between 0 and 20",
        ),
        (
            "generate",
            {"model": "tiny", "prompt": "x", "raw": True, "system": "s"},
            400,
            "raw mode does not support template, system, or context",
        ),
        (
            "generate",
            {"model": "x:cloud", "prompt": "x"},
            403,
            "ollama cloud is disabled: remote model is unavailable",
        ),
        (
            "generate",
            {"model": "x:cloud:local", "prompt": "x"},
            400,
            'use either :local or :cloud, not both: "x:cloud:local"',
        ),
        ("chat", {}, 400, "model is required"),
        ("chat", {"model": "a b"}, 400, "model is required"),
        ("chat", {"model": "nope", "messages": MESSAGES}, 404, "model 'nope' not found"),
        (
            "chat",
            {"model": "tiny", "think": "much"},
            400,
            'invalid think value: "much" (must be "high", "medium", "low", "max", true, or false)',
        ),
        (
            "chat",
            {"model": "tiny", "think": 1},
            400,
            'think must be a boolean or string ("high", "medium", "low", "max", true, or false)',
        ),
        ("chat", {"model": "tiny", "keep_alive": "5"}, 400, 'time: missing unit in duration "5"'),
        ("chat", {"model": "tiny", "keep_alive": []}, 400, "Unsupported type: '[]interface {}'"),
        (
            "embed",
            {"model": "nope", "input": "x"},
            404,
            'model "nope" not found, try pulling it first',
        ),
        ("embed", {"model": "a b", "input": "x"}, 404, "model 'a b' not found"),
        ("embed", {"model": "tiny", "input": [1]}, 400, "invalid input type"),
        ("embed", {"model": "tiny", "input": {"a": 1}}, 400, "invalid input type"),
        ("embeddings", {"prompt": "x"}, 400, "model is required"),
        (
            "embeddings",
            {"model": "nope", "prompt": "x"},
            404,
            'model "nope" not found, try pulling it first',
        ),
        ("create", {}, 400, "invalid model name"),
        ("create", {"model": "a b", "from": "tiny"}, 400, "invalid model name"),
        (
            "create",
            {"model": "x", "from": "tiny", "draft_quantize": "q8_0"},
            400,
            "--draft-quantize requires a DRAFT model",
        ),
        (
            "create",
            {"model": "x", "remote_host": "http://h", "draft_files": {"a": "b"}},
            400,
            "DRAFT cannot be used with remote models",
        ),
        (
            "create",
            {"model": "x", "from": "tiny", "license": ["MIT", 5]},
            400,
            "license must be a string or a list of strings",
        ),
    ],
)
async def test_request_errors(
    client: MemoryClient, path: str, body: object, status: int, message: str
) -> None:
    reply = await client.post(f"/api/{path}", body)

    assert (reply.status, reply.error) == (status, message)
    assert reply.headers["content-type"] == JSON


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (NotSupported('"tiny" does not support chat'), 400, {}),
        (InvalidOption('option "seed" must be of type integer'), 500, {}),
        (LoadFailed("bad weights"), 500, {}),
        (
            Busy(
                "server busy, please try again.  maximum pending requests exceeded", retry_after_s=3
            ),
            503,
            {"retry-after": "3"},
        ),
        (OlmError("request canceled", status=499), 499, {}),
    ],
)
async def test_errors_before_the_first_event_have_their_status(
    client: MemoryClient,
    olm: FakeOlm,
    error: OlmError,
    status: int,
    headers: dict[str, str],
    stream: bool,
) -> None:
    olm.models.enter_error = error

    reply = await client.post(
        "/api/chat", {"model": "tiny", "messages": MESSAGES, "stream": stream}
    )

    assert (reply.status, reply.error) == (status, error.message)
    assert headers.items() <= reply.headers.items()


async def test_a_bug_is_a_500_with_its_id_and_no_secrets(
    client: MemoryClient, olm: FakeOlm, caplog: pytest.LogCaptureFixture
) -> None:
    olm.models.enter_error = RuntimeError("the password is swordfish")

    reply = await client.request(
        "POST", "/api/chat", {"model": "tiny", "messages": MESSAGES}, {"X-Request-Id": "abc-1"}
    )

    assert (reply.status, reply.error) == (500, "internal error, see the log for request abc-1")
    assert "swordfish" in caplog.text


# --- embeddings and create ------------------------------------------------------------------------------------------


async def test_embed_golden(client: MemoryClient, olm: FakeOlm) -> None:
    reply = await client.post("/api/embed", {"model": "tiny", "input": ["a", "b"], "dimensions": 1})

    assert masked(reply) == (
        '{"model":"tiny","embeddings":[[0.01,-0.0017],[0.01,-0.0017]],"total_duration":1,'
        '"load_duration":1019500,"prompt_eval_count":16}'
    )
    (request,) = olm.models.requests
    assert (request.inputs, request.dimensions, request.normalize) == (("a", "b"), 1, True)  # type: ignore[attr-defined]


@pytest.mark.parametrize("given", [None, "", []])
async def test_embed_without_input_only_loads(
    client: MemoryClient, olm: FakeOlm, given: object
) -> None:
    reply = await client.post("/api/embed", {"model": "tiny", "input": given})

    assert reply.text == '{"model":"tiny","embeddings":[]}'
    assert olm.models.requests == [("load", "tiny", {}, None)]


async def test_old_embeddings_are_not_normalised(client: MemoryClient, olm: FakeOlm) -> None:
    full = await client.post("/api/embeddings", {"model": "tiny", "prompt": "a"})
    empty = await client.post("/api/embeddings", {"model": "tiny"})

    assert (full.text, empty.text) == ('{"embedding":[0.01,-0.0017]}', '{"embedding":[]}')
    assert olm.models.requests[0].normalize is False  # type: ignore[attr-defined]


async def test_an_embedding_that_is_no_number_is_an_error(
    client: MemoryClient, olm: FakeOlm
) -> None:
    olm.models.vector = (float("nan"),)

    reply = await client.post("/api/embed", {"model": "tiny", "input": "a"})

    assert (reply.status, reply.error) == (400, "embedding contains NaN or Inf values")


async def test_create_streams_progress(client: MemoryClient, olm: FakeOlm) -> None:
    olm.jobs.script = [
        Progress("quantizing F16 model to Q4_K_M", "0" * 19, total=10, completed=5),
        Progress("success"),
    ]

    reply = await client.post(
        "/api/create",
        {
            "name": "mine",
            "from": "tiny",
            "files": {"a.gguf": ABC},
            "license": "MIT",
            "quantization": "Q4_K_M",
            "parameters": {"stop": ["x"]},
            "messages": MESSAGES,
        },
    )

    assert reply.text.splitlines() == [
        f'{{"status":"quantizing F16 model to Q4_K_M","digest":"{"0" * 19}","total":10,"completed":5}}',
        '{"status":"success"}',
    ]
    (request,) = olm.jobs.requests
    assert (request.model, request.from_, request.files) == ("mine", "tiny", {"a.gguf": ABC})
    assert (request.licenses, request.quantize) == (("MIT",), "Q4_K_M")
    assert request.template is None


async def test_create_takes_links_from_this_machine_only(
    client: MemoryClient, olm: FakeOlm
) -> None:
    body = {"model": "mine", "links": {"w.gguf": "/w.gguf"}, "stream": False}

    assert (await client.post("/api/create", body)).status == 200
    proxied = await client.request("POST", "/api/create", body, {"Via": "1.1 p"})

    assert proxied.status == 403
    assert [request.links for request in olm.jobs.requests] == [{"w.gguf": "/w.gguf"}]


async def test_create_without_stream_tells_the_last_step(client: MemoryClient) -> None:
    reply = await client.post("/api/create", {"model": "mine", "from": "tiny", "stream": False})

    assert (reply.text, reply.headers["content-type"]) == ('{"status":"success"}', JSON)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_failing_job(client: MemoryClient, olm: FakeOlm, stream: bool) -> None:
    olm.jobs.script = [Progress("parsing GGUF"), OlmError("unknown type", status=400)]

    reply = await client.post("/api/create", {"model": "m", "from": "tiny", "stream": stream})

    if stream:
        assert (reply.status, reply.lines[-1]) == (200, {"error": "unknown type"})
    else:
        assert (reply.status, reply.error) == (400, "unknown type")
