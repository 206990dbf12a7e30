"""The tree: which actors there are, in what order they start, how often they may fail. And the daemon around it.

    root (one_for_one)
    ├─ watchdog   permanent; first to start, last to stop
    ├─ store      permanent
    ├─ spare      permanent; one started worker process in reserve
    ├─ work       supervisor of temporary jobs
    ├─ models     rest_for_one: scheduler → workers → runners
    └─ server     permanent; last to start, first to stop; only with HTTP

Restart limits and order are here and nowhere else. What the actors do is in their own modules.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Final

import attrs
import trio

from olm import __version__, systemd
from olm.actors import scheduler, server
from olm.actors.bandwidth import Bandwidth
from olm.actors.book import StartRunner
from olm.actors.client import Olm, StoredModel
from olm.actors.jobs import Jobs
from olm.actors.models import Models
from olm.actors.placement import Policy, spin_count
from olm.actors.pull import Pulls
from olm.actors.push import Pushes
from olm.actors.queue import QueueBounds
from olm.actors.runner import Runner, RunnerConfig
from olm.actors.runtime import (
    Address,
    ChildSpec,
    ProcessOptions,
    RestartPolicy,
    SpareProcess,
    Supervisor,
    SupervisorSpec,
    open_supervisor,
    process_actor,
)
from olm.actors.scheduler import Scheduler, SchedulerConfig
from olm.actors.server import Server, ServerConfig
from olm.actors.signals import SignalWatch
from olm.actors.stats import read_snapshot
from olm.actors.store import Store, store_spec
from olm.actors.watchdog import Ping, Watchdog, WatchdogConfig
from olm.api.sockets import Listeners, open_listeners
from olm.config import Settings
from olm.errors import OlmError, first_error
from olm.log import get_logger, setup_logging
from olm.native.wire import WorkerConfig

__all__ = ["Tree", "open_tree", "run_daemon"]

_WORKER: Final = "olm.native.worker:Worker"
_PRELOAD: Final = "olm.native.preload"

_WORKER_ENV: Final[Mapping[str, str]] = {
    # ggml's crash handler would run gdb on our worker; the exit status and stderr are our report.
    "GGML_NO_BACKTRACE": "1",
    # Arenas for each thread would keep freed buffers; the worker allocates little and in few threads.
    "MALLOC_ARENA_MAX": "2",
}
_NOT_INHERITED: Final = ("OMP_NUM_THREADS", "GOMP_CPU_AFFINITY", "OMP_WAIT_POLICY")
"""They would fight with the thread count of the engine and with its spin count (`placement.spin_count`)."""

_WORKER_NICE: Final = 3
"""Streams are written by the daemon: its wake-ups go before the worker's arithmetic (spec/llamacpp §10.1: 1 to 5)."""

_STOP_WORKER_S: Final = 10.0
"""A step of a big model on a slow machine takes seconds; after this the process is ended by signals."""

_STOP_SERVER_GRACE_S: Final = 10.0
"""On top of the drain: errors are written and sockets closed."""

_POLICY: Final = RestartPolicy(max_restarts=3, period_s=60.0)

_log = get_logger("daemon")


@attrs.frozen
class Tree:
    """A running tree.

    Attributes:
        urls: where HTTP is served; empty without HTTP.
        server: who serves it; None without HTTP.
    """

    olm: Olm
    root: Supervisor
    models: Models
    urls: Sequence[str] = ()
    server: Address | None = None


def worker_options(environ: Mapping[str, str] = os.environ) -> ProcessOptions:
    """Say how worker processes are set up. The whole environment is passed on but for what OpenMP would misread."""
    env = {key: value for key, value in environ.items() if key not in _NOT_INHERITED}
    return ProcessOptions(
        env={**_WORKER_ENV, **env}, inherit_env=False, nice=_WORKER_NICE, title="olm worker"
    )


