"""Write docs/configuration.md from the one table of environment variables; `--check` only says whether it is current."""

from __future__ import annotations

import sys
from pathlib import Path

from olm.config import VARIABLES

__all__ = ["main", "render"]

TARGET = Path(__file__).parent.parent / "docs" / "configuration.md"
HEAD = """# Configuration

olm is configured by environment variables, read once at start.
`OLM_X` wins over `OLLAMA_X`; where the second column says so, the `OLLAMA_` name works too, with Ollama's meaning.
Values are trimmed of spaces and quotes. Durations are Go durations (`5m`, `1h30m`) or bare seconds, negative for ever.
This file is written by `scripts/write_config_docs.py` from the table in `olm.config`.

| variable | `OLLAMA_` too | default | meaning |
|---|---|---|---|
"""


def render() -> str:
    """Return the whole document."""
    rows = (
        f"| `OLM_{v.name}` | {'yes' if v.ollama else ''} | {f'`{v.default}`' if v.default else ''} | {v.help} |\n"
        for v in VARIABLES
    )
    return HEAD + "".join(rows)


def main() -> int:
    """Write the document, or compare it."""
    if "--check" in sys.argv[1:]:
        return int(TARGET.read_text() != render())
    TARGET.write_text(render())
    return 0


if __name__ == "__main__":
    sys.exit(main())
