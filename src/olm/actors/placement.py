"""What a model needs and whether it fits: memory estimates, load plans, when to reload, whom to evict. Pure.

Numbers come in as values; reading them from the kernel is `memory`'s business, acting on the answers `book`'s and the
scheduler's.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs
import msgspec

from olm.actors.client import StoredModel
from olm.chat.options import LoadOptions

__all__ = [
    "Candidate",
    "LoadPlan",
    "Policy",
    "choose_victim",
    "first_plan",
    "fitting_plan",
    "is_reload_needed",
    "is_unified",
    "need_bytes",
    "resolve_n_ctx",
    "spin_count",
    "usable_bytes",
    "useful_threads",
]

MIB: Final = 1 << 20

MIN_N_CTX: Final = 4
"""Ollama's lower bound of num_ctx (spec §1.7)."""

_KV_BITS: Final = {
    "f32": 32.0,
    "f16": 16.0,
    "bf16": 16.0,
    "q8_0": 8.5,
    "q5_1": 6.0,
    "q5_0": 5.5,
    "q4_1": 5.0,
    "q4_0": 4.5,
    "iq4_nl": 4.5,
}
"""Bits a value, block scales included (ggml block layouts)."""

_WORKER_BYTES: Final = 96 * MIB
"""A worker without a model: Python, libllama and its libraries (50–60 MiB measured), and room for buffers."""

_BATCH_BYTES: Final = ((2048, 2048 * MIB), (1024, 768 * MIB))
"""Compute buffers of big batches as Ollama surcharges them (spec §8.3); smaller ones are in `_WORKER_BYTES`."""

_THREAD_BYTES: Final = 8 * MIB
"""Weights that are worth a thread of their own."""

_SMALL_BYTES: Final = 64 * MIB
"""Below this a step takes 1-3 ms, and what is small change for other models decides: barriers, and masked cells."""

_RESERVE_FRAC: Final = 0.05
"""Share of the available memory that stays free: page cache for other programs, and our estimate's error."""

_SINGLE_SLOT: Final = frozenset(
    (
        "mllama",
        "qwen3vl",
        "qwen3vlmoe",
        "qwen35",
        "qwen35moe",
        "qwen3next",
        "lfm2",
        "lfm2moe",
        "nemotron_h",
        "nemotron_h_moe",
        "nemotron_h_omni",
        "mamba",
        "mamba2",
        "rwkv6",
        "rwkv7",
    )
)
"""Architectures that run one sequence: Ollama's list (spec §8.2), and the recurrent ones, whose state is a slot's."""


@attrs.frozen
class Policy:
    """The settings that decide about loading."""

    n_parallel: int = 4
    n_ctx: int = 4096
    kv_cache_type: str = "f16"
    max_loaded: int = 3


@attrs.frozen
class LoadPlan:
    """How a model is loaded: options with `n_ctx` filled in, slots, and what that is expected to take."""

    options: LoadOptions
    n_parallel: int
    need_bytes: int
    adapters: tuple[Path, ...] = ()


@attrs.frozen
class Candidate:
    """A loaded model as eviction sees it. `last_used_s` is the time of its last grant or release."""

    runner_id: int
    n_active: int
    last_used_s: float


def resolve_n_ctx(wanted: int | None, default: int, n_ctx_train: int) -> int:
    """Bound a context to what the model was trained for (0: not known) and to Ollama's minimum."""
    n_ctx = max(default if wanted is None else wanted, MIN_N_CTX)
    return min(n_ctx, n_ctx_train) if n_ctx_train > 0 else n_ctx


def need_bytes(
    model: StoredModel, *, n_ctx: int, n_parallel: int, kv_type: str, n_batch: int
) -> int:
    """Estimate what a loaded model takes: weights, KV cache of all slots, compute buffers, the worker itself."""
    kv = model.kv_bytes_per_token * n_ctx * n_parallel * _KV_BITS.get(kv_type, 16.0) / 16.0
    batch = next((size for least, size in _BATCH_BYTES if n_batch >= least), 0)
    return model.size_bytes + int(kv) + batch + _WORKER_BYTES