@asynccontextmanager
async def open_tree(
    settings: Settings, *, http: bool = True, fds: Sequence[int] = ()
) -> AsyncIterator[Tree]:
    """Start the actors; leaving the block stops them in order, running requests first.

    Args:
        http: serve HTTP on `settings.address`, or on the sockets `fds` that the service manager opened.

    Raises (in an exception group, as a nursery does):
        OlmError: the port is taken, the store is locked, damaged or not writable.
    """
    with _listeners(settings, fds, http=http) as listeners:
        async with open_supervisor("olm", policy=_POLICY) as root:
            tree = await _start(root, settings, listeners)
            yield tree


@contextmanager
def _listeners(settings: Settings, fds: Sequence[int], *, http: bool) -> Iterator[Listeners | None]:
    if not http:
        yield None
        return
    with open_listeners(
        settings.address,
        fds=fds,
        unix_mode=settings.socket_mode,
        tls=settings.tls_cert is not None,
    ) as listeners:
        yield listeners


async def _start(root: Supervisor, settings: Settings, listeners: Listeners | None) -> Tree:
    """Start the children one after the other; each may use those before it."""
    pings: dict[str, Ping] = {}
    await root.start_child(ChildSpec("watchdog", partial(Watchdog, _watchdog_config(pings))))
    store_actor = await root.start_child(
        store_spec(settings.models, noprune=settings.noprune, go_template=settings.go_template)
    )
    store = Store(store_actor, settings.models)
    options = worker_options()
    spare = await _start_spare(root, options) if settings.spare_worker else None
    work = await root.start_child(SupervisorSpec("work"))
    config = _scheduler_config(root, settings, options, spare)
    await root.start_child(_models_spec(config))
    address = root.address("models/scheduler")
    models = Models(address, store)
    limit = Bandwidth(settings.transfer_rate)  # pulls and pushes share one link
    jobs = Jobs(
        work,
        store,
        settings.export_workers,
        Pulls(work, store, settings.home, limit=limit),
        Pushes(work, store, settings.home, limit),
    )
    olm = Olm(store=store, models=models, jobs=jobs)
    pings["scheduler"] = partial(address.ask, scheduler.Ping())
    pings["store"] = partial(store.has_blob, "sha256:" + "0" * 64)
    if listeners is None:
        return Tree(olm, root, models)
    serving = ServerConfig(olm, settings, listeners, partial(read_snapshot, address))
    serve = await root.start_child(_server_spec(serving))
    pings["server"] = partial(serve.ask, server.Ping())
    return Tree(olm, root, models, listeners.urls, serve)


def _watchdog_config(pings: Mapping[str, Ping]) -> WatchdogConfig:
    return WatchdogConfig(
        interval_s=systemd.watchdog_interval_s(),
        pings=lambda: pings,
        feed=partial(systemd.notify, "WATCHDOG=1"),
    )


async def _start_spare(root: Supervisor, options: ProcessOptions) -> Address:
    return await root.start_child(ChildSpec("spare", partial(SpareProcess, _PRELOAD, options)))


def _models_spec(config: SchedulerConfig) -> SupervisorSpec:
    # When the scheduler dies its book is gone, so workers and runners go too. Runners stop first: each stops its worker.
    return SupervisorSpec(
        "models",
        strategy="rest_for_one",
        policy=_POLICY,
        children=(
            ChildSpec("scheduler", partial(Scheduler, config)),
            SupervisorSpec("workers"),
            SupervisorSpec("runners"),
        ),
    )


