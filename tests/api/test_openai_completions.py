"""OpenAI's completions: prompts of every kind, several answers, echoes, log-probabilities, chunks and documents."""

from __future__ import annotations

import json
import re

import pytest

from kit.fake_olm import FakeOlm, Step, answer
from kit.memory_http import MemoryClient, Reply
from olm.actors.client import ChatRequest, GenerateRequest, RenderedPrompt
from olm.chat.types import Constraint, Done, Piece, TokenLogprob, TopLogprob
from olm.errors import RunnerCrashed

HEAD = 'data: {"id":"cmpl-X","object":"text_completion","created":1,"choices":['
TAIL = ',"model":"tiny","system_fingerprint":"fp_ollama"'
DONE = "data: [DONE]"
DETAILS = '"prompt_tokens_details":{"cached_tokens":0}}'


def masked(reply: Reply) -> str:
    """The body, with its id and time taken out."""
    text = re.sub(r'"id":"cmpl-[0-9a-f]{24}"', '"id":"cmpl-X"', reply.text)
    return re.sub(r'"created":\d{10}', '"created":1', text)


def frame(text: str, *, index: int = 0, finish: str = "null", more: str = "") -> str:
    return f'{HEAD}{{"text":"{text}","index":{index},"finish_reason":{finish}{more}}}]{TAIL}}}'


async def complete(client: MemoryClient, **fields: object) -> dict[str, object]:
    """Send a completion; its whole answer."""
    reply = await client.post("/v1/completions", {"model": "tiny", "prompt": "Once", **fields})
    assert reply.status == 200, reply.text
    return reply.json


async def texts(client: MemoryClient, **fields: object) -> list[tuple[object, object]]:
    """Send a completion; index and text of its choices."""
    choices = (await complete(client, **fields))["choices"]
    assert isinstance(choices, list)
    return [(choice["index"], choice["text"]) for choice in choices]


async def stream(client: MemoryClient, **fields: object) -> list[str]:
    body = {"model": "tiny", "prompt": "Once", "stream": True, **fields}
    reply = await client.post("/v1/completions", body)
    assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream")
    return masked(reply)[:-2].split("\n\n")


async def ask(client: MemoryClient, olm: FakeOlm, **fields: object) -> GenerateRequest:
    """Send a completion and return what the models were asked."""
    olm.models.requests.clear()
    await complete(client, **fields)
    (request,) = olm.models.requests
    assert isinstance(request, GenerateRequest)
    return request


def echoing(request: ChatRequest | GenerateRequest) -> list[Step]:
    """Answer with the prompt, in brackets."""
    assert isinstance(request, GenerateRequest)
    return answer(f"[{request.prompt or list(request.prompt_tokens)}]")


# --- forms ------------------------------------------------------------------------------------------------------------


