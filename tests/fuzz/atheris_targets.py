"""Fuzz a target by coverage with atheris, for as long as you like. Not a test, not a dependency: `pip install atheris`.

From the folder `tests`, with `src` on the path:

    PYTHONPATH=../src:. python fuzz/atheris_targets.py TARGET [corpus folder] [libFuzzer options]

where TARGET is a name of `targets.TARGETS` (`safetensors`, `pickles`, `torch_files`, `zip_directories`, `jsons`,
`gguf_headers`, `modelfiles`). The corpus begins with the good files that the tests use. A crash leaves its input in
`crash-*`: give it to the target in a test, then mend the reader. `-max_total_time=600 -rss_limit_mb=1024` is a good start.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]  # installed by hand, see above

with atheris.instrument_imports(include=["olm"]):
    from checkpoint.made import DATA, safetensors
    from fuzz.targets import TARGETS
    from store.gguf_files import model

__all__: list[str] = []


def seeds() -> Mapping[str, Sequence[bytes]]:
    """A few good inputs for each target."""
    torch_files = [
        path.read_bytes() for path in sorted(DATA.glob("*.[bp]*")) if path.suffix != ".py"
    ]
    return {
        "safetensors": [safetensors({"a": ("F32", [2], bytes(8)), "b": ("U8", [], b"x")})],
        "pickles": [data for data in torch_files if data.startswith(b"\x80")],
        "torch_files": torch_files,
        "zip_directories": [data for data in torch_files if data.startswith(b"PK")],
        "jsons": [b'{"a":[1,NaN,"\\u00e9"]}'],
        "gguf_headers": [model(a__list=[1, 2, 3])],
        "modelfiles": [b'FROM x\nPARAMETER stop "a"\nTEMPLATE """{{ .Prompt }}"""\n'],
    }


def main() -> None:
    """Fuzz the target that the first argument names."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"name a target: {', '.join(TARGETS)}")
    name = sys.argv.pop(1)
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        corpus = Path(sys.argv[1])
        corpus.mkdir(parents=True, exist_ok=True)
        for i, data in enumerate(seeds()[name]):
            (corpus / f"seed-{i}").write_bytes(data)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