def _scheduler_config(
    root: Supervisor, settings: Settings, options: ProcessOptions, spare: Address | None
) -> SchedulerConfig:
    return SchedulerConfig(
        policy=Policy(
            n_parallel=settings.num_parallel,
            n_ctx=settings.context_length,
            kv_cache_type=settings.kv_cache_type,
            max_loaded=settings.max_loaded_models,
        ),
        runners=partial(root.supervisor, "models/runners"),
        runner_spec=partial(_runner_spec, root, settings, options, spare),
        keep_alive_s=settings.keep_alive_s,
        bounds=QueueBounds(
            settings.max_queue, settings.max_queue_per_model, settings.max_queue_per_client
        ),
        slow_reader_s=settings.slow_reader_s,
        reader_timeout_s=settings.reader_timeout_s,
    )


def _runner_spec(
    root: Supervisor,
    settings: Settings,
    options: ProcessOptions,
    spare: Address | None,
    start: StartRunner,
) -> ChildSpec:
    config = RunnerConfig(
        model=start.model,
        plan=start.plan,
        workers=root.supervisor("models/workers"),
        spec=partial(_worker_spec, settings, _options_for(start.model, options), spare),
        load_timeout_s=settings.load_timeout_s,
        kv_cache_type=settings.kv_cache_type,
        flash_attention=settings.flash_attention,
        n_threads=settings.num_threads,
    )
    return ChildSpec(
        f"runner-{start.runner_id}",
        partial(Runner, config),
        restart="temporary",
        stop_within_s=2 * _STOP_WORKER_S,
    )


def _options_for(model: StoredModel, options: ProcessOptions) -> ProcessOptions:
    """Add what must be set before libgomp is loaded, unless the user has set it for the daemon."""
    spin = options.env.get("GOMP_SPINCOUNT", str(spin_count(model.size_bytes)))
    return attrs.evolve(options, late_env={"GOMP_SPINCOUNT": spin})


def _worker_spec(
    settings: Settings, options: ProcessOptions, spare: Address | None, name: str
) -> ChildSpec:
    actor = process_actor(
        _WORKER,
        config=WorkerConfig(cpu_variant=settings.cpu_variant, debug=settings.debug),
        options=options,
        spare=spare,
    )
    return ChildSpec(name, actor, restart="temporary", stop_within_s=_STOP_WORKER_S)


def _server_spec(config: ServerConfig) -> ChildSpec:
    stop_within_s = config.settings.drain_timeout_s + _STOP_SERVER_GRACE_S
    return ChildSpec("server", partial(Server, config), stop_within_s=stop_within_s)


# -- the daemon -----------------------------------------------------------------------------------------


def run_daemon(settings: Settings) -> int:
    """Run the daemon until a signal ends it; return the exit status.

    0 after an orderly stop, 1 when it cannot start (one line says why) or when its actors fail too often.
    """
    setup_logging(settings.debug)
    _raise_file_limit()
    status = 0
    try:
        trio.run(_daemon, settings)
    except* OlmError as group:
        _log.critical("%s", first_error(group))
        status = 1
    return status


def _raise_file_limit() -> None:
    """Use all the descriptors we may: each client is one, and the soft limit of a login is often 1024."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _daemon(settings: Settings) -> None:
    watch = SignalWatch()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.run, signals)
            async with open_tree(settings, fds=systemd.listen_fds()) as tree:
                watch.reload = partial(_reload, tree)
                _log.info("olm %s listens on %s", __version__, ", ".join(tree.urls))
                systemd.notify("READY=1\nSTATUS=ready")
                await watch.stop.wait()
                systemd.notify("STOPPING=1\nSTATUS=draining")
                nursery.start_soon(_drain, tree.models)
            nursery.cancel_scope.cancel("stopped")


def _reload(tree: Tree) -> None:
    assert tree.server is not None, "the daemon serves HTTP"
    try:
        tree.server.tell(server.Reload())
    except OlmError as exc:
        _log.warning(
            "could not read keys and certificate again: %s", exc
        )  # it is being restarted, and reads them


async def _drain(models: Models) -> None:
    """Refuse those who wait for a model: the server drains those whose answer has begun."""
    try:
        await models.drain()
    except OlmError as exc:
        _log.debug("drain: %s", exc)
