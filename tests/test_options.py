"""Model options: coercion with Ollama's words, precedence, the split between load and request."""

from __future__ import annotations

import math

import msgspec
import pytest

from olm.chat.options import OPTION_TYPES, coerce_options, load_options, merge_options, sampling
from olm.chat.types import Sampling
from olm.errors import InvalidOption


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("num_ctx", "big", 'option "num_ctx" must be of type integer'),
        ("num_ctx", True, 'option "num_ctx" must be of type integer'),
        ("temperature", "hot", 'option "temperature" must be of type float32'),
        ("use_mmap", 1, 'option "use_mmap" must be of type boolean'),
        ("stop", "end", 'option "stop" must be of type array'),
        ("stop", ["a", 1], 'option "stop" must be of an array of strings'),
    ],
)
def test_wrong_types_are_told_in_ollamas_words(key: str, value: object, words: str) -> None:
    """The texts and the status 500 are Ollama's."""
    with pytest.raises(InvalidOption) as caught:
        coerce_options({key: value})

    assert (str(caught.value), caught.value.http_status) == (words, 500)


@pytest.mark.parametrize("value", [1e308, math.inf, math.nan])
def test_numbers_that_are_no_float32_are_refused(value: float) -> None:
    """They would become infinities in the engine."""
    with pytest.raises(InvalidOption):
        coerce_options({"temperature": value})


@pytest.mark.parametrize("value", [2**63, -(2**40), 1e20])
def test_integers_out_of_range_are_refused(value: float) -> None:
    """The engine counts in 32 bits."""
    with pytest.raises(InvalidOption):
        coerce_options({"num_predict": value})


def test_floats_are_truncated_and_nulls_and_strangers_skipped() -> None:
    """Go's JSON accepts 4096.0 where an integer is wanted."""
    assert coerce_options({"num_ctx": 4096.9, "seed": None, "unheard_of": {}}) == {"num_ctx": 4096}


def test_later_layers_win() -> None:
    """defaults < Modelfile < request."""
    assert merge_options({"top_k": 1, "seed": 2}, {"top_k": 3}) == {"top_k": 3, "seed": 2}


def test_request_options_become_sampling() -> None:
    """Names of the API become those of the engine; load-time options stay out."""
    chosen = sampling(
        merge_options({"num_predict": 5, "num_keep": 7, "stop": ["x"], "num_ctx": 9}), n_logprobs=2
    )

    assert chosen == Sampling(n_predict=5, n_keep=7, stop=("x",), n_logprobs=2)


def test_load_options_drop_what_means_automatic() -> None:
    """-1 layers and 0 threads leave the choice to the runner."""
    chosen = load_options(
        merge_options({"num_gpu": -1, "num_thread": 0, "num_ctx": 64, "use_mmap": False})
    )

    assert (chosen.n_gpu_layers, chosen.n_threads, chosen.n_ctx, chosen.use_mmap) == (
        None,
        None,
        64,
        False,
    )


def test_every_request_option_has_a_place() -> None:
    """No key of the table is silently without effect."""
    elsewhere = {
        "adapters",  # a list, see `olm.chat.adapters`
        "num_ctx",
        "num_batch",
        "num_gpu",
        "main_gpu",
        "use_mmap",
        "num_thread",
        "draft_num_predict",
    }
    fields = {field.name for field in msgspec.structs.fields(Sampling)}
    renamed = {"num_keep": "n_keep", "num_predict": "n_predict"}

    assert {renamed.get(key, key) for key in OPTION_TYPES if key not in elsewhere} <= fields


@pytest.mark.parametrize(
    "options",
    [
        {"num_thread": -3},
        {"num_thread": 10_000},
        {"num_gpu": -7},
        {"main_gpu": 99},
        {"num_batch": -1},
    ],
)
def test_load_options_that_no_engine_takes_are_refused_before_a_load(
    options: dict[str, int],
) -> None:
    """They would replace a healthy runner with one that cannot start."""
    with pytest.raises(InvalidOption, match="out of range") as caught:
        load_options(merge_options(options))

    assert caught.value.http_status == 400


@pytest.mark.parametrize("token", ["99999999999999999999", "\u00b2", "-1", "a", ""])
def test_logit_bias_takes_token_ids_only(token: str) -> None:
    """Other keys would overflow on their way to the engine."""
    with pytest.raises(InvalidOption):
        coerce_options({"logit_bias": {token: 1}})


def test_logit_bias_values_must_be_numbers_the_engine_can_add() -> None:
    """An infinity would end as a NaN in the probabilities."""
    with pytest.raises(InvalidOption):
        coerce_options({"logit_bias": {"1": math.inf}})
    assert coerce_options({"logit_bias": {"1": -2}}) == {"logit_bias": {1: -2.0}}