async def test_a_document(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.script = [
        Piece(thinking="Hm."),
        Piece("Hi"),
        Piece(" <there>"),
        Done("length", n_prompt=4, n_generated=2),
    ]

    reply = await client.post("/v1/completions", {"model": "tiny", "prompt": "Once"})

    assert masked(reply) == (
        '{"id":"cmpl-X","object":"text_completion","created":1,"model":"tiny","system_fingerprint":"fp_ollama",'
        '"choices":[{"text":"Hi \\u003cthere\\u003e","index":0,"finish_reason":"length"}],'
        f'"usage":{{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6,{DETAILS}}}'
    )


async def test_a_stream(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.script = [Piece(thinking="Hm."), *answer("Hi", " <there>")]

    frames = await stream(client)
    with_usage = await stream(client, stream_options={"include_usage": True})

    assert frames == [
        frame("Hi"),
        frame(" \\u003cthere\\u003e"),
        frame("", finish='"stop"'),
        DONE,
    ]
    usage = f'{{"prompt_tokens":11,"completion_tokens":2,"total_tokens":13,{DETAILS}'
    assert with_usage == [*frames[:-1], f'{HEAD}]{TAIL},"usage":{usage}}}', DONE]


async def test_an_error_in_a_stream_is_its_last_frame(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.script = [Piece("Hi"), RunnerCrashed("the worker died")]

    frames = await stream(client)

    assert frames == [
        frame("Hi"),
        'data: {"error":{"message":"the worker died","type":"api_error","param":null,"code":null}}',
    ]


async def test_a_prompt_can_be_rendered_without_being_sent(
    client: MemoryClient, olm: FakeOlm
) -> None:
    olm.models.rendered = RenderedPrompt("<|user|>Once")

    answered = await complete(client, _debug_render_only=True)

    assert answered["_debug_info"] == {"rendered_template": "<|user|>Once"}
    assert [isinstance(request, tuple) for request in olm.models.requests] == [True]


# --- prompts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("Once", ["[Once]"]),
        (["a", "b"], ["[a]", "[b]"]),
        ([1, 2], ["[[1, 2]]"]),
        ([[1, 2], [3]], ["[[1, 2]]", "[[3]]"]),
        ("", ["[[]]"]),
        (None, ["[[]]"]),
    ],
)
async def test_prompts_of_every_kind(
    client: MemoryClient, olm: FakeOlm, prompt: object, wanted: list[str]
) -> None:
    olm.models.respond = echoing

    assert await texts(client, prompt=prompt) == list(enumerate(wanted))


async def test_texts_go_through_the_template_and_tokens_do_not(
    client: MemoryClient, olm: FakeOlm
) -> None:
    requests = [
        await ask(client, olm, prompt="Once"),
        await ask(client, olm, prompt="Once", raw=True),
        await ask(client, olm, prompt=[5]),
    ]

    assert [request.raw for request in requests] == [False, True, True]
    assert requests[2].prompt_tokens == (5,)


@pytest.mark.parametrize(
    "prompt",
    [5, {}, True, [], [[]], ["a", 1], [1, "a"], [[1], []], [[1], 2], [True], [1.5], [None]],
)
async def test_prompts_that_are_refused(client: MemoryClient, olm: FakeOlm, prompt: object) -> None:
    reply = await client.post("/v1/completions", {"model": "tiny", "prompt": prompt})

    error = reply.json["error"]
    assert isinstance(error, dict)
    assert (reply.status, error["param"], olm.models.requests) == (400, "prompt", [])
    assert error["message"].startswith(
        "prompt must be a string, a list of strings, a list of tokens"
    )


# --- fields -----------------------------------------------------------------------------------------------------------


async def test_fields_reach_the_models(client: MemoryClient, olm: FakeOlm) -> None:
    request = await ask(
        client,
        olm,
        suffix="end",
        max_tokens=3,
        temperature=0.5,
        stop=["a", "b"],
        seed=4,
        logit_bias={"3": 1},
        min_p=0.1,
        keep_alive=60,
        reasoning_effort="none",
        guided_regex="a+",
        logprobs=2,
    )

    assert request == GenerateRequest(
        model="tiny",
        prompt="Once",
        suffix="end",
        constraint=Constraint("regex", "a+"),
        think=False,
        options={
            "num_predict": 3,
            "temperature": 0.5,
            "min_p": 0.1,
            "seed": 4,
            "logit_bias": {"3": 1.0},
            "stop": ("a", "b"),
        },
        keep_alive_s=60.0,
        n_logprobs=2,
    )
    assert await ask(client, olm) == GenerateRequest(model="tiny", prompt="Once")


@pytest.mark.parametrize(
    ("fields", "status", "message", "param"),
    [
        ({"stop": [1]}, 400, "invalid type for 'stop' field: float64", "stop"),
        ({"stop": 1}, 400, "invalid type for 'stop' field: float64", "stop"),
        ({"n": 0}, 400, "n must be between 1 and 16", "n"),
        ({"best_of": 17}, 400, "best_of must be between 1 and 16", "best_of"),
        ({"n": 2, "best_of": 1}, 400, "best_of must not be smaller than n", "best_of"),
        (
            {"best_of": 2, "stream": True},
            400,
            "best_of cannot be streamed: the best is known at the end",
            "best_of",
        ),
        ({"logprobs": 21}, 400, "logprobs must be between 0 and 20", "logprobs"),
        (
            {"echo": True, "logprobs": 0},
            400,
            "echo with logprobs is not supported yet: there are no log-probabilities of a prompt",
            "echo",
        ),
        (
            {"suffix": "x", "raw": True},
            400,
            "suffix needs the model's template: it cannot be combined with raw or with tokens",
            "suffix",
        ),
        (
            {"suffix": "x", "prompt": [1]},
            400,
            "suffix needs the model's template: it cannot be combined with raw or with tokens",
            "suffix",
        ),
        ({"prompt": ["a"] * 17, "n": 16}, 400, "a request may have at most 256 answers", "prompt"),
        ({"prompt": [1, -1]}, 400, "prompt: -1 is not a token", "prompt"),
        ({"prompt": [[1 << 31]]}, 400, "prompt: 2147483648 is not a token", "prompt"),
        ({"model": ""}, 404, "model '' not found", "model"),
        ({"model": "a/b/c/d"}, 404, "model 'a/b/c/d' not found", "model"),
        (
            {"logprobs": True},
            400,
            "json: cannot unmarshal bool into Go struct field CompletionRequest.logprobs of type int",
            None,
        ),
    ],
)
async def test_values_that_are_refused(
    client: MemoryClient,
    olm: FakeOlm,
    fields: dict[str, object],
    status: int,
    message: str,
    param: str | None,
) -> None:
    reply = await client.post("/v1/completions", {"model": "tiny", "prompt": "Once", **fields})

    error = reply.json["error"]
    assert isinstance(error, dict)
    assert (reply.status, error["message"], error["param"]) == (status, message, param)
    assert olm.models.requests == []


# --- several answers --------------------------------------------------------------------------------------------------


async def test_choices_are_numbered_prompt_by_prompt(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.respond = echoing

    answered = await complete(client, prompt=["a", "b"], n=2)
    frames = await stream(client, prompt=["a", "b"], n=2, echo=True)

    choices = answered["choices"]
    assert isinstance(choices, list)
    assert [(c["index"], c["text"]) for c in choices] == [
        (0, "[a]"), (1, "[a]"), (2, "[b]"), (3, "[b]"),
    ]  # fmt: skip
    # 11 tokens for each prompt once, one token for each answer
    assert answered["usage"] == {
        "prompt_tokens": 22,
        "completion_tokens": 4,
        "total_tokens": 26,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    said = [""] * 4
    for line in frames[:-1]:
        (choice,) = json.loads(line.removeprefix("data: "))["choices"]
        said[choice["index"]] += choice["text"]
    assert said == ["a[a]", "a[a]", "b[b]", "b[b]"]


async def test_the_likeliest_of_best_of_are_answered(client: MemoryClient, olm: FakeOlm) -> None:
    mean_of = {0: -2.0, 1: -0.5, 2: -1.0}

    def respond(request: ChatRequest | GenerateRequest) -> list[Step]:
        seed = request.options["seed"]
        assert isinstance(seed, int)
        assert request.n_logprobs == 0
        tokens = [TokenLogprob(b"x", mean_of[seed])] * (seed + 1)
        return [
            Piece(str(seed), logprobs=tuple(tokens)),
            Done("stop", n_prompt=3, n_generated=seed + 1),
        ]

    olm.models.respond = respond
    answered = await complete(client, n=2, best_of=3, seed=0)

    assert answered["choices"] == [
        {"text": "1", "index": 0, "finish_reason": "stop"},
        {"text": "2", "index": 1, "finish_reason": "stop"},
    ]
    usage = answered["usage"]
    assert isinstance(usage, dict)
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (3, 6)


# --- echo and log-probabilities ---------------------------------------------------------------------------------------


async def test_echo_puts_the_prompt_before_the_answer(client: MemoryClient, olm: FakeOlm) -> None:
    whole = await texts(client, prompt=["Once", "Twice"], echo=True)
    of_tokens = await texts(client, prompt=[72, 105], echo=True)
    frames = await stream(client, echo=True)

    assert whole == [(0, "OnceHi there"), (1, "TwiceHi there")]
    assert of_tokens == [(0, "HiHi there")]
    assert frames == [
        frame("Once"), frame("Hi"), frame(" there"), frame("", finish='"stop"'), DONE,
    ]  # fmt: skip


async def test_echo_comes_even_when_nothing_is_said(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.script = [Done("length")]

    assert await texts(client, echo=True, max_tokens=0) == [(0, "Once")]
    assert await stream(client, echo=True, max_tokens=0) == [
        frame("Once"), frame("", finish='"length"'), DONE,
    ]  # fmt: skip


EURO = "€".encode()
TOKENS = (
    TokenLogprob(b"a ", -0.5, (TopLogprob(b"a ", -0.5), TopLogprob(EURO[:1], -1.5))),
    TokenLogprob(EURO[:2], -1.0, (TopLogprob(b"b", -0.25),)),
    TokenLogprob(EURO[2:], -2.0, (TopLogprob(b"c", -0.75),)),
)
LAST = TokenLogprob(b"!", -3.0, (TopLogprob(b"!", -3.0),))


async def test_logprobs_in_the_old_form(client: MemoryClient, olm: FakeOlm) -> None:
    thought = Piece(thinking="Hm", logprobs=(LAST,))
    olm.models.script = [
        thought, Piece("a €", logprobs=TOKENS), Piece("!", logprobs=(LAST,)), Done("stop"),
    ]  # fmt: skip

    answered = await complete(client, logprobs=1)
    frames = [
        json.loads(line.removeprefix("data: ")) for line in (await stream(client, logprobs=1))[:-1]
    ]

    choices = answered["choices"]
    assert isinstance(choices, list)
    wanted = {
        "tokens": ["a ", "bytes:\\xe2\\x82", "bytes:\\xac", "!"],
        "token_logprobs": [-0.5, -1.0, -2.0, -3.0],
        "top_logprobs": [
            {"a ": -0.5, "bytes:\\xe2": -1.5},
            {"b": -0.25, "bytes:\\xe2\\x82": -1.0},
            {"c": -0.75, "bytes:\\xac": -2.0},
            {"!": -3.0},
        ],
        "text_offset": [0, 2, 2, 3],
    }
    assert choices[0]["logprobs"] == wanted
    streamed = [
        part["choices"][0]["logprobs"] for part in frames if "logprobs" in part["choices"][0]
    ]
    assert len(streamed) == 2
    assert {key: [*streamed[0][key], *streamed[1][key]] for key in wanted} == wanted


async def test_no_alternatives_and_no_logprobs(client: MemoryClient, olm: FakeOlm) -> None:
    olm.models.script = [Piece("a", logprobs=(TokenLogprob(b"a", -0.5),)), Done("stop")]

    bare = await complete(client, logprobs=0)

    choices = bare["choices"]
    assert isinstance(choices, list)
    assert choices[0]["logprobs"] == {
        "tokens": ["a"],
        "token_logprobs": [-0.5],
        "top_logprobs": None,
        "text_offset": [0],
    }
    assert (await ask(client, olm, logprobs=0)).n_logprobs == 0
    assert (await ask(client, olm, logprobs=None)).n_logprobs == -1
