"""The engine: many sequences in one batch say what each would say alone, and every request ends in one answer."""

from __future__ import annotations

import select
from pathlib import Path

import msgspec
import pytest
import trio
from native_kit import Ask, Chat, Greedy, MakeEngine

from olm.chat.types import Sampling
from olm.native.engine import Done, Engine, Failed, Piece
from olm.native.handles import Model
from olm.native.lib import (
    ContextFailed,
    DecodeFailed,
    DuplicateId,
    InvalidArgument,
    PromptTooLong,
    Unsupported,
    check,
    ffi,
    lib,
)

pytestmark = pytest.mark.native

GREEDY = Sampling(temperature=0, n_predict=40)
QUESTIONS = [
    "Why is the sky blue?",
    "What is the capital of France?",
    "Count from 3 to 9.",
    "Say hello.",
    "What is the opposite of hot?",
    "Who are you?",
    "What comes after Monday?",
    "Translate cat to French.",
]
EVAL = Path(__file__).parents[2] / "models/tiny/eval.json"


async def test_greedy_equals_the_plainest_loop(
    make_engine: MakeEngine, gather: Ask, greedy: Greedy, chat_tokens: Chat
) -> None:
    engine = make_engine()

    for question in QUESTIONS:
        prompt = chat_tokens(question)
        [answer] = await gather(engine, engine.submit(prompt, GREEDY))
        assert answer.tokens == greedy(prompt, 40)


async def test_eight_together_say_what_each_says_alone(
    make_engine: MakeEngine, gather: Ask, greedy: Greedy, chat_tokens: Chat
) -> None:
    engine = make_engine(n_parallel=8)
    prompts = [chat_tokens(question) for question in QUESTIONS]

    answers = await gather(engine, *[engine.submit(prompt, GREEDY) for prompt in prompts])

    assert [answer.tokens for answer in answers] == [greedy(prompt, 40) for prompt in prompts]
    assert engine.stats().n_steps < 100


async def test_more_requests_than_slots_all_get_their_answers(
    make_engine: MakeEngine, gather: Ask, greedy: Greedy, chat_tokens: Chat
) -> None:
    engine = make_engine(n_parallel=2)
    prompts = [chat_tokens(question) for question in QUESTIONS]

    answers = await gather(engine, *[engine.submit(prompt, GREEDY) for prompt in prompts])

    assert [answer.tokens for answer in answers] == [greedy(prompt, 40) for prompt in prompts]


async def test_the_trained_answers_come_out(
    make_engine: MakeEngine, gather: Ask, tiny: Model
) -> None:
    samples = msgspec.json.decode(EVAL.read_bytes())["samples"][:24]
    engine = make_engine()

    requests = [
        engine.submit(sample["prompt_ids"], Sampling(temperature=0, n_predict=100))
        for sample in samples
    ]
    answers = await gather(engine, *requests)

    same = [a.text.strip() == s["output"].strip() for a, s in zip(answers, samples, strict=True)]
    assert sum(same) >= 21, "Q8_0 differs from f32 on a few only"
    assert [tiny.tokenize(sample["prompt"]) for sample in samples] == [
        sample["prompt_ids"] for sample in samples
    ]


