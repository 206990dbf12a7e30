"""Where the clients under test find a server: one over a fake in this process, and a real daemon."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kit.fake_olm import FakeOlm
from kit.live_http import served_in_thread


@pytest.fixture(
    scope="module",
    params=["fake", pytest.param("daemon", marks=[pytest.mark.daemon, pytest.mark.native])],
)
def base_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a server that has the model `tiny`."""
    if request.param == "fake":
        with served_in_thread(FakeOlm("tiny")) as url:
            yield url
    else:
        yield request.getfixturevalue("daemon").url
