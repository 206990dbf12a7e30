"""What the API counts: requests as they end, turns as their events pass. Plain numbers, nothing formatted.

A scrape copies the numbers and writes them (`metrics_text`); nobody who does not scrape pays for more than adding. Where
events are met: `metrics_models` for turns, `metrics_jobs` for jobs, the gate's watchers for requests. What actors count is in
`olm.actors.stats`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import attrs
import trio

from olm.api.blobs import BLOB_PREFIX
from olm.api.gate import Call
from olm.errors import InvalidName
from olm.store.names import ModelName

__all__ = ["Histogram", "HttpKey", "Metrics", "ModelMeter"]

_REQUEST_BOUNDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_QUEUE_BOUNDS: Final = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_FIRST_BOUNDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TOKEN_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)
"""From a tiny model on a good CPU (1000 tokens a second) to a large one that swaps."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER: Final = "other"

MAX_MODELS: Final = 500
"""Rows by model; whoever makes and removes more names than that finds the rest under `other`."""

HttpKey = tuple[str, str, int]
"""Route, method, status."""


@attrs.define(slots=True)
class Histogram:
    """Counts of values by upper bound; `counts` has one more than `bounds`, for what is above them all."""

    bounds: Sequence[float]
    total: float = 0.0
    counts: list[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float, n: int = 1) -> None:
        """Add a value, `n` times."""
        self.counts[bisect_left(self.bounds, value)] += n
        self.total += value * n

    def copy(self) -> Histogram:
        """Take a copy that will not change."""
        copied = Histogram(self.bounds, self.total)
        copied.counts = self.counts.copy()
        return copied


@attrs.define(slots=True)
class ModelMeter:
    """What the turns of one model came to.

    Attributes:
        queue: seconds waited for a slot, the load included. first: from the request's arrival to the first event.
        between: seconds between events of an answer, as they reach the API; events that come together share their gap.
        turns: by how they ended: `stop`, `length`, `cancelled` (the client left, or the daemon stopped), `error`.
        n_prompt, n_cached, n_generated: tokens, told at the end of a turn. prompt_s, eval_s: what they took.
        n_calls, n_malformed: tool calls that could be read, and answers with one that could not.
        n_embedded, n_ranked: inputs.
    """

    name: str
    queue: Histogram = attrs.field(factory=lambda: Histogram(_QUEUE_BOUNDS))
    first: Histogram = attrs.field(factory=lambda: Histogram(_FIRST_BOUNDS))
    between: Histogram = attrs.field(factory=lambda: Histogram(_TOKEN_BOUNDS))
    turns: Counter[str] = attrs.field(factory=Counter)
    n_prompt: int = 0
    n_cached: int = 0
    n_generated: int = 0
    prompt_s: float = 0.0
    eval_s: float = 0.0
    n_calls: int = 0
    n_malformed: int = 0
    n_embedded: int = 0
    n_ranked: int = 0

    def copy(self) -> ModelMeter:
        """Take a copy that will not change."""
        return attrs.evolve(
            self,
            queue=self.queue.copy(),
            first=self.first.copy(),
            between=self.between.copy(),
            turns=self.turns.copy(),
        )


class Metrics:
    """The numbers of one server; used from the trio thread only.

    Args:
        constants: paths that are answered before any route.
    """

    def __init__(self, constants: Collection[str] = ()) -> None:
        self._constants = frozenset(constants)
        self.requests: Counter[HttpKey] = Counter()
        self.durations: dict[str, Histogram] = {}
        self.models: dict[str, ModelMeter] = {}
        # Jobs by kind (create, pull, push, check, export, import) and end (success, error, cancelled); bytes they moved by kind.
        self.jobs: Counter[tuple[str, str]] = Counter()
        self.transferred: Counter[str] = Counter()

    def ended(self, call: Call) -> None:
        """Count a request in; a watcher of the gate. A client that left before the answer began is 499."""
        route = self._route(call)
        method = call.method if call.method in _METHODS else _OTHER
        self.requests[route, method, call.status or 499] += 1
        durations = self.durations.get(route)
        if durations is None:
            durations = self.durations[route] = Histogram(_REQUEST_BOUNDS)
        durations.observe(trio.current_time() - call.started_s)

    def model(self, name: str) -> ModelMeter:
        """Find a model's row.

        Args:
            name: of a model that is in the store, as the request spells it: other names would grow the table.
        """
        try:
            shortest = ModelName.parse(name).shortest
        except InvalidName:
            shortest = _OTHER  # there is no such model: some client of models does not check
        meter = self.models.get(shortest.lower())
        if meter is None:
            if len(self.models) >= MAX_MODELS:
                shortest = _OTHER
            meter = self.models.setdefault(shortest.lower(), ModelMeter(shortest))
        return meter

    def copy(self) -> Metrics:
        """Take a copy that another thread may read."""
        copied = Metrics(self._constants)
        copied.requests = self.requests.copy()
        copied.durations = _copies(self.durations)
        copied.jobs, copied.transferred = self.jobs.copy(), self.transferred.copy()
        copied.models = {key: meter.copy() for key, meter in self.models.items()}
        return copied

    def _route(self, call: Call) -> str:
        if call.route:
            return call.route
        if call.path in self._constants:
            return call.path
        return BLOB_PREFIX + "{digest}" if call.path.startswith(BLOB_PREFIX) else _OTHER


def _copies(histograms: Mapping[str, Histogram]) -> dict[str, Histogram]:
    return {key: histogram.copy() for key, histogram in histograms.items()}
