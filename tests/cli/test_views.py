"""What the commands print, against samples of the formats of Ollama's command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from olm.cli.views import list_view, processor, ps_view, show_view, statistics, until

NOW = datetime(2026, 8, 21, 18, 0, tzinfo=UTC)


def test_list_shows_name_short_id_size_and_age() -> None:
    tags = {
        "models": [
            {
                "name": "llama3.2:latest",
                "digest": "a80c4f17acd55265feec403c7aef86be0c25983ab279d83f3bcd3abbcb5b8b72",
                "size": 2019393189,
                "modified_at": "2026-08-18T20:00:00.000000001+02:00",
            },
            {
                "name": "Tiny",
                "digest": "0" * 64,
                "size": 999,
                "modified_at": "0001-01-01T00:00:00Z",
            },
        ]
    }

    assert list_view(tags, "", NOW) == [
        "NAME               ID              SIZE      MODIFIED      ",
        "llama3.2:latest    a80c4f17acd5    2.0 GB    3 days ago    ",
        "Tiny               000000000000    999 B     Never         ",
    ]
    assert [line.split()[0] for line in list_view(tags, "TI", NOW)] == ["NAME", "Tiny"]


@pytest.mark.parametrize(
    ("size", "on_gpu", "text"),
    [
        (100, 0, "100% CPU"),
        (100, 100, "100% GPU"),
        (100, 52, "48%/52% CPU/GPU"),
        (100, 101, "Unknown"),
        (200, 1, "100%/0% CPU/GPU"),
        (0, 0, "100% CPU"),
    ],
)
def test_processor(size: int, on_gpu: int, text: str) -> None:
    assert processor(size, on_gpu) == text


@pytest.mark.parametrize(
    ("ahead", "text"),
    [
        (timedelta(minutes=4, seconds=30), "4 minutes from now"),
        (timedelta(seconds=-1), "Stopping..."),
        (timedelta(days=292 * 365), "Forever"),
    ],
)
def test_until(ahead: timedelta, text: str) -> None:
    assert until((NOW + ahead).isoformat(), NOW) == text


def test_ps_shows_where_the_model_is_and_when_it_goes() -> None:
    loaded = {
        "models": [
            {
                "name": "tiny:latest",
                "digest": "ab" * 32,
                "size": 12_000_000,
                "size_vram": 0,
                "context_length": 4096,
                "expires_at": "2026-08-21T20:05:00.5+02:00",
            }
        ]
    }

    assert ps_view(loaded, "", NOW) == [
        "NAME           ID              SIZE     PROCESSOR    CONTEXT    UNTIL                 ",
        "tiny:latest    abababababab    12 MB    100% CPU     4096       5 minutes from now    ",
    ]


def test_show_prints_sections_that_have_something_in_them() -> None:
    shown = {
        "details": {"family": "llama", "parameter_size": "3.2B", "quantization_level": "Q4_K_M"},
        "model_info": {
            "general.architecture": "llama",
            "general.parameter_count": 3_212_749_888,
            "llama.context_length": 131_072,
            "llama.embedding_length": 3072,
            "tokenizer.ggml.tokens": ["a", "b", "cc", "dd", "ee", "ff"],
            "llama.rope.freq_base": 500000.0,
        },
        "capabilities": ["completion", "tools", "thinking"],
        "parameters": 'stop                           "<|eot_id|>"\ntemperature                    0.7',
        "system": "You are kind.\n\nAnd short.\nAnd more.",
        "license": "MIT",
        "tensors": [{"name": "output.weight", "type": "Q8_0", "shape": [64, 128]}],
    }

    plain = "\n".join(show_view(shown))
    verbose = "\n".join(show_view(shown, verbose=True))

    assert plain == "\n".join(
        [
            "  Model",
            "    architecture        llama     ",
            "    parameters          3.2B      ",
            "    context length      131072    ",
            "    embedding length    3072      ",
            "    quantization        Q4_K_M    ",
            "",
            "  Capabilities",
            "    completion    ",
            "    tools         ",
            "    thinking      ",
            "",
            "  Parameters",
            '    stop           "<|eot_id|>"    ',
            "    temperature    0.7" + " " * 13,
            "",
            "  System",
            "    You are kind.    ",
            "    And short.       ",
            "    ...              ",
            "",
            "  License",
            "    MIT    ",
            "",
        ]
    )
    assert "    tokenizer.ggml.tokens      [a b cc ...+3 more]    " in verbose
    assert "    llama.rope.freq_base       500000                 " in verbose
    assert "    output.weight    Q8_0    [64 128]    " in verbose


def test_show_of_a_model_without_details_prints_what_there_is() -> None:
    assert show_view({"details": {"family": "bert"}, "model_info": None}) == [
        "  Model",
        "    architecture    bert    ",
        "",
    ]


def test_statistics_are_aligned_and_leave_out_what_was_not_measured() -> None:
    final = {
        "total_duration": 812_345_678,
        "load_duration": 41_234_567,
        "prompt_eval_count": 11,
        "prompt_eval_duration": 20_000_000,
        "eval_count": 2,
        "eval_duration": 18_000_000,
    }

    assert statistics(final) == [
        "total duration:       812.345678ms",
        "load duration:        41.234567ms",
        "prompt eval count:    11 token(s)",
        "prompt eval duration: 20ms",
        "prompt eval rate:     550.00 tokens/s",
        "eval count:           2 token(s)",
        "eval duration:        18ms",
        "eval rate:            111.11 tokens/s",
    ]
    assert statistics({"total_duration": 1_500_000_000}) == ["total duration:       1.5s"]
    assert statistics({"truncated": True}) == ["prompt truncated:     yes"]
