#!/usr/bin/env python3
"""What a store of many models costs: listing it in a fresh process, again, and looking a name up.

    python bench/store.py                # 1000 models, about 30 seconds
    python bench/store.py --models 100
    python bench/store.py --publish      # also put the table into docs/performance.md

The models are whole: a manifest, a config and a GGUF header each. "Cold" is a new process whose pages are in memory.
Ends with a non-zero status when a limit is exceeded, so that it can be a gate.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final
from unittest import mock

import numpy as np
from gguf import GGUFWriter
from idle import Figure
from machine import describe_machine
from report import markdown_table, publish
from servers import BenchError, cache_directory, end_on_sigterm, olm_command, open_olm

from olm.store.library import Library
from olm.store.manifests import (
    LICENSE,
    MODEL,
    PARAMS,
    SYSTEM,
    TEMPLATE,
    Layer,
    config_layer,
    encode_manifest,
)
from olm.store.names import ModelName
from olm.store.tree import RACY_NS

__all__ = ["main", "make_store", "measure"]

_COLD_LIMIT_MS: Final = 50.0

# What a fresh process does, timed from after its imports. The second look-up is of a name in another case.
_LOOK: Final = """
import json, sys, time
from pathlib import Path
from olm.store.library import Library
import msgspec.msgpack
marks, busy = [time.perf_counter()], time.process_time()
library = Library.look(Path(sys.argv[1]))
listed = library.list()
busy = time.process_time() - busy
marks.append(time.perf_counter())
library.list()
marks.append(time.perf_counter())
fresh = Library.look(Path(sys.argv[1]))
marks.append(time.perf_counter())
assert fresh.find(sys.argv[2]) is not None
marks.append(time.perf_counter())
assert fresh.find(sys.argv[2].upper()) is not None
marks.append(time.perf_counter())
print(json.dumps([busy * 1e3, *((b - a) * 1e3 for a, b in zip(marks, marks[1:]))]))
"""


def make_store(root: Path, n_models: int) -> str:
    """Fill a store; returns the name of one of its models. Nothing is synced, which would take minutes."""
    library = Library.open(root, builtin=False)
    with mock.patch("os.fsync"):
        for number in range(n_models):
            name = ModelName.parse(f"user{number % 7}/model{number // 3}:q{number % 3}")
            library.manifests.write(name, _manifest(library, root, number))
    library.close()
    return name.shortest


def _manifest(library: Library, root: Path, number: int) -> bytes:
    def layer(kind: str, data: bytes) -> Layer:
        digest, _ = library.blobs.put(data)
        return Layer(kind, str(digest), len(data))

    config = {
        "model_format": "gguf",
        "model_family": "llama",
        "model_families": ["llama"],
        "model_type": f"{number}M",
        "file_type": "Q4_K_M",
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64] * 5},
    }
    digest, _ = library.blobs.put(data := json.dumps(config).encode())
    layers = [
        layer(MODEL, _header(root / "model.gguf", number)),
        layer(TEMPLATE, b"{{ .Prompt }}{{ .Tools }}" + b" " * (number % 40)),
        layer(LICENSE, b"MIT " * 300),
        layer(PARAMS, b'{"stop":["a%d"]}' % (number % 10)),
        layer(SYSTEM, b"You are number %d." % (number % 100)),
    ]
    return encode_manifest(config_layer(digest, len(data)), layers)


def _header(path: Path, number: int) -> bytes:
    """A GGUF of one small tensor, with the facts a list asks for."""
    writer = GGUFWriter(path, "llama")
    writer.add_name(f"model {number}")
    writer.add_context_length(4096)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_head_count(4)
    writer.add_token_list([f"t{i}" for i in range(1000)])
    writer.add_chat_template("{% if tools %}{{ tools }}{% endif %}")
    writer.add_tensor("token_embd.weight", np.zeros((4, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data = path.read_bytes()
    path.unlink()
    return data


def _look(root: Path, name: str, n_runs: int) -> list[float]:
    """Medians over fresh processes: CPU time of list, list, again, open, look up, in another case; milliseconds."""
    runs: list[list[float]] = []
    for _ in range(n_runs):
        done = subprocess.run(
            [sys.executable, "-c", _LOOK, str(root), name],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchError(done.stderr.strip())
        runs.append(json.loads(done.stdout))
    return [statistics.median(column) for column in zip(*runs, strict=True)]


def measure(n_models: int, n_runs: int) -> list[Figure]:
    """Make a store and measure it, in the library and through a daemon."""
    with tempfile.TemporaryDirectory(prefix="store-", dir=cache_directory()) as directory:
        home = Path(directory)
        root = home / "models"
        name = make_store(root, n_models)
        first = _look(root, name, 1)  # reads every manifest and header, and keeps nothing
        time.sleep(RACY_NS / 1e9)
        library = Library.open(root, builtin=False)
        library.list()
        library.close()
        busy, listed, again, _, found, folded = _look(root, name, n_runs)
        with open_olm(home) as server:
            environ = {**os.environ, "OLM_HOST": server.url.removeprefix("http://")}
            command = [*olm_command(), "list"]
            times: list[float] = []
            for _ in range(n_runs + 1):
                started = time.perf_counter()
                subprocess.run(command, env=environ, capture_output=True, check=True)
                times.append((time.perf_counter() - started) * 1e3)
    limit = _COLD_LIMIT_MS if n_models <= 1000 else None
    return [
        Figure(f"list of {n_models} models, cold", listed, "ms", limit),
        Figure("CPU time of that", busy, "ms"),
        Figure("the same for the first time, every header read", first[1], "ms"),
        Figure("the same again in the same process", again, "ms"),
        Figure("name looked up, cold", found, "ms"),
        Figure("name in another case looked up, cold", folded, "ms"),
        Figure("`olm list` against a daemon, its first", times[0], "ms"),
        Figure("`olm list` against a daemon", statistics.median(times[1:]), "ms"),
    ]


def main() -> None:
    """Run the command line described at the top of this file."""
    parser = argparse.ArgumentParser(description="Cost of a store of many models.")
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--publish", action="store_true", help="write to docs/performance.md")
    args = parser.parse_args()
    end_on_sigterm()
    try:
        figures = measure(args.models, args.runs)
    except (BenchError, OSError) as exc:
        sys.exit(f"store: {exc}")
    rows = [
        [f.name, f"{f.value:.1f} {f.unit}", "" if f.limit is None else f"{f.limit:g} {f.unit}"]
        for f in figures
    ]
    text = (
        f"Machine: {describe_machine()}.\n\n{markdown_table(['figure', 'measured', 'limit'], rows)}"
    )
    print(text)
    if args.publish:
        publish("store", text)
    broken = [figure.name for figure in figures if not figure.is_kept]
    if broken:
        sys.exit(f"store: over the limit: {', '.join(broken)}")


if __name__ == "__main__":
    main()
