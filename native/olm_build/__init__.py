"""The native build: everything behind `build_native.py`.

Standard library only (cffi besides, to emit the extension's C), because this runs before anything is installed: as a script
from a checkout and as hatchling's build hook from a source distribution. Nothing in `src/olm` imports it, and it
imports nothing of olm. `docs/native.md` tells the whole story.
"""
