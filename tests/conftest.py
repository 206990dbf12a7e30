"""Fixtures of all tests: real daemons, and the skip of tests whose parts are not built."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from kit.daemon import Daemon, run_daemon

# The same examples in every run, and no judgement by the clock: other tests may share the machine.
settings.register_profile("olm", derandomize=True, deadline=None)
settings.load_profile("olm")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the engine where it is not built, and say so."""
    if importlib.util.find_spec("olm.native._olm") is not None:
        return
    skip = pytest.mark.skip(reason="the engine is not built: run `python build_native.py build`")
    for item in items:
        if "native" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for the whole run, with the built-in model. Tests that kill, fill or stop it start their own."""
    with run_daemon(tmp_path_factory.mktemp("daemon")) as running:
        yield running


StartDaemon = Callable[..., Daemon]


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[StartDaemon]:
    """Start daemons of the test's own: `start_daemon(OLM_NUM_PARALLEL="1")`; `home` shares a store, `must_start=False` lets it fail."""
    with ExitStack() as stack:
        n_started = 0

        def start(*, home: Path | None = None, must_start: bool = True, **env: str) -> Daemon:
            nonlocal n_started
            n_started += 1
            where = home or tmp_path / f"home-{n_started}"
            return stack.enter_context(run_daemon(where, env, must_start=must_start))

        yield start
