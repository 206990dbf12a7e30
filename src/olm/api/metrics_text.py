"""The numbers of `metrics` and `olm.actors.stats` as Prometheus reads them. Imported at the first scrape.

Names follow vLLM's (`time_to_first_token_seconds`, `inter_token_latency_seconds`, `request_queue_time_seconds`) and
llama-server's (`prompt_seconds_total`) where they count the same. Every family is there from the first scrape on, so
that a dashboard can be made before there is traffic.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from olm import __version__
from olm.actors.stats import ModelCounts, RunnerStats, Snapshot
from olm.api.metrics import Histogram, Metrics, ModelMeter
from olm.native.wire import WorkerStats

__all__ = ["write_metrics"]

_STOPS: Final = {
    "its keep-alive is over": "idle",
    "another model needs the room": "room",
    "other load options are asked for": "options",
}
"""The book's reasons as labels; one that is not here is `other`."""

_METER_COUNTERS: Final[Sequence[tuple[str, str, Callable[[ModelMeter], float]]]] = (
    ("prompt_tokens", "Prompt tokens, cached ones included.", lambda m: m.n_prompt),
    ("prompt_tokens_cached", "Prompt tokens that needed no computation.", lambda m: m.n_cached),
    ("generation_tokens", "Generated tokens, the end token included.", lambda m: m.n_generated),
    ("prompt_seconds", "Time in prompt processing.", lambda m: m.prompt_s),
    ("generation_seconds", "Time in generation.", lambda m: m.eval_s),
    ("tool_calls", "Tool calls in answers.", lambda m: m.n_calls),
    ("malformed_tool_calls", "Answers with a tool call that could not be read.", lambda m: m.n_malformed),
    ("embeddings", "Inputs embedded.", lambda m: m.n_embedded),
    ("rerank_documents", "Documents scored.", lambda m: m.n_ranked),
)  # fmt: skip

_METER_HISTOGRAMS: Final[Sequence[tuple[str, str, Callable[[ModelMeter], Histogram]]]] = (
    ("request_queue_time_seconds", "Wait for a slot, the load included.", lambda m: m.queue),
    ("time_to_first_token_seconds", "From a request's arrival to the first event of its answer.", lambda m: m.first),
    ("inter_token_latency_seconds", "Between events of an answer, as they reach the API.", lambda m: m.between),
)  # fmt: skip

_RUNNER_GAUGES: Final[Sequence[tuple[str, str, Callable[[RunnerStats], float]]]] = (
    ("model_loaded_bytes", "Weights, KV cache and buffers of a loaded model.", lambda r: r.model.size_bytes),
    ("model_vram_bytes", "The part of it on GPUs.", lambda r: r.model.vram_bytes),
    ("model_context_tokens", "Context of one slot.", lambda r: r.model.n_ctx),
    ("model_slots", "Turns that can run at once.", lambda r: r.info.n_parallel),
    ("requests_running", "Turns that hold a slot.", lambda r: r.n_active),
)  # fmt: skip

_ENGINE_COUNTERS: Final[Sequence[tuple[str, str, Callable[[WorkerStats], float]]]] = (
    ("engine_steps", "Batches computed since the load.", lambda e: e.n_steps),
    ("engine_prompt_tokens", "Prompt tokens computed since the load.", lambda e: e.n_prompt_tokens),
    ("engine_generated_tokens", "Tokens generated since the load, of abandoned turns too.", lambda e: e.n_decoded_tokens),
)  # fmt: skip

_ENGINE_GAUGES: Final[Sequence[tuple[str, str, Callable[[WorkerStats], float]]]] = (
    ("engine_sequences_running", "Sequences in the batch.", lambda e: e.n_running),
    ("engine_sequences_waiting", "Sequences that wait for KV cells.", lambda e: e.n_waiting),
    ("engine_kv_cells_used", "KV cells in use, one a token.", lambda e: e.n_cells_used),
)  # fmt: skip


def write_metrics(
    metrics: Metrics, snapshot: Snapshot | None, *, n_in_flight: int, accept: str
) -> tuple[bytes, str]:
    """Write everything, in the format that the scraper asks for; takes a few milliseconds.

    Args:
        metrics: a copy that nobody changes meanwhile.
        snapshot: None when the scheduler did not answer: its families are left out.
        n_in_flight: HTTP requests that have not ended, this one included.
        accept: the Accept header: plain text, or OpenMetrics.

    Returns:
        The document and its content type.
    """
    registry = CollectorRegistry()
    registry.register(_Page(metrics, snapshot, n_in_flight))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Page(Collector):
    def __init__(self, metrics: Metrics, snapshot: Snapshot | None, n_in_flight: int) -> None:
        self._metrics = metrics
        self._snapshot = snapshot
        self._n_in_flight = n_in_flight

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: a registry that asks would collect everything twice."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All families but the process's."""
        info = {"version": __version__, "python": platform.python_version()}
        yield InfoMetricFamily("olm_build", "This program.", value=info)
        yield from _http(self._metrics, self._n_in_flight)
        names = _stored_names(self._snapshot)
        meters = {names.get(key, m.name): m for key, m in self._metrics.models.items()}
        yield from _turns(meters)
        yield from _jobs(self._metrics)
        if self._snapshot is not None:
            yield from _scheduler(self._snapshot)
            yield from _engines(self._snapshot.engines)


