"""`GET /api/queue`: who runs and who waits, by model. Numbers only: neither contents nor names of clients."""

from __future__ import annotations

import attrs
import msgspec
from quart import Quart, Response

from olm.actors.client import Olm, QueueRow
from olm.api.encoding import to_json
from olm.api.gate import Call
from olm.api.routes.endpoint import add, json_reply

__all__ = ["QueueModel", "QueueResponse", "register"]


class QueueModel(msgspec.Struct, frozen=True):
    """One model's line. `paused` of the `running` lend their slot out, because nobody reads their answers.

    Attributes:
        state: ready, loading, leaving, stopping, or waiting (for room to be loaded).
        slots: answers at once, 0 while the model is not loaded. clients: different ones among the waiting.
        longest_wait_s, mean_turn_s: seconds.
    """

    model: str
    state: str
    slots: int
    running: int
    paused: int
    waiting: int
    clients: int
    longest_wait_s: float
    mean_turn_s: float


class QueueResponse(msgspec.Struct, frozen=True):
    """All lines, by the model's name, and their sums."""

    models: list[QueueModel]
    running: int
    waiting: int


def register(app: Quart, olm: Olm) -> None:
    """Add the route to the application."""
    add(app, ("GET",), "/api/queue", _Routes(olm).queue)


@attrs.frozen
class _Routes:
    olm: Olm

    async def queue(self, _call: Call) -> Response:
        rows = [_row(row) for row in await self.olm.models.queue()]
        running, waiting = sum(r.running for r in rows), sum(r.waiting for r in rows)
        return json_reply(to_json(QueueResponse(rows, running, waiting)))


def _row(row: QueueRow) -> QueueModel:
    return QueueModel(
        model=row.model,
        state=row.state,
        slots=row.n_slots,
        running=row.n_running,
        paused=row.n_paused,
        waiting=row.n_waiting,
        clients=row.n_clients,
        longest_wait_s=round(row.longest_wait_s, 3),
        mean_turn_s=round(row.mean_turn_s, 3),
    )
