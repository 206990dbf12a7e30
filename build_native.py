#!/usr/bin/env python3
"""Build olm's native engine: a script for developers, and the build hook of the wheel. docs/native.md explains.

    python build_native.py [build] [--backend cuda|hip|vulkan|metal] [--all-variants] [--jobs N]
    python build_native.py sync VERSION | clean [--cache] | peer [--print-dir] | probe | info

The work is in native/olm_build; this file only finds it, whether it runs from a checkout or from a source distribution.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(_ROOT / "native"))

from olm_build.cli import main  # noqa: E402
from olm_build.toolchain import missing_requirements  # noqa: E402
from olm_build.wheel import hook_build  # noqa: E402

__all__ = ["get_build_hook", "main"]


def get_build_hook() -> type:
    """Make the hook class; hatchling looks for this function by name. The script itself must run without hatchling."""
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface

    class NativeBuildHook(BuildHookInterface[Any]):
        """Builds before hatchling collects files, and makes the wheel a platform wheel."""

        PLUGIN_NAME = "custom"

        def dependencies(self) -> list[str]:
            """Ask for CMake and ninja from the package index only where the system has none."""
            return missing_requirements()

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Build and install into the source tree; `version` is `standard` or `editable`."""
            if self.target_name == "wheel":
                hook_build(_ROOT, os.environ, build_data)

    return NativeBuildHook


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
