"""When a grammar applies: after thinking, from a trigger on, or from the first token; and the budget of thinking."""

from __future__ import annotations

import json
import re

import msgspec
import pytest
from native_kit import Answer, Ask, MakeEngine

from olm.chat.grammar import AnswerGrammar
from olm.chat.types import Sampling
from olm.native.engine import Engine, ThinkingLimits
from olm.native.handles import Model
from olm.native.lib import InvalidArgument

pytestmark = pytest.mark.native

CALL = 'start: "<tool_call>" %json {"type":"object","properties":{"n":{"type":"integer","minimum":0,"maximum":99}},"required":["n"],"additionalProperties":false,"x-guidance":{"whitespace_flexible":false}} "</tool_call>"'
CALL_PATTERN = r'<tool_call>\{"n":\d{1,2}\}</tool_call>'
ANSWER = AnswerGrammar("regex", r"\{[0-9]{1,3}\}")
ANSWER_PATTERN = r"\{\d{1,3}\}"
TAGS = ThinkingLimits(start="<think>", ends=("</think>",))
OPEN = msgspec.structs.replace(TAGS, is_open=True)
GREEDY = Sampling(temperature=0, n_predict=80)


def prompt_of(model: Model, end: str = "") -> list[int]:
    text = "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n"
    return model.tokenize(text + end)


def token_of(model: Model, text: str) -> int:
    [token] = model.tokenize(text, add_special=False)
    return token


async def ask(gather: Ask, engine: Engine, request: int) -> Answer:
    [answer] = await gather(engine, request)
    return answer


async def ask_greedy(gather: Ask, engine: Engine, model: Model, grammar: AnswerGrammar) -> Answer:
    """What the model says itself when it has nothing to think: the sky is blue because of Rayleigh scattering."""
    tokens = prompt_of(model, "<think>\n\n</think>\n\n")
    return await ask(gather, engine, engine.submit(tokens, GREEDY, constraint=grammar))


# -- after thinking --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
async def test_thinking_is_free_and_what_follows_matches(
    make_engine: MakeEngine, gather: Ask, tiny: Model, seed: int
) -> None:
    engine = make_engine()
    sampling = Sampling(temperature=1, seed=seed, n_predict=150)

    answer = await ask(
        gather,
        engine,
        engine.submit(prompt_of(tiny, "<think>\n"), sampling, constraint=ANSWER, thinking=OPEN),
    )

    thinking, found, content = answer.text.partition("</think>")
    assert found
    assert len(thinking) > 10
    assert re.fullmatch(r"\s{0,4}" + ANSWER_PATTERN, content)


async def test_blanks_may_stand_between_thinking_and_the_answer(
    make_engine: MakeEngine, gather: Ask, tiny: Model
) -> None:
    engine = make_engine()
    keen = Sampling(temperature=0, n_predict=80, logit_bias={token_of(tiny, "\n\n"): 50.0})

    answer = await ask(
        gather,
        engine,
        engine.submit(
            prompt_of(tiny, "<think>\n"),
            keen,
            constraint=ANSWER,
            thinking=msgspec.structs.replace(OPEN, budget=0),
        ),
    )

    assert re.fullmatch(rf"</think>\n\n\n\n{ANSWER_PATTERN}", answer.text), "but not without end"


async def test_a_model_may_open_its_thinking_itself(
    make_engine: MakeEngine, gather: Ask, tiny: Model
) -> None:
    engine = make_engine()

    answer = await ask(
        gather,
        engine,
        engine.submit(prompt_of(tiny), GREEDY, constraint=ANSWER, thinking=TAGS),
    )

    assert re.fullmatch(
        rf"<think>.*</think>\s{{0,4}}{ANSWER_PATTERN}", answer.text, flags=re.DOTALL
    )


async def test_a_model_that_may_think_need_not(
    make_engine: MakeEngine, gather: Ask, tiny: Model
) -> None:
    engine = make_engine()
    reluctant = Sampling(n_predict=80, logit_bias={token_of(tiny, "<think>"): -100.0})

    answer = await ask(
        gather,
        engine,
        engine.submit(prompt_of(tiny), reluctant, constraint=ANSWER, thinking=TAGS),
    )

    assert re.fullmatch(ANSWER_PATTERN, answer.text)


async def test_a_start_tag_of_several_tokens_may_be_opened_too(
    make_engine: MakeEngine, gather: Ask, tiny: Model
) -> None:
    engine = make_engine()
    tags = ThinkingLimits(start="[think]", ends=("[/think]",), budget=4)
    tokens = tiny.tokenize("[think]", add_special=False)
    assert len(tokens) > 2
    # The grammar begins like the tag, so for a while both are possible.
    grammar = AnswerGrammar("regex", r"\[th[0-9]{2}\]")
    keen = Sampling(temperature=0, n_predict=60, logit_bias=dict.fromkeys(tokens, 40.0))

    thought = await ask(
        gather, engine, engine.submit(prompt_of(tiny), keen, constraint=grammar, thinking=tags)
    )
    digits = {token_of(tiny, digit): 80.0 for digit in "0123456789"}
    never = {**dict.fromkeys(tokens, 40.0), **digits}
    plain = await ask(
        gather,
        engine,
        engine.submit(
            prompt_of(tiny),
            Sampling(temperature=0, n_predict=60, logit_bias=never),
            constraint=grammar,
            thinking=tags,
        ),
    )

    assert re.fullmatch(r"\[think\].*\[/think\]\s*\[th\d\d\]", thought.text, flags=re.DOTALL)
    assert re.fullmatch(r"(\[think\].*\[/think\]\s*)?\[th\d\d\]", plain.text, flags=re.DOTALL)


