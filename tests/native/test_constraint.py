"""Grammars in the engine: whatever the model would like to say, what it says matches."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from native_kit import Ask, Chat, Greedy, MakeEngine

from olm.chat.grammar import AnswerGrammar
from olm.chat.types import Sampling
from olm.native.engine import Done, Engine, Failed
from olm.native.handles import Model
from olm.native.lib import InvalidArgument

pytestmark = pytest.mark.native

PERSON = AnswerGrammar(
    "json_schema",
    json.dumps(
        {
            "x-guidance": {"whitespace_pattern": r"( |\n)"},
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 12},
                "age": {"type": "integer", "minimum": 0, "maximum": 150},
                "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
            },
            "required": ["name", "age", "tags"],
            "additionalProperties": False,
        }
    ),
)
DIGITS = AnswerGrammar("regex", "[0-9]{3}-(ab|cd)")


def wild(seed: int, *, n_predict: int = 200, ignore_eos: bool = False) -> Sampling:
    """Draw from all of the vocabulary, and flatter than the model means it."""
    return Sampling(
        temperature=1.5,
        top_k=0,
        top_p=1.0,
        n_predict=n_predict,
        seed=seed,
        ignore_eos=ignore_eos,
    )


def is_person(text: str) -> bool:
    value = json.loads(text)
    return (
        list(value) == ["name", "age", "tags"]
        and isinstance(value["name"], str)
        and len(value["name"]) <= 12
        and isinstance(value["age"], int)
        and 0 <= value["age"] <= 150
        and len(value["tags"]) <= 3
        and set(value["tags"]) <= {"a", "b"}
    )


async def test_answers_match_their_schema_for_many_seeds(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine = make_engine(n_parallel=8)
    prompt = chat_tokens("Who are you?")

    answers = await gather(
        engine, *[engine.submit(prompt, wild(seed), constraint=PERSON) for seed in range(48)]
    )

    assert all(is_person(answer.text) for answer in answers)
    assert len({answer.text for answer in answers}) > 40
    assert {answer.done.reason for answer in answers if answer.done} == {"stop"}


async def test_without_a_constraint_the_same_draws_do_not_match(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine = make_engine()

    [answer] = await gather(engine, engine.submit(chat_tokens("Who are you?"), wild(1)))

    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.text)


@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        (DIGITS, r"\d{3}-(ab|cd)"),
        (AnswerGrammar("regex", r"(é|😀){2,4}\."), r"(é|😀){2,4}\."),
        (AnswerGrammar("lark", 'start: "yes" | "no" | "maybe so"'), r"yes|no|maybe so"),
        (
            AnswerGrammar("lark", 'start: "(" start ")" | N\nN: /[0-9]{1,2}/'),
            r"\(*\d{1,2}\)*",
        ),
        (
            AnswerGrammar(
                "llguidance",
                json.dumps({"grammars": [{"lark_grammar": 'start: "<" /[a-c]{1,5}/ ">"'}]}),
            ),
            r"<[a-c]{1,5}>",
        ),
    ],
    ids=["regex", "multibyte", "choice", "recursive", "llguidance"],
)
async def test_every_language_of_grammars_holds(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat, grammar: AnswerGrammar, pattern: str
) -> None:
    engine = make_engine()
    prompt = chat_tokens("Say hello.")

    requests = [engine.submit(prompt, wild(seed), constraint=grammar) for seed in range(12)]
    answers = await gather(engine, *requests)

    whole = [answer.text for answer in answers if answer.done and answer.done.reason == "stop"]
    assert whole
    assert all(re.fullmatch(pattern, text) for text in whole)


async def test_an_answer_ends_where_its_grammar_does_without_an_end_token(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine = make_engine()

    request = engine.submit(chat_tokens("Hi"), wild(3, ignore_eos=True), constraint=DIGITS)
    [answer] = await gather(engine, request)

    assert answer.done is not None
    assert (answer.done.reason, answer.done.end_token) == ("stop", -1)
    assert answer.done.n_generated == len(answer.tokens)


async def test_an_answer_may_end_only_where_its_grammar_may(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat, tiny: Model
) -> None:
    engine = make_engine()
    eager = Sampling(temperature=0, n_predict=50, logit_bias=dict.fromkeys(tiny.info.eog, 1e6))

    request = engine.submit(
        chat_tokens("Hi"), eager, constraint=AnswerGrammar("regex", "[a-z]{5,}")
    )
    [answer] = await gather(engine, request)

    assert re.fullmatch("[a-z]{5,}", answer.text)
    assert answer.done is not None
    assert answer.done.end_token in tiny.info.eog


async def test_a_grammar_that_allows_what_greedy_says_changes_nothing(
    make_engine: MakeEngine, gather: Ask, greedy: Greedy, chat_tokens: Chat
) -> None:
    engine = make_engine()
    prompt = chat_tokens("Why is the sky blue?")

    request = engine.submit(
        prompt,
        Sampling(temperature=0, n_predict=40),
        constraint=AnswerGrammar("regex", "(?s:.*)"),
    )
    [answer] = await gather(engine, request)

    assert answer.tokens == greedy(prompt, 40)


async def test_constrained_and_free_requests_run_together(
    make_engine: MakeEngine, gather: Ask, greedy: Greedy, chat_tokens: Chat
) -> None:
    engine = make_engine(n_parallel=6)
    prompt = chat_tokens("Why is the sky blue?")
    free = Sampling(temperature=0, n_predict=40)

    requests = []
    for seed in range(3):
        requests += [
            engine.submit(prompt, free),
            engine.submit(prompt, wild(seed), constraint=PERSON),
            engine.submit(prompt, wild(seed), constraint=DIGITS),
        ]
    answers = await gather(engine, *requests)

    assert all(answer.tokens == greedy(prompt, 40) for answer in answers[0::3])
    assert all(is_person(answer.text) for answer in answers[1::3])
    assert all(re.fullmatch(r"\d{3}-(ab|cd)", answer.text) for answer in answers[2::3])


async def test_logprobs_are_of_the_row_as_the_model_gave_it(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine = make_engine()
    prompt = chat_tokens("What is the capital of France?")
    sampling = Sampling(temperature=0, n_predict=1, n_logprobs=3)

    free, held = [
        (await gather(engine, engine.submit(prompt, sampling, constraint=grammar)))[0]
        for grammar in (None, AnswerGrammar("regex", "[0-9]"))
    ]

    assert held.logprobs[0].top == free.logprobs[0].top
    assert held.logprobs[0].logprob < free.logprobs[0].top[-1].logprob
    assert held.text.isdigit()


async def test_a_special_token_is_text_only_if_it_is_shown(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat, tiny: Model
) -> None:
    engine = make_engine()
    [special] = tiny.tokenize("<|im_start|>", add_special=False)
    keen = Sampling(temperature=0, n_predict=30, logit_bias={special: 50.0})
    grammar = AnswerGrammar("lark", 'start: "<|im_start|>" /[a-z]/')

    hidden, shown = [
        (
            await gather(
                engine,
                engine.submit(
                    chat_tokens("Hi"), keen, constraint=grammar, preserved_tokens=preserved
                ),
            )
        )[0]
        for preserved in ((), ("<|im_start|>",))
    ]

    assert special not in hidden.tokens
    assert shown.tokens[0] == special
    assert re.fullmatch(r"<\|im_start\|>[a-z]", hidden.text)
    assert re.fullmatch(r"<\|im_start\|>[a-z]", shown.text)


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        (AnswerGrammar("lark", "start: foo"), 'unknown name: "foo"'),
        (AnswerGrammar("lark", 'start: "a'), "cannot be used"),
        (AnswerGrammar("regex", "(a"), "the regular expression cannot be used.*unclosed group"),
        (AnswerGrammar("regex", "(?=a)b"), "look-around"),
        (AnswerGrammar("json_schema", '{"type":'), "EOF"),
        (
            AnswerGrammar("json_schema", '{"type":"foo"}'),
            "the JSON schema cannot be used: Invalid type: foo",
        ),
        (AnswerGrammar("json_schema", '{"not":{}}'), r"Unimplemented keys: \[\"not\"\]"),
        (AnswerGrammar("json_schema", '{"$ref":"https://other/schema"}'), "cannot be used"),
        pytest.param(
            AnswerGrammar("regex", "(a{1000}){1000}"), "cannot be used", marks=pytest.mark.slow
        ),
        (
            AnswerGrammar("json_schema", '{"items":' * 500 + "{}" + "}" * 500),
            "recursion limit",
        ),
        (
            AnswerGrammar("lark", "\n".join(f"r{i}: r{i + 1} r{i + 1}" for i in range(40))),
            "cannot be used",
        ),
    ],
)
async def test_a_grammar_that_cannot_be_used_fails_its_request_with_the_reason(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat, grammar: AnswerGrammar, reason: str
) -> None:
    engine = make_engine()

    bad, good = await gather(
        engine,
        engine.submit(chat_tokens("Hi"), wild(1), constraint=grammar),
        engine.submit(chat_tokens("Hi"), wild(1), constraint=DIGITS),
    )

    assert bad.failed is not None
    assert isinstance(bad.failed.error, InvalidArgument)
    assert re.search(reason, bad.failed.error.message)
    assert len(bad.failed.error.message) < 600
    assert not bad.tokens
    assert good.done is not None


async def test_a_fallback_holds_where_the_grammar_cannot_be_compiled(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine = make_engine()
    odd, plain = 'start: "a', "start: /[0-9]{3}/"
    used, unused, useless = (
        AnswerGrammar("lark", text, fallback=fallback)
        for text, fallback in ((odd, plain), (plain, odd), (odd, odd))
    )

    answers = await gather(
        engine,
        *(
            engine.submit(chat_tokens("Hi"), wild(1), constraint=grammar)
            for grammar in (used, unused, useless)
        ),
    )

    assert [bool(re.fullmatch("[0-9]{3}", answer.text)) for answer in answers] == [
        True,
        True,
        False,
    ]
    assert answers[2].failed is not None
    assert engine.stats().n_dropped_constraints == 1


async def test_a_grammar_that_turns_out_too_complex_fails_its_request_alone(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine = make_engine()
    # Every optional key may come next: more than llguidance's row of items holds.
    keys = {f"p{i}": {"type": "string", "maxLength": i + 1} for i in range(700)}
    schema = json.dumps({"type": "object", "properties": keys, "additionalProperties": False})

    hard, easy = await gather(
        engine,
        engine.submit(chat_tokens("Hi"), wild(1), constraint=AnswerGrammar("json_schema", schema)),
        engine.submit(chat_tokens("Hi"), wild(1), constraint=DIGITS),
    )

    assert hard.failed is not None
    assert "max is 2000" in hard.failed.error.message
    assert easy.done is not None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"kind": "yacc", "text": ""}, "unknown kind"),
        ({"kind": "lark", "text": "a" * (1 << 20) + "b"}, "larger than 1 MiB"),
        ({"kind": "lark", "text": "a\0b"}, "NUL"),
        ({"kind": "lark", "text": "start: /a/", "triggers": ("",)}, "trigger is empty"),
    ],
)
async def test_a_malformed_constraint_is_refused_at_once(
    make_engine: MakeEngine, chat_tokens: Chat, fields: dict[str, object], reason: str
) -> None:
    engine = make_engine()

    with pytest.raises(InvalidArgument, match=reason):
        engine.submit(chat_tokens("Hi"), constraint=AnswerGrammar(**fields))  # type: ignore[arg-type]


async def test_cancelling_while_masks_are_made_leaves_the_engine_well(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine = make_engine(n_parallel=4)
    prompt = chat_tokens("Hi")

    for seed in range(20):
        requests = [
            engine.submit(prompt, wild(seed), constraint=grammar)
            for grammar in (PERSON, DIGITS, PERSON)
        ]
        if seed % 2:
            await trio.lowlevel.wait_readable(engine.fileno())
        for request in requests[:2]:
            engine.cancel(request)
        last = (await gather(engine, *requests))[-1]
        assert is_person(last.text)

    stats = engine.stats()
    assert (stats.n_running, stats.n_waiting) == (0, 0)


@pytest.mark.slow
def test_an_engine_can_be_closed_while_grammars_are_compiled(
    tiny: Model, chat_tokens: Chat
) -> None:
    hard = AnswerGrammar("regex", "(a{1000}){1000}")

    with Engine(tiny) as engine:
        for _ in range(2):
            engine.submit(chat_tokens("Hi"), constraint=hard)


@pytest.mark.slow
async def test_a_stream_goes_on_while_a_hard_grammar_is_compiled(
    make_engine: MakeEngine, chat_tokens: Chat
) -> None:
    engine = make_engine(n_parallel=2)

    hard = engine.submit(
        chat_tokens("Hi"), wild(1), constraint=AnswerGrammar("regex", "(a{1000}){1000}")
    )
    free = engine.submit(chat_tokens("Hi"), wild(1, ignore_eos=True, n_predict=30))

    ended: list[int] = []
    while len(ended) < 2:
        events = await engine.next_events()
        ended += [event.request for event in events if isinstance(event, Done | Failed)]
    assert ended == [free, hard]


@pytest.mark.slow
def test_without_llguidance_only_constrained_requests_fail(tiny: Model, backend: Path) -> None:
    path = Path(__file__).parents[2] / "src/olm/data/tiny/tiny-q8_0.gguf"
    script = f"""
