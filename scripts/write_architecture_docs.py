"""Write docs/architectures.md from the registry of converters; `--check` only says whether it is current."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from olm.convert.registry import known_architectures, known_projectors

__all__ = ["main", "render"]

TARGET = Path(__file__).parent.parent / "docs" / "architectures.md"
HEAD = """# Architectures

What `olm create` converts: the name under `architectures` in `config.json`, and what llama.cpp calls it. Some names become another
architecture when the config says so (experts, hybrids). In *italics*: names whose vision or audio tower becomes a projector, too.
This file is written by `scripts/write_architecture_docs.py`; [convert.md](convert.md) says how to add a line.

| GGUF | `architectures` |
|---|---|
"""
TAIL = """
Of the names that Ollama converts one is missing: `MllamaForConditionalGeneration` (Llama 3.2 Vision), because llama.cpp cannot run it. A name
that is not here is an error that says which are nearest. llama.cpp runs more architectures than these, as GGUF.
"""


def render() -> str:
    """Return the whole document."""
    towers = known_projectors()
    rows: dict[str, list[str]] = defaultdict(list)
    for name, family in known_architectures().items():
        rows[family.gguf_name].append(f"*{name}*" if name in towers else name)
    only = sorted(towers.keys() - known_architectures().keys())
    rows["of its text_config"] = [f"*{name}*" for name in only]
    lines = (
        f"| `{gguf}` | {', '.join(names)} |\n" for gguf, names in sorted(rows.items()) if names
    )
    return HEAD + "".join(lines) + TAIL


def main() -> int:
    """Write the document, or compare it."""
    if "--check" in sys.argv[1:]:
        return int(TARGET.read_text() != render())
    TARGET.write_text(render())
    return 0


if __name__ == "__main__":
    sys.exit(main())
