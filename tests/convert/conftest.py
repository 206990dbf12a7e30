"""What the tests of `olm.convert` share. Without the built extension nothing here is collected: writing files needs it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for convert_kit: tests are no package

_BUILT = importlib.util.find_spec("olm.native._olm") is not None
collect_ignore_glob = [] if _BUILT else ["test_*.py"]


@pytest.fixture(scope="session")
def backend() -> Path:
    """Load the CPU backend, once for the test process."""
    from olm.native.devices import choose_cpu_variant
    from olm.native.handles import initialize

    variant = choose_cpu_variant()
    initialize(variant.path)
    return variant.path
