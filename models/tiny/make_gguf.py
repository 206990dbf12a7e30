#!/usr/bin/env python3
"""Turn `hf/` into the package data of the built-in model `tiny`, with olm's own converter.

    python models/tiny/make_gguf.py              # rewrite src/olm/data/tiny
    python models/tiny/make_gguf.py --out DIR    # write the same files elsewhere
    python models/tiny/make_gguf.py --gguf FILE --type f16   # only the weights, in another type

Needs the built engine, as every conversion does, and no torch. The same input gives the same bytes, which a test relies on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Final

from olm.convert.run import convert
from olm.convert.wire import Convert, Quantization
from olm.gguf import Header, read_header
from olm.native.quantize import CancelFlag

__all__ = ["build_package_data", "main", "write_gguf"]

HERE: Final = Path(__file__).resolve().parent
PACKAGE_DATA: Final = HERE.parents[1] / "src" / "olm" / "data" / "tiny"
GGUF_NAME: Final = "tiny-q8_0.gguf"

# Layers of the stored model: file, media type of Ollama's manifest.
LAYERS: Final = (
    (GGUF_NAME, "application/vnd.ollama.image.model"),
    ("template.gotmpl", "application/vnd.ollama.image.template"),
    ("LICENSE", "application/vnd.ollama.image.license"),
    ("params.json", "application/vnd.ollama.image.params"),
)


def write_gguf(path: Path, type_name: str = "q8_0") -> Header:
    """Write the model as one GGUF file of a file type; returns its header.

    There is no `output.weight`: the output is tied to the embedding, which llama.cpp falls back to.
    """
    files = {file.name: str(file) for file in sorted((HERE / "hf").iterdir())}
    wanted = Quantization(file_type=type_name)
    request = Convert(target=str(path), files=files, name="tiny", quantization=wanted)
    convert(request, lambda _event: None, CancelFlag())
    return read_header(path)


def build_package_data(directory: Path) -> None:
    """Write everything that `olm.data.tiny` holds besides its Python file into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    header = write_gguf(directory / GGUF_NAME)
    for name in ("template.gotmpl", "LICENSE", "params.json"):
        (directory / name).write_bytes((HERE / name).read_bytes())
    layers = []
    for name, media_type in LAYERS:
        data = (directory / name).read_bytes()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        layers.append({"file": name, "mediaType": media_type, "digest": digest, "size": len(data)})
    config = {
        "model_format": "gguf",
        "model_family": "llama",
        "model_families": ["llama"],
        "model_type": header.text("general.size_label"),
        "file_type": "Q8_0",
        "architecture": "amd64",
        "os": "linux",
    }
    text = json.dumps({"name": "tiny", "config": config, "layers": layers}, indent=2)
    (directory / "model.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Run the command line described at the top of this file."""
    parser = argparse.ArgumentParser(description="Write the built-in model's files.")
    parser.add_argument(
        "--out", type=Path, default=PACKAGE_DATA, help="directory for the package data"
    )
    parser.add_argument("--gguf", type=Path, help="write only the weights, to this file")
    parser.add_argument("--type", default="q8_0", help="a file type, with --gguf")
    args = parser.parse_args()
    if args.gguf:
        print(args.gguf, write_gguf(args.gguf, args.type).text("general.size_label"), "parameters")
        return
    build_package_data(args.out)
    print((args.out / "model.json").read_text("utf-8"), end="")


if __name__ == "__main__":
    main()