def usable_bytes(available_bytes: int, promised_bytes: int = 0) -> int:
    """Tell how much of the available memory may be given to a new model.

    Args:
        promised_bytes: what running and loading models may still take of it.
    """
    return max(int(available_bytes * (1 - _RESERVE_FRAC)) - promised_bytes, 0)


def first_plan(model: StoredModel, wanted: LoadOptions, policy: Policy) -> LoadPlan:
    """Plan a load with all the slots the policy allows for this kind of model, whatever the memory says."""
    single = "completion" not in model.capabilities or model.architecture in _SINGLE_SLOT
    return _plan(model, wanted, policy, 1 if single else max(policy.n_parallel, 1))


def fitting_plan(
    model: StoredModel, wanted: LoadOptions, policy: Policy, limit_bytes: int
) -> LoadPlan | None:
    """Plan a load within a memory limit, with fewer slots where that helps. None when even one slot is too much."""
    for n_parallel in range(first_plan(model, wanted, policy).n_parallel, 0, -1):
        plan = _plan(model, wanted, policy, n_parallel)
        if plan.need_bytes <= limit_bytes:
            return plan
    return None


def _plan(model: StoredModel, wanted: LoadOptions, policy: Policy, n_parallel: int) -> LoadPlan:
    n_ctx = resolve_n_ctx(wanted.n_ctx, policy.n_ctx, model.n_ctx_train)
    return LoadPlan(
        options=msgspec.structs.replace(wanted, n_ctx=n_ctx),
        n_parallel=n_parallel,
        need_bytes=need_bytes(
            model,
            n_ctx=n_ctx,
            n_parallel=n_parallel,
            kv_type=policy.kv_cache_type,
            n_batch=wanted.n_batch or 0,
        ),
        adapters=model.adapters,
    )


def is_reload_needed(loaded: LoadPlan, model: StoredModel, wanted: LoadOptions) -> bool:
    """Tell whether a request cannot use a loaded model as it is.

    Only what the request or its Modelfile *sets* counts: a request that leaves the context to the server takes any
    (Ollama reloads more, spec §8.5, and so lets alternating clients evict each other).
    """
    if loaded.adapters != model.adapters:
        return True
    if wanted.n_ctx is not None:
        wanted = msgspec.structs.replace(
            wanted, n_ctx=resolve_n_ctx(wanted.n_ctx, 0, model.n_ctx_train)
        )
    return any(
        value is not None and value != getattr(loaded.options, name)
        for name, value in msgspec.structs.asdict(wanted).items()
    )


def spin_count(size_bytes: int) -> int:
    """Choose libgomp's GOMP_SPINCOUNT: how long a thread spins at a barrier, of which a step has hundreds, before it sleeps.

    Measured on two cores. 0.5 B: 2000 gives 0.97 of what 4000 gives, and with another program on one core 18 tokens/s
    where 8000 gives 10. 15 M: 2000 gives 460 tokens/s, 10000 gives 505, 50000 gives 525; its steps are shorter than a time slice, so
    a preempted partner costs it the same whether it spins or sleeps.
    """
    return 50_000 if size_bytes < _SMALL_BYTES else 2_000


def is_unified(size_bytes: int) -> bool:
    """Choose whether all slots share one set of KV cells, or have a region each.

    Shared cells take every decoding row in one pass over the weights, but a row looks past the cells of all others.
    Regions spare that, but slots that are not neighbours need a pass each. Passes over a small model are cheap.
    """
    return size_bytes >= _SMALL_BYTES


def useful_threads(size_bytes: int, n_cpus: int) -> int:
    """Bound the threads of a small model; 0 leaves the choice to the engine.

    A thread has to save more than the barriers of each step cost. Measured on two cores: the 2.4 M model
    makes 700 tokens/s with one thread and 520 with two, the 15 M shape (16 MiB) 420 with one and 550 with two.
    """
    n_useful = max(size_bytes // _THREAD_BYTES, 1)
    return n_useful if n_useful < n_cpus else 0


def choose_victim(candidates: Iterable[Candidate], *, idle_only: bool) -> int | None:
    """Choose whom to evict: the least recently used idle model; among busy ones, unless excluded, the same."""
    able = [item for item in candidates if item.n_active == 0 or not idle_only]
    if not able:
        return None
    return min(
        able, key=lambda item: (item.n_active > 0, item.last_used_s, item.runner_id)
    ).runner_id