import sys
sys.modules["llguidance"] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "llguidance" else find(name)
from pathlib import Path
from olm.chat.grammar import AnswerGrammar
from olm.native.engine import Done, Engine, Failed
from olm.native.handles import Model, initialize
initialize(Path({str(backend)!r}))
with Model.load({str(path)!r}) as model, Engine(model) as engine:
    engine.submit([1, 2, 3])
    try:
        engine.submit([1, 2, 3], constraint=AnswerGrammar("regex", "a"))
    except Exception as exc:
        print(type(exc).__name__, exc)
"""

    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )

    assert result.stdout.startswith("Unsupported structured output needs the package llguidance")


def chain(n: int) -> AnswerGrammar:
    """A schema of `n` objects, each in the one before: llguidance recurses for each."""
    defs: dict[str, object] = {
        f"a{i}": {
            "type": "object",
            "properties": {"x": {"$ref": f"#/$defs/a{i + 1}"}},
            "required": ["x"],
        }
        for i in range(n)
    }
    defs[f"a{n}"] = {"type": "string"}
    return AnswerGrammar("json_schema", json.dumps({"$defs": defs, "$ref": "#/$defs/a0"}))


@pytest.mark.slow
async def test_long_chains_of_references_are_compiled_or_refused_but_never_a_crash(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine, prompt = make_engine(), chat_tokens("Hello")

    long = engine.submit(prompt, wild(1, n_predict=8), constraint=chain(2000))
    too_long = engine.submit(prompt, wild(1, n_predict=8), constraint=chain(9000))
    first, second = await gather(engine, long, too_long)

    assert first.text.lstrip().startswith("{")
    assert second.failed is not None
    assert "backtrace" not in second.failed.error.message