# -- from a trigger on -----------------------------------------------------------------------------


async def test_from_a_trigger_on_the_text_matches(
    make_engine: MakeEngine, gather: Ask, tiny: Model
) -> None:
    engine = make_engine()
    keen = Sampling(n_predict=60, ignore_eos=True, logit_bias={token_of(tiny, "<tool_call>"): 18.0})
    grammar = AnswerGrammar("lark", CALL, triggers=("<tool_call>",))

    answers = await gather(
        engine,
        *[
            engine.submit(
                prompt_of(tiny),
                msgspec.structs.replace(keen, seed=seed),
                constraint=grammar,
                preserved_tokens=("<tool_call>", "</tool_call>"),
            )
            for seed in range(10)
        ],
    )

    n_calls = 0
    for answer in answers:
        for part in answer.text.split("<tool_call>")[1:]:
            whole = "<tool_call>" + part
            cut = answer.done is not None and answer.done.reason == "length"
            assert re.match(CALL_PATTERN, whole) or (cut and answer.text.endswith(whole))
            n_calls += 1
    assert n_calls > len(answers), "the bias makes it call again after a call"
    assert engine.stats().n_dropped_constraints == 0


async def test_a_trigger_is_found_across_tokens(
    make_engine: MakeEngine, gather: Ask, tiny: Model
) -> None:
    engine = make_engine()
    # Greedy says "The sky is blue because of Rayleigh scattering"; the trigger cuts through its tokens.
    grammar = AnswerGrammar("regex", "lue b[0-9]{4}", triggers=("lue b",), ends=True)

    answer = await ask_greedy(gather, engine, tiny, grammar)

    # The token that completed the trigger said more than it: given up, for the grammar does not know that.
    assert engine.stats().n_dropped_constraints == 1
    assert answer.text.startswith("The sky is blue because of Rayleigh")


async def test_text_behind_a_trigger_in_its_token_counts(
    make_engine: MakeEngine, gather: Ask, tiny: Model
) -> None:
    engine = make_engine()
    grammar = AnswerGrammar("regex", "lue because[0-9]{4}", triggers=("lue b",), ends=True)

    answer = await ask_greedy(gather, engine, tiny, grammar)

    assert re.fullmatch(r"The sky is blue because\d{4}", answer.text)
    assert answer.done is not None
    assert answer.done.reason == "stop"


async def test_after_the_grammar_the_text_is_free_again(
    make_engine: MakeEngine, gather: Ask, tiny: Model
) -> None:
    engine = make_engine()
    grammar = AnswerGrammar("regex", "lue because[0-9]{4}", triggers=("lue b",))

    answer = await ask_greedy(gather, engine, tiny, grammar)

    assert re.match(r"The sky is blue because\d{4}.", answer.text, flags=re.DOTALL)


async def test_a_trigger_in_thinking_is_nothing(
    make_engine: MakeEngine, gather: Ask, tiny: Model
) -> None:
    engine = make_engine()
    # Greedy thinks "This is a simple question. I know the answer."
    grammar = AnswerGrammar("regex", "s[0-9]{3}", triggers=("s",), ends=True)

    answer = await ask(
        gather,
        engine,
        engine.submit(
            prompt_of(tiny, "<think>\n"),
            GREEDY,
            constraint=grammar,
            thinking=OPEN,
        ),
    )

    thinking, _, content = answer.text.partition("</think>")
    assert "simple question" in thinking
    assert re.fullmatch(r"\n\nThe sky is\d{3}", content)


async def test_a_triggered_grammar_that_cannot_be_compiled_is_left_out(
    make_engine: MakeEngine, gather: Ask, tiny: Model
) -> None:
    engine = make_engine()
    grammar = AnswerGrammar("lark", "start: nothing", triggers=("lue",))

    answer = await ask_greedy(gather, engine, tiny, grammar)

    assert answer.text.startswith("The sky is blue because of Rayleigh")
    assert engine.stats().n_dropped_constraints == 1


# -- the budget ------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [0, 1, 3])
async def test_a_spent_budget_closes_the_thinking(
    make_engine: MakeEngine, gather: Ask, tiny: Model, budget: int
) -> None:
    engine = make_engine()
    limits = msgspec.structs.replace(OPEN, budget=budget, close="</think>\n\n")

    free, bounded = await gather(
        engine,
        engine.submit(prompt_of(tiny, "<think>\n"), GREEDY),
        engine.submit(prompt_of(tiny, "<think>\n"), GREEDY, thinking=limits),
    )

    close = tiny.tokenize("</think>\n\n", add_special=False)
    assert bounded.tokens[: budget + len(close)] == [*free.tokens[:budget], *close]
    assert bounded.text.partition("</think>\n\n")[2].startswith("The sky is blue")
    assert bounded.done is not None
    assert bounded.done.n_generated == len(bounded.tokens)


