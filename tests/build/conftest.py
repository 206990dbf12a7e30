"""Makes native/olm_build importable: it is the build's own code, no part of the installed package."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "native"))
