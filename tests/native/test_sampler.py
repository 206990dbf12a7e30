"""Choosing tokens: options, seeds, and agreement with the plain definitions of each stage."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping

import msgspec
import pytest

from olm.chat.types import Sampling
from olm.native.handles import Model
from olm.native.lib import InvalidArgument, ffi, lib, take_text

pytestmark = pytest.mark.native


def draw(model: Model, row: list[float], n: int = 1, **options: object) -> list[int]:
    data = ffi.new("float[]", row)
    request = msgspec.json.encode(options)
    text = take_text(
        lambda out: lib.olm_test_sample(model.pointer, request, data, len(row), n, out)
    )
    return msgspec.json.decode(text, type=list[int])


@pytest.fixture(scope="module")
def row(tiny: Model) -> list[float]:
    source = random.Random(7)
    return [source.gauss(0, 2) for _ in range(tiny.info.n_vocab)]


@pytest.fixture(scope="module")
def by_logit(row: list[float]) -> list[int]:
    return sorted(range(len(row)), key=lambda token: -row[token])


PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 1}


def test_temperature_zero_takes_the_best(
    tiny: Model, row: list[float], by_logit: list[int]
) -> None:
    assert draw(tiny, row, temperature=0) == by_logit[:1]


@pytest.mark.parametrize("place", [0, 1, 15, 16, 63, 64, 1023, 2047])
def test_the_best_is_found_wherever_it_is(tiny: Model, row: list[float], place: int) -> None:
    high = row.copy()
    high[place] = 99.0

    assert draw(tiny, high, temperature=0) == [place]


def test_a_seed_repeats_itself(tiny: Model, row: list[float]) -> None:
    assert draw(tiny, row, 50, seed=42) == draw(tiny, row, 50, seed=42)
    assert draw(tiny, row, 50, seed=42) != draw(tiny, row, 50, seed=43)


@pytest.mark.parametrize("k", [1, 2, 40, 1000])
def test_top_k_keeps_k(tiny: Model, row: list[float], by_logit: list[int], k: int) -> None:
    drawn = draw(tiny, row, 400, **{**PLAIN, "temperature": 50.0, "top_k": k})

    assert set(drawn) <= set(by_logit[:k])
    assert len(set(drawn)) > k // 4


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("typical", [1.0, 0.999999])
def test_top_p_without_top_k_keeps_the_smallest_set(
    tiny: Model, row: list[float], by_logit: list[int], top_p: float, typical: float
) -> None:
    total = sum(math.exp(logit) for logit in row)
    kept, mass = set(), 0.0
    for token in by_logit:
        kept.add(token)
        mass += math.exp(row[token]) / total
        if mass >= top_p:
            break

    drawn = draw(tiny, row, 500, **{**PLAIN, "top_p": top_p, "typical_p": typical})

    assert set(drawn) <= kept


def test_the_draw_follows_the_softmax(tiny: Model) -> None:
    flat = [-1000.0] * tiny.info.n_vocab
    flat[5], flat[9] = math.log(0.75), math.log(0.25)

    counts = Counter(draw(tiny, flat, 4000, **PLAIN))

    assert set(counts) == {5, 9}
    assert abs(counts[5] / 4000 - 0.75) < 0.03


def test_min_p_cuts_by_the_best(tiny: Model, row: list[float], by_logit: list[int]) -> None:
    bound = row[by_logit[0]] + math.log(0.2)

    drawn = draw(tiny, row, 300, **{**PLAIN, "min_p": 0.2})

    assert all(row[token] >= bound for token in drawn)


def test_top_n_sigma_cuts_by_deviation(tiny: Model, row: list[float], by_logit: list[int]) -> None:
    mean = sum(row) / len(row)
    sigma = math.sqrt(sum((x - mean) ** 2 for x in row) / len(row))
    bound = row[by_logit[0]] - 0.5 * sigma - 1e-4

    for top_k in (0, 100):
        drawn = draw(
            tiny, row, 300, **{**PLAIN, "temperature": 9.0, "top_k": top_k, "top_n_sigma": 0.5}
        )
        assert all(row[token] >= bound for token in drawn)


def test_xtc_removes_the_best_when_others_will_do(tiny: Model) -> None:
    flat = [-1000.0] * tiny.info.n_vocab
    flat[5], flat[9] = math.log(0.6), math.log(0.4)

    assert set(draw(tiny, flat, 50, **{**PLAIN, "xtc_probability": 1.0, "xtc_threshold": 0.1})) == {
        9
    }


def test_logit_bias_forbids_and_forces(tiny: Model, row: list[float], by_logit: list[int]) -> None:
    first, second = by_logit[:2]

    assert draw(tiny, row, temperature=0, logit_bias={str(first): -100.0}) == [second]
    assert draw(tiny, row, temperature=0, logit_bias={"3": 100.0}) == [3]


def test_ignore_eos_never_draws_an_end(tiny: Model) -> None:
    flat = [0.0] * tiny.info.n_vocab
    for token in tiny.info.eog:
        flat[token] = 50.0

    assert draw(tiny, flat, temperature=0)[0] in tiny.info.eog
    assert draw(tiny, flat, temperature=0, ignore_eos=True)[0] not in tiny.info.eog


def test_repeat_penalty_divides_what_was_positive_and_multiplies_what_was_not(tiny: Model) -> None:
    positive = [-9.0] * tiny.info.n_vocab
    positive[1], positive[2] = 3.0, 2.0
    negative = [-9.0] * tiny.info.n_vocab
    negative[1], negative[2] = -1.0, -1.4

    assert draw(tiny, positive, 3, temperature=0, repeat_penalty=1.4) == [1, 1, 1]
    assert draw(tiny, positive, 3, temperature=0, repeat_penalty=1.6) == [1, 2, 1]
    assert draw(tiny, negative, 2, temperature=0, repeat_penalty=1.5) == [1, 2]


def test_the_penalty_window_forgets(tiny: Model) -> None:
    flat = [-9.0] * tiny.info.n_vocab
    flat[1], flat[2], flat[3] = 3.0, 2.9, 2.8

    short = draw(tiny, flat, 4, temperature=0, presence_penalty=1.0, repeat_last_n=1)
    long = draw(tiny, flat, 4, temperature=0, presence_penalty=1.0, repeat_last_n=-1)
    off = draw(tiny, flat, 2, temperature=0, presence_penalty=1.0, repeat_last_n=0)

    assert short == [1, 2, 1, 2]
    assert long[:3] == [1, 2, 3]
    assert off == [1, 1]


def test_frequency_penalty_grows_with_the_count(tiny: Model) -> None:
    flat = [-9.0] * tiny.info.n_vocab
    flat[1], flat[2] = 3.0, 2.0

    assert draw(tiny, flat, 5, temperature=0, frequency_penalty=0.4) == [1, 1, 1, 2, 1]


def test_dry_breaks_a_loop(tiny: Model) -> None:
    flat = [-9.0] * tiny.info.n_vocab
    flat[11], flat[12] = 3.0, 2.9

    assert draw(tiny, flat, 6, temperature=0) == [11] * 6
    assert 12 in draw(tiny, flat, 6, temperature=0, dry_multiplier=0.8)


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_draws_repeatably(tiny: Model, row: list[float], version: int) -> None:
    options = {"mirostat": version, "seed": 3}

    assert draw(tiny, row, 20, **options) == draw(tiny, row, 20, **options)


OPTIONS: Mapping[str, object] = {
    "temperature": 1.3, "top_k": 7, "top_p": 0.4, "min_p": 0.1, "typical_p": 0.7, "top_n_sigma": 1.5,
    "repeat_last_n": 12, "repeat_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": 0.5,
    "mirostat": 2, "mirostat_tau": 4.0, "mirostat_eta": 0.2, "dry_multiplier": 0.5, "dry_base": 1.5,
    "dry_allowed_length": 3, "dry_penalty_last_n": 32, "xtc_probability": 0.5, "xtc_threshold": 0.2,
    "dynatemp_range": 0.5, "dynatemp_exponent": 1.5, "ignore_eos": True, "seed": 9, "n_logprobs": 3,
    "n_predict": 4, "n_keep": 2, "stop": ("x",), "logit_bias": {5: 1.0},
}  # fmt: skip


def test_the_table_of_options_is_whole() -> None:
    # The budget of thinking is no sampler's: it goes to the engine with the tags (`ThinkingLimits`).
    assert set(OPTIONS) | {"think_budget"} == set(Sampling.__struct_fields__)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_option_is_accepted_alone(tiny: Model, row: list[float], name: str) -> None:
    options = msgspec.json.decode(msgspec.json.encode({name: OPTIONS[name]}))

    assert len(draw(tiny, row, 3, **options)) == 3


def test_all_options_together(tiny: Model, row: list[float]) -> None:
    options = msgspec.json.decode(msgspec.json.encode({**OPTIONS, "mirostat": 0}))

    assert len(draw(tiny, row, 20, **options)) == 20


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": "hot"}, {"top_k": 1.5}, {"mirostat": 3}, {"repeat_penalty": 0.0}, {"logit_bias": {"x": 1.0}},
        {"logit_bias": {"99999999": 1.0}}, {"n_logprobs": 5000}, {"top_p": 1e39}, {"ignore_eos": 1},
    ],
)  # fmt: skip
def test_a_wrong_option_is_refused(
    tiny: Model, row: list[float], options: dict[str, object]
) -> None:
    with pytest.raises(InvalidArgument):
        draw(tiny, row, **options)