async def test_the_budget_counts_from_the_start_tag_that_the_model_wrote(
    make_engine: MakeEngine, gather: Ask, tiny: Model
) -> None:
    engine = make_engine()
    limits = msgspec.structs.replace(TAGS, budget=3)

    answer = await ask(gather, engine, engine.submit(prompt_of(tiny), GREEDY, thinking=limits))

    start, end = token_of(tiny, "<think>"), token_of(tiny, "</think>")
    assert answer.tokens[0] == start
    assert answer.tokens.index(end) == 4


async def test_an_end_tag_that_has_begun_is_not_broken_off(
    make_engine: MakeEngine, gather: Ask, tiny: Model
) -> None:
    engine = make_engine()
    tag = " I know the answer."
    end = len(tiny.tokenize("This is a simple question." + tag, add_special=False))
    start = end - len(tiny.tokenize(tag, add_special=False))
    assert end - start > 3
    limits = msgspec.structs.replace(OPEN, ends=(tag,), close="!" + tag)

    answers = await gather(
        engine,
        *[
            engine.submit(
                prompt_of(tiny, "<think>\n"),
                GREEDY,
                thinking=msgspec.structs.replace(limits, budget=budget),
            )
            for budget in (start, start + 1, end - 1, end)
        ],
    )

    told = [answer.text.partition(tag)[0] for answer in answers]
    assert told == ["This is a simple question.!", *["This is a simple question."] * 3]


async def test_thinking_that_ends_within_its_budget_is_left_alone(
    make_engine: MakeEngine, gather: Ask, tiny: Model
) -> None:
    engine = make_engine()
    limits = msgspec.structs.replace(OPEN, budget=60)

    free, bounded = await gather(
        engine,
        engine.submit(prompt_of(tiny, "<think>\n"), GREEDY),
        engine.submit(prompt_of(tiny, "<think>\n"), GREEDY, thinking=limits),
    )

    assert bounded.tokens == free.tokens


async def test_a_tag_that_is_spoken_of_later_opens_nothing(
    make_engine: MakeEngine, gather: Ask, tiny: Model
) -> None:
    engine = make_engine()
    tags = ThinkingLimits(start=" sky", ends=("nowhere",), budget=0)

    answer = await ask(
        gather,
        engine,
        engine.submit(prompt_of(tiny, "<think>\n\n</think>\n\n"), GREEDY, thinking=tags),
    )

    assert answer.text.startswith("The sky is blue because of Rayleigh")


async def test_forced_tokens_have_logprobs(
    make_engine: MakeEngine, gather: Ask, tiny: Model
) -> None:
    engine = make_engine()
    limits = msgspec.structs.replace(OPEN, budget=1)
    sampling = msgspec.structs.replace(GREEDY, n_logprobs=2, n_predict=5)

    answer = await ask(
        gather, engine, engine.submit(prompt_of(tiny, "<think>\n"), sampling, thinking=limits)
    )

    assert len(answer.logprobs) == len(answer.tokens)
    forced = answer.logprobs[1]
    assert forced.token == b"</think>"
    assert forced.logprob < forced.top[0].logprob


async def test_a_budget_and_a_grammar_go_together(
    make_engine: MakeEngine, gather: Ask, tiny: Model
) -> None:
    engine = make_engine()
    limits = msgspec.structs.replace(OPEN, budget=2, close="</think>\n\n")

    answer = await ask(
        gather,
        engine,
        engine.submit(prompt_of(tiny, "<think>\n"), GREEDY, constraint=ANSWER, thinking=limits),
    )

    assert re.fullmatch(rf"This is</think>\n\n\s{{0,4}}{ANSWER_PATTERN}", answer.text)


@pytest.mark.parametrize(
    "limits",
    [
        ThinkingLimits(start="<think>"),
        ThinkingLimits(is_open=True),
        ThinkingLimits(ends=("",), is_open=True),
        ThinkingLimits(ends=("</think>",), budget=-2),
    ],
)
async def test_malformed_thinking_is_refused(
    make_engine: MakeEngine, tiny: Model, limits: ThinkingLimits
) -> None:
    engine = make_engine()

    with pytest.raises(InvalidArgument):
        engine.submit(prompt_of(tiny), thinking=limits)


async def test_the_grammar_of_calls_holds_after_thinking_as_well(
    make_engine: MakeEngine, gather: Ask, tiny: Model
) -> None:
    engine = make_engine()

    answer = await ask(
        gather,
        engine,
        engine.submit(
            prompt_of(tiny, "<think>\n"),
            GREEDY,
            constraint=AnswerGrammar("lark", CALL),
            thinking=OPEN,
            preserved_tokens=("<tool_call>", "</tool_call>"),
        ),
    )

    content = answer.text.partition("</think>")[2].strip()
    assert re.fullmatch(CALL_PATTERN, content)
    assert 0 <= json.loads(content[11:-12])["n"] <= 99
