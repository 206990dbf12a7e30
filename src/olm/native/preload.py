"""What a spare worker imports before it knows its model: everything slow but the C libraries.

The OpenMP runtime reads its settings when it is loaded, and which ones are right depends on the model; so the libraries
come with `olm.native.worker`, a few milliseconds, when the settings are there.
"""

from __future__ import annotations

import msgspec
import trio

from olm.native import devices, feeds, process, prompting, wire

__all__ = ["PRELOADED"]

PRELOADED = (msgspec, trio, devices, feeds, process, prompting, wire)
"""Named so that nobody takes the imports for forgotten ones."""