def _stored_names(snapshot: Snapshot | None) -> Mapping[str, str]:
    """How the store spells names, by their lower case: both halves of the page shall agree."""
    counts = snapshot.scheduler.counts if snapshot is not None else {}
    return {name.lower(): name for name in counts}


def _http(metrics: Metrics, n_in_flight: int) -> Iterator[Metric]:
    labels = ["route", "method", "status"]
    requests = CounterMetricFamily("olm_http_requests", "HTTP requests that ended.", labels=labels)
    for (route, method, status), n in metrics.requests.items():
        requests.add_metric([route, method, str(status)], n)
    yield requests
    seconds = HistogramMetricFamily(
        "olm_http_request_seconds", "From a request's head to its last byte.", labels=["route"]
    )
    for route, histogram in metrics.durations.items():
        _add(seconds, route, histogram)
    yield seconds
    yield GaugeMetricFamily(
        "olm_http_requests_in_flight", "HTTP requests that have not ended.", value=n_in_flight
    )


def _turns(meters: Mapping[str, ModelMeter]) -> Iterator[Metric]:
    turns = CounterMetricFamily("olm_turns", "Answers, by how they ended.", labels=["model", "end"])
    for name, meter in meters.items():
        for end, n in meter.turns.items():
            turns.add_metric([name, end], n)
    yield turns
    for name, text, value in _METER_COUNTERS:
        yield _counter(name, text, {model: value(meter) for model, meter in meters.items()})
    for name, text, histogram in _METER_HISTOGRAMS:
        family = HistogramMetricFamily(f"olm_{name}", text, labels=["model"])
        for model, meter in meters.items():
            _add(family, model, histogram(meter))
        yield family


def _jobs(metrics: Metrics) -> Iterator[Metric]:
    jobs = CounterMetricFamily("olm_jobs", "Jobs that ended.", labels=["kind", "end"])
    for (kind, end), n in metrics.jobs.items():
        jobs.add_metric([kind, end], n)
    yield jobs
    moved = CounterMetricFamily("olm_transfer_bytes", "Bytes that jobs moved.", labels=["kind"])
    for kind, n in metrics.transferred.items():
        moved.add_metric([kind], n)
    yield moved


def _scheduler(snapshot: Snapshot) -> Iterator[Metric]:
    stats = snapshot.scheduler
    yield _gauge("requests_waiting", "Turns that wait for a slot or a load.", stats.n_waiting)
    for name, text, value in _RUNNER_GAUGES:
        yield _gauge(name, text, {r.model.name: value(r) for r in stats.runners})
    loads = SummaryMetricFamily("olm_model_load_seconds", "Loads that went well.", labels=["model"])
    for model, counts in stats.counts.items():
        loads.add_metric([model], counts.n_loads, counts.load_s)
    yield loads
    failures = {model: counts.n_failures for model, counts in stats.counts.items()}
    yield _counter("model_load_failures", "Loads that failed.", failures)
    crashes = {model: counts.n_crashes for model, counts in stats.counts.items()}
    yield _counter("worker_crashes", "Workers that died with their model loaded.", crashes)
    yield _evictions(stats.counts)


def _evictions(counts: Mapping[str, ModelCounts]) -> Metric:
    family = CounterMetricFamily(
        "olm_model_evictions", "Models let go, by reason.", labels=["model", "reason"]
    )
    for model, row in counts.items():
        reasons: Counter[str] = Counter()
        for reason, n in row.n_stops.items():
            reasons[_STOPS.get(reason, "other")] += n
        for reason, n in reasons.items():
            family.add_metric([model, reason], n)
    return family


def _engines(engines: Mapping[str, WorkerStats]) -> Iterator[Metric]:
    for name, text, value in _ENGINE_COUNTERS:
        yield _counter(name, text, {model: value(stats) for model, stats in engines.items()})
    for name, text, value in _ENGINE_GAUGES:
        yield _gauge(name, text, {model: value(stats) for model, stats in engines.items()})


def _counter(name: str, text: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"olm_{name}", text, labels=["model"])
    for model, value in values.items():
        family.add_metric([model], value)
    return family


def _gauge(name: str, text: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"olm_{name}", text, labels=["model"])
    for model, value in values.items():
        family.add_metric([model], value)
    return family


def _add(family: HistogramMetricFamily, label: str, histogram: Histogram) -> None:
    bounds = [*(str(float(bound)) for bound in histogram.bounds), "+Inf"]
    buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
    family.add_metric([label], buckets, histogram.total)
