#!/usr/bin/env python3
"""Convert a checkpoint by olm's own code, once: `python bench/convert_once.py FOLDER TARGET [TYPE]`. For `convert.py`.

A process of its own, as the daemon's converting child is, with imports and all. Prints the SHA-256 of what it wrote.
"""

from __future__ import annotations

import sys
from pathlib import Path

from olm.convert.run import convert
from olm.convert.wire import Convert, Converted, ConvertEvent, Quantization
from olm.native.quantize import CancelFlag

__all__: list[str] = []


def _tell(event: ConvertEvent) -> None:
    if isinstance(event, Converted):
        print(event.sha256)


def main() -> None:
    """Run the command line described at the top of this file."""
    folder, target, *types = sys.argv[1:]
    files = {path.name: str(path) for path in sorted(Path(folder).iterdir())}
    wanted = Quantization(file_type=types[0]) if types else None
    request = Convert(target=target, files=files, name="bench", quantization=wanted)
    convert(request, _tell, CancelFlag())


if __name__ == "__main__":
    main()
