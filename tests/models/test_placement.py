"""Memory estimates, load plans, reloads and victims: pure decisions."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.models import MIB, stored_model
from olm.actors.memory import cgroup_free_bytes, parse_kib
from olm.actors.placement import (
    Candidate,
    Policy,
    choose_victim,
    first_plan,
    fitting_plan,
    is_reload_needed,
    need_bytes,
    resolve_n_ctx,
    usable_bytes,
    useful_threads,
)
from olm.chat.options import LoadOptions


@pytest.mark.parametrize(
    ("wanted", "default", "trained", "expected"),
    [
        (None, 4096, 2048, 2048),
        (None, 4096, 0, 4096),
        (512, 4096, 2048, 512),
        (1, 4096, 2048, 4),
        (9999, 4096, 2048, 2048),
    ],
)
def test_context_is_bounded_by_training_and_minimum(
    wanted: int | None, default: int, trained: int, expected: int
) -> None:
    assert resolve_n_ctx(wanted, default, trained) == expected


def test_kv_cache_grows_with_context_slots_and_type() -> None:
    model = stored_model(kv_bytes_per_token=1000)

    def need(n_ctx: int, n_parallel: int, kv_type: str) -> int:
        return need_bytes(model, n_ctx=n_ctx, n_parallel=n_parallel, kv_type=kv_type, n_batch=0)

    base = need(0, 1, "f16")
    assert need(1000, 4, "f16") - base == 4_000_000
    assert need(1000, 4, "q8_0") - base == 2_125_000


def test_slots_shrink_until_the_model_fits() -> None:
    model = stored_model(size_bytes=0, kv_bytes_per_token=MIB)
    policy = Policy(n_parallel=4, n_ctx=100)
    one_slot = first_plan(model, LoadOptions(), Policy(n_parallel=1, n_ctx=100)).need_bytes

    plan = fitting_plan(model, LoadOptions(), policy, one_slot + 100 * MIB)

    assert plan is not None
    assert plan.n_parallel == 2
    assert fitting_plan(model, LoadOptions(), policy, one_slot - 1) is None


@pytest.mark.parametrize("fields", [{"capabilities": ("embedding",)}, {"architecture": "mamba"}])
def test_special_models_get_one_slot(fields: dict[str, object]) -> None:
    plan = first_plan(stored_model(**fields), LoadOptions(), Policy(n_parallel=4))  # type: ignore[arg-type]  # by name

    assert plan.n_parallel == 1


@given(
    size=st.integers(0, 1 << 36),
    kv=st.integers(0, 1 << 20),
    n_ctx=st.integers(1, 1 << 17),
    slots=st.integers(1, 64),
    available=st.integers(0, 1 << 38),
    promised=st.integers(0, 1 << 37),
)
def test_a_fitting_plan_fits(
    size: int, kv: int, n_ctx: int, slots: int, available: int, promised: int
) -> None:
    model = stored_model(size_bytes=size, kv_bytes_per_token=kv, n_ctx_train=0)
    limit = usable_bytes(available, promised)

    plan = fitting_plan(model, LoadOptions(), Policy(n_parallel=slots, n_ctx=n_ctx), limit)

    assert limit <= max(available - promised, 0)
    if plan is not None:
        assert plan.need_bytes <= limit
        assert 1 <= plan.n_parallel <= slots


def test_only_what_a_request_sets_asks_for_a_reload() -> None:
    model = stored_model(n_ctx_train=4096)
    loaded = first_plan(model, LoadOptions(n_ctx=8192), Policy())

    assert not is_reload_needed(loaded, model, LoadOptions())
    assert not is_reload_needed(loaded, model, LoadOptions(n_ctx=4096))
    assert not is_reload_needed(loaded, model, LoadOptions(n_ctx=99999))
    assert is_reload_needed(loaded, model, LoadOptions(n_ctx=2048))
    assert is_reload_needed(loaded, model, LoadOptions(n_threads=1))


def test_other_adapters_need_a_reload() -> None:
    plain, adapted = stored_model(), stored_model(adapters=(Path("/blobs/lora"),))

    assert is_reload_needed(first_plan(plain, LoadOptions(), Policy()), adapted, LoadOptions())
    assert not is_reload_needed(
        first_plan(adapted, LoadOptions(), Policy()), adapted, LoadOptions()
    )


@given(
    st.builds(LoadOptions, n_ctx=st.none() | st.integers(1, 9000), n_threads=st.none() | st.just(2))
)
def test_a_plan_never_asks_to_be_reloaded_for_its_own_options(options: LoadOptions) -> None:
    model = stored_model()

    plan = first_plan(model, options, Policy())

    assert not is_reload_needed(plan, model, options)
    assert not is_reload_needed(plan, model, msgspec.structs.replace(options, n_ctx=None))


@pytest.mark.parametrize(
    ("size_mib", "n_cpus", "expected"), [(2, 2, 1), (2, 64, 1), (17, 64, 2), (500, 8, 0), (2, 1, 0)]
)
def test_small_models_get_few_threads(size_mib: int, n_cpus: int, expected: int) -> None:
    assert useful_threads(size_mib * MIB, n_cpus) == expected


def test_the_victim_is_the_least_recently_used_idle_model() -> None:
    old_busy, old, new = Candidate(1, 1, 0.0), Candidate(2, 0, 5.0), Candidate(3, 0, 9.0)

    assert choose_victim([new, old, old_busy], idle_only=False) == 2
    assert choose_victim([old_busy], idle_only=True) is None
    assert choose_victim([old_busy], idle_only=False) == 1


def test_memory_is_read_from_the_kernels_texts() -> None:
    assert parse_kib("MemFree: 1 kB\nMemAvailable:   2048 kB\n", "MemAvailable") == 2 * MIB
    assert parse_kib("", "MemAvailable") is None
    assert cgroup_free_bytes("max\n", "5\n", "") is None
    assert cgroup_free_bytes("100\n", "90\n", "anon 1\ninactive_file 30\n") == 40
    assert cgroup_free_bytes("100\n", "190\n", "") == 0
