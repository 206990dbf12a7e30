"""The command line of the native build; `build_native.py` in the root is its face."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main(sys.argv[1:]))