@pytest.mark.parametrize(("n_batch", "n_ubatch"), [(1, 1), (7, 7), (64, 16), (512, 512)])
async def test_a_prompt_in_chunks_equals_it_whole(
    make_engine: MakeEngine,
    gather: Ask,
    greedy: Greedy,
    chat_tokens: Chat,
    n_batch: int,
    n_ubatch: int,
) -> None:
    engine = make_engine(n_parallel=1, n_batch=n_batch, n_ubatch=n_ubatch)
    prompt = chat_tokens("Repeat after me: " + "one two three four five six seven " * 8)

    [answer] = await gather(engine, engine.submit(prompt, GREEDY))

    assert answer.tokens == greedy(prompt, 40)
    done = [event.n_done for event in answer.progress]
    assert done == sorted(done)
    assert len(done) == -(-len(prompt) // n_batch) - 1


async def test_a_long_prompt_does_not_stop_a_stream(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine = make_engine(n_ctx=2048, n_parallel=2, n_chunk=32)
    stream = engine.submit(
        chat_tokens("hello"), Sampling(temperature=0, n_predict=400, ignore_eos=True)
    )
    while not any(isinstance(event, Piece) for event in await engine.next_events()):
        pass
    long = engine.submit([300] * 640, Sampling(temperature=0, n_predict=1))

    order: list[int] = []
    while long not in order:
        order += [e.request for e in await engine.next_events() if isinstance(e, Piece | Done)]

    assert order.count(stream) >= 640 // 32 - 2
    engine.cancel(stream)


async def test_counts_and_times(make_engine: MakeEngine, gather: Ask, chat_tokens: Chat) -> None:
    engine = make_engine()
    prompt = chat_tokens(QUESTIONS[0])

    [answer] = await gather(engine, engine.submit(prompt, Sampling(temperature=0, n_predict=10)))

    assert answer.done is not None
    done = answer.done
    assert (done.n_prompt, done.n_cached, done.n_generated) == (len(prompt), 0, 10)
    assert (done.reason, done.end_token) == ("length", -1)
    assert done.prompt_ns > 0
    assert done.eval_ns > 0
    assert len(answer.tokens) == 10


async def test_an_end_token_stops_and_is_told(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat, tiny: Model
) -> None:
    engine = make_engine()

    [answer] = await gather(engine, engine.submit(chat_tokens("Say hello."), GREEDY))

    assert answer.done is not None
    assert answer.done.reason == "stop"
    assert answer.done.end_token in tiny.info.eog
    assert answer.done.n_generated == len(answer.tokens)
    assert "<|im_end|>" not in answer.text


async def test_zero_tokens_only_computes_the_prompt(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine = make_engine()

    [answer] = await gather(engine, engine.submit(chat_tokens("x"), Sampling(n_predict=0)))

    assert answer.done is not None
    assert (answer.text, answer.done.reason, answer.done.n_generated) == ("", "length", 0)


async def test_a_stop_string_ends_it_and_is_not_shown(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine = make_engine()
    prompt = chat_tokens(QUESTIONS[0])
    [whole] = await gather(engine, engine.submit(prompt, GREEDY))
    stop = whole.text[20:33]

    [answer] = await gather(
        engine,
        engine.submit(prompt, Sampling(temperature=0, n_predict=40, stop=("never", "", stop))),
    )

    assert answer.text == whole.text[:20]
    assert answer.done is not None
    assert (answer.done.reason, answer.done.end_token, answer.done.stop) == ("stop", -1, 2)
    assert whole.done is not None
    assert whole.done.stop == -1


async def test_special_tokens_show_only_when_preserved(
    make_engine: MakeEngine, gather: Ask, tiny: Model
) -> None:
    engine = make_engine()
    prompt = tiny.tokenize("<|im_start|>user\nSay hello.<|im_end|>\n<|im_start|>assistant\n")
    end = Sampling(temperature=0, n_predict=1, logit_bias={tiny.info.bos: 200.0}, ignore_eos=False)
    assert tiny.info.bos in tiny.info.eog  # so another special token is forced below
    think = tiny.tokenize("<tool_call>")[0]
    force = msgspec.structs.replace(end, logit_bias={think: 200.0}, n_predict=2)

    shown, hidden = await gather(
        engine,
        engine.submit(prompt, force, preserved_tokens=["<tool_call>"]),
        engine.submit(prompt, force),
    )

    assert shown.text == "<tool_call><tool_call>"
    assert hidden.tokens == [think, think]


async def test_one_logprob_for_each_token(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat, tiny: Model
) -> None:
    engine = make_engine()
    sampling = Sampling(temperature=0, n_predict=30, n_logprobs=3, stop=("wavelength",))

    [answer] = await gather(engine, engine.submit(chat_tokens(QUESTIONS[0]), sampling))

    assert answer.done is not None
    assert len(answer.logprobs) == len(answer.tokens) == answer.done.n_generated
    for token, entry in zip(answer.tokens, answer.logprobs, strict=True):
        assert entry.token == tiny.detokenize([token])
        assert entry.logprob <= 0
        assert len(entry.top) == 3
        assert entry.top[0].token == entry.token, "greedy takes the best"
        assert [t.logprob for t in entry.top] == sorted(
            (t.logprob for t in entry.top), reverse=True
        )


async def test_logprobs_tell_of_the_row_as_the_model_gave_it(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine = make_engine()
    prompt = chat_tokens(QUESTIONS[0])
    plain = Sampling(temperature=0, n_predict=1, n_logprobs=1)
    [first] = await gather(engine, engine.submit(prompt, plain))
    biased = msgspec.structs.replace(plain, logit_bias={first.tokens[0]: 5.0})

    [second] = await gather(engine, engine.submit(prompt, biased))

    assert second.logprobs[0].logprob == pytest.approx(first.logprobs[0].logprob, abs=1e-3)


async def test_a_seed_repeats_itself_and_others_differ(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine = make_engine()
    prompt = chat_tokens("Tell me something.")

    async def say(seed: int) -> list[int]:
        sampling = Sampling(temperature=3.0, top_k=100, top_p=1.0, seed=seed, n_predict=25)
        [answer] = await gather(engine, engine.submit(prompt, sampling))
        return answer.tokens

    assert await say(7) == await say(7)
    assert await say(7) != await say(8)


async def test_the_next_turn_reuses_what_its_slot_holds(
    make_engine: MakeEngine, gather: Ask, greedy: Greedy, chat_tokens: Chat, tiny: Model
) -> None:
    engine = make_engine(n_parallel=2)
    first = chat_tokens(QUESTIONS[0])
    [answer] = await gather(engine, engine.submit(first, GREEDY))
    second = [*first, *answer.tokens, tiny.info.eos, *chat_tokens(QUESTIONS[1])]

    [again] = await gather(engine, engine.submit(second, GREEDY))

    assert again.done is not None
    assert again.done.n_cached >= len(first) + len(answer.tokens) - 1
    assert again.tokens == greedy(second, 40)


async def test_the_same_prompt_again_computes_one_token(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine = make_engine(n_parallel=1)
    prompt = chat_tokens(QUESTIONS[0])
    [first] = await gather(engine, engine.submit(prompt, GREEDY))

    [second] = await gather(engine, engine.submit(prompt, GREEDY))

    assert second.done is not None
    assert second.done.n_cached == len(prompt) - 1
    assert second.tokens == first.tokens


async def test_a_cancelled_request_ends_within_a_step_and_the_others_go_on(
    make_engine: MakeEngine, gather: Ask, greedy: Greedy, chat_tokens: Chat
) -> None:
    engine = make_engine(n_parallel=2)
    prompt = chat_tokens(QUESTIONS[0])
    endless = engine.submit(
        chat_tokens("hi"), Sampling(temperature=0, n_predict=450, ignore_eos=True)
    )
    other = engine.submit(prompt, GREEDY)
    events = []
    while not any(event.request == endless for event in events):
        events += await engine.next_events()

    engine.cancel(endless)
    while not any(isinstance(event, Done) and event.request == endless for event in events):
        events += await engine.next_events()

    [done] = [event for event in events if isinstance(event, Done) and event.request == endless]
    assert done.reason == "cancelled"
    after = [event for event in events[events.index(done) + 1 :] if event.request == endless]
    assert after == []
    while not any(isinstance(event, Done) and event.request == other for event in events):
        events += await engine.next_events()
    tokens = [
        t for e in events if e.request == other and isinstance(e, Piece | Done) for t in e.tokens
    ]
    assert tokens == greedy(prompt, 40)
    stats = engine.stats()
    assert (stats.n_running, stats.n_waiting) == (0, 0)


async def test_a_lone_long_prompt_can_be_cancelled_inside_its_step(
    make_engine: MakeEngine, gather: Ask
) -> None:
    engine = make_engine(n_ctx=2048, n_parallel=1, n_batch=2048, n_ubatch=512)
    request = engine.submit([300] * 2000, Sampling(n_predict=1))

    engine.cancel(request)
    [answer] = await gather(engine, request)

    assert answer.done is not None
    assert answer.done.reason == "cancelled"
    assert engine.stats().n_prompt_tokens < 2000


async def test_cancelling_what_waits_or_is_gone(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine = make_engine(n_parallel=1)
    running = engine.submit(
        chat_tokens("a"), Sampling(temperature=0, n_predict=60, ignore_eos=True)
    )
    waiting = engine.submit(chat_tokens("b"), GREEDY)

    engine.cancel(waiting)
    engine.cancel(10_000)
    first, second = await gather(engine, running, waiting)

    assert first.done is not None
    assert second.done is not None
    assert (first.done.reason, second.done.reason) == ("length", "cancelled")
    assert second.done.n_prompt > 0


async def test_a_full_context_ends_it_without_shift(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine = make_engine(n_ctx=64, n_parallel=2)
    sampling = Sampling(temperature=0, n_predict=500, ignore_eos=True)

    [answer] = await gather(engine, engine.submit(chat_tokens("hi"), sampling, shift=False))

    assert answer.done is not None
    assert answer.done.reason == "length"
    assert answer.done.n_prompt + answer.done.n_generated == 64


async def test_with_shift_it_goes_on(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine = make_engine(n_ctx=64, n_parallel=2)
    sampling = Sampling(temperature=0, n_predict=200, ignore_eos=True)

    answers = await gather(engine, *[engine.submit(chat_tokens("hi"), sampling) for _ in range(2)])

    for answer in answers:
        assert answer.done is not None
        assert (answer.done.reason, answer.done.n_generated) == ("length", 200)
    assert engine.stats().n_shifts >= 4


async def test_a_shifted_slot_gives_only_its_untouched_prefix(
    make_engine: MakeEngine, gather: Ask, greedy: Greedy, chat_tokens: Chat
) -> None:
    """Behind `n_keep` the memory holds tokens moved from elsewhere: not what a fresh prompt would give."""
    engine = make_engine(n_ctx=64, n_parallel=1)
    prompt = chat_tokens("hi")
    once = Sampling(temperature=0, n_predict=75 - len(prompt), ignore_eos=True, n_keep=6)
    [first] = await gather(engine, engine.submit(prompt, once))
    assert engine.stats().n_shifts == 1
    everything = [*prompt, *first.tokens]
    n_gone = (63 - 6) // 2
    held = [*everything[:6], *everything[6 + n_gone :]][:40]

    [answer] = await gather(engine, engine.submit(held, Sampling(temperature=0, n_predict=20)))

    assert answer.done is not None
    assert answer.done.n_cached == 6
    assert answer.tokens == greedy(held, 20)


async def test_unlimited_is_ten_contexts(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine = make_engine(n_ctx=32, n_parallel=1)

    [answer] = await gather(
        engine, engine.submit(chat_tokens("hi"), Sampling(temperature=0, ignore_eos=True))
    )

    assert answer.done is not None
    assert answer.done.n_generated == 320


async def test_a_paused_request_takes_no_steps(
    make_engine: MakeEngine, gather: Ask, greedy: Greedy, chat_tokens: Chat
) -> None:
    engine = make_engine(n_parallel=2)
    prompt = chat_tokens(QUESTIONS[0])
    slow = engine.submit(prompt, GREEDY)
    engine.pause(slow)
    [other] = [engine.submit(chat_tokens(QUESTIONS[1]), GREEDY)]

    events = []
    while not any(isinstance(event, Done) for event in events):
        events += await engine.next_events()
    assert {event.request for event in events if isinstance(event, Done)} == {other}
    assert engine.stats().n_paused == 1
    before = [t for e in events if e.request == slow and isinstance(e, Piece) for t in e.tokens]
    engine.resume(slow)
    [answer] = await gather(engine, slow)

    assert before + answer.tokens == greedy(prompt, 40)


async def test_a_batch_without_room_makes_room(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    """Eight requests in the cells of four: the youngest give way, come back, and say what they would have said."""
    sampling = Sampling(temperature=0, n_predict=40, ignore_eos=True)
    prompts = [chat_tokens(question) for question in QUESTIONS]
    roomy = make_engine(n_ctx=256, n_parallel=8)
    wanted = await gather(roomy, *[roomy.submit(prompt, sampling) for prompt in prompts])
    tight = make_engine(n_ctx=256, n_parallel=8, n_cells=256)

    answers = await gather(tight, *[tight.submit(prompt, sampling) for prompt in prompts])

    assert [answer.tokens for answer in answers] == [answer.tokens for answer in wanted]
    assert tight.stats().n_preemptions > 0
    assert tight.stats().n_steps < 1000


async def test_idle_caches_give_way_first(make_engine: MakeEngine, gather: Ask) -> None:
    engine = make_engine(n_ctx=256, n_parallel=3, n_cells=256)
    one = Sampling(temperature=0, n_predict=1)
    for start in (300, 600, 900):
        await gather(engine, engine.submit(list(range(start, start + 100)), one))

    [answer] = await gather(engine, engine.submit(list(range(1200, 1440)), one))

    assert answer.done is not None
    assert (engine.stats().n_preemptions, engine.stats().n_evictions > 0) == (0, True)


@pytest.mark.parametrize("result", [-1, -2])
async def test_a_failed_batch_is_tried_one_by_one(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat, result: int
) -> None:
    sampling = Sampling(temperature=0, n_predict=80, ignore_eos=True)
    prompts = [chat_tokens(question) for question in QUESTIONS[:4]]
    sound = make_engine(n_parallel=4)
    wanted = await gather(sound, *[sound.submit(prompt, sampling) for prompt in prompts])
    engine = make_engine(n_parallel=4)
    requests = [engine.submit(prompt, sampling) for prompt in prompts]
    check(lib.olm_test_fail_decode(engine.pointer, result, 1))

    answers = await gather(engine, *requests)

    assert engine.stats().n_failed_steps == 1
    for answer, want in zip(answers, wanted, strict=True):
        assert answer.failed is not None or answer.tokens == want.tokens
    assert sum(answer.failed is not None for answer in answers) <= 1, (
        "at most a batch of one failed"
    )


async def test_a_request_that_fails_alone_is_told_and_the_engine_lives(
    make_engine: MakeEngine, gather: Ask, greedy: Greedy, chat_tokens: Chat
) -> None:
    engine = make_engine(n_parallel=1)
    prompt = chat_tokens(QUESTIONS[0])
    check(lib.olm_test_fail_decode(engine.pointer, -2, 1))

    [bad] = await gather(engine, engine.submit(prompt, GREEDY))
    [good] = await gather(engine, engine.submit(prompt, GREEDY))

    assert bad.failed is not None
    assert isinstance(bad.failed.error, DecodeFailed)
    assert good.tokens == greedy(prompt, 40)


async def test_bad_requests_are_refused_and_leave_no_trace(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine = make_engine(n_ctx=64)

    with pytest.raises(PromptTooLong, match="64"):
        engine.submit([5] * 64)
    with pytest.raises(InvalidArgument, match="no tokens"):
        engine.submit([])
    with pytest.raises(InvalidArgument, match="vocabulary"):
        engine.submit([2048])
    with pytest.raises(InvalidArgument, match="vocabulary"):
        engine.submit([-1])
    for json in (b"{", b"[]", b'{"stop": "x"}', b'{"n_predict": 1.5}', b'{"seed": {}}'):
        with pytest.raises(InvalidArgument):
            check(lib.olm_engine_submit(engine.pointer, 77, ffi.new("int32_t[]", [5]), 1, json))
    [answer] = await gather(engine, engine.submit(chat_tokens("hi"), Sampling(n_predict=2)))

    assert answer.done is not None
    assert engine.stats().n_waiting == 0


async def test_an_id_may_be_used_again_once_its_request_is_over(make_engine: MakeEngine) -> None:
    engine = make_engine()
    tokens, one = ffi.new("int32_t[]", [5, 6]), b'{"n_predict": 1}'

    check(
        lib.olm_engine_submit(
            engine.pointer, 99, tokens, 2, b'{"n_predict": 400, "ignore_eos": true}'
        )
    )
    with pytest.raises(DuplicateId):
        check(lib.olm_engine_submit(engine.pointer, 99, tokens, 2, one))
    engine.cancel(99)
    while not any(isinstance(event, Done) for event in await engine.next_events()):
        pass
    check(lib.olm_engine_submit(engine.pointer, 99, tokens, 2, one))

    events = []
    while not any(isinstance(event, Done) for event in events):
        events += await engine.next_events()
    assert {event.request for event in events} == {99}


@pytest.mark.parametrize(
    "fields",
    [{"n_ctx": 3}, {"n_parallel": 0}, {"n_parallel": 65}, {"n_cells": 100}, {"type_k": "q9"}, {"flash_attn": "maybe"},
     {"pooling": "max"}, {"n_batch": 0}],
)  # fmt: skip
def test_wrong_engine_options_are_refused(
    make_engine: MakeEngine, fields: dict[str, object]
) -> None:
    with pytest.raises(InvalidArgument):
        make_engine(**fields)


def test_options_that_the_model_cannot_do_say_why(make_engine: MakeEngine) -> None:
    with pytest.raises(ContextFailed, match="flash_attn"):
        make_engine(type_v="q8_0", flash_attn="off")


def test_a_model_without_weights_makes_no_engine(backend: object, tiny: Model) -> None:
    from olm.native.engine import EngineOptions

    path = Path(__file__).parents[2] / "src/olm/data/tiny/tiny-q8_0.gguf"
    with Model.load(path, options={"vocab_only": True}) as model, pytest.raises(Unsupported):
        Engine(model, EngineOptions())


async def test_cells_of_other_types_work(
    make_engine: MakeEngine, gather: Ask, chat_tokens: Chat
) -> None:
    engine = make_engine(type_k="q8_0", type_v="q8_0", flash_attn="on")

    [answer] = await gather(engine, engine.submit(chat_tokens(QUESTIONS[0]), GREEDY))

    assert answer.done is not None
    assert answer.text.startswith("The sky")


async def test_the_descriptor_is_readable_only_while_events_wait(
    make_engine: MakeEngine, chat_tokens: Chat
) -> None:
    engine = make_engine()
    request = engine.submit(chat_tokens("hi"), Sampling(n_predict=3))
    fd = engine.fileno()
    events = []
    while not any(isinstance(event, Done) for event in events):
        events += await engine.next_events()

    assert events[-1].request == request
    assert select.select([fd], [], [], 0)[0] == []
    assert engine.poll() == []


async def test_waiting_for_events_can_be_cancelled(make_engine: MakeEngine) -> None:
    engine = make_engine()

    with trio.move_on_after(0.01) as scope:
        await engine.next_events()

    assert scope.cancelled_caught


def test_closing_in_the_middle_of_work(make_engine: MakeEngine) -> None:
    engine = make_engine(n_ctx=2048, n_parallel=2)
    engine.submit([300] * 2000, Sampling(n_predict=400, ignore_eos=True))
    engine.submit([5] * 20, Sampling(n_predict=400, ignore_eos=True))

    engine.close()
    engine.close()

    assert not engine.is_open


async def test_failed_events_carry_their_error() -> None:
    from olm.native.engine import decode_frame

    head = (56).to_bytes(4, "little") + bytes([4, 0]) + (14).to_bytes(2, "little")
    frame = (
        head
        + (7).to_bytes(8, "little")
        + bytes(4)
        + (4).to_bytes(4, "little")
        + bytes(24)
        + b"room"
        + bytes(4)
    )

    [event] = decode_frame(frame)

    assert isinstance(event, Failed)
    assert (event.request, str(event.error), event.error.details["code"]) == (7, "room", "NO_ROOM")
