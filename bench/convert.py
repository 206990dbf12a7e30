#!/usr/bin/env python3
"""What conversion costs: olm beside llama.cpp's `convert_hf_to_gguf.py` and `llama-quantize`, in turn.

    python bench/convert.py --peer-python VENV/bin/python      # some ten minutes
    python bench/convert.py --only f16 --rounds 1 ...
    python bench/convert.py --publish ...                      # also put the table into docs/performance.md

The peer's converter needs an environment with torch, transformers, sentencepiece and gguf, which olm does not; name its
Python. The checkpoint has Llama 3.2 1B's shape in BF16 and random weights; nothing is flushed by either side. Memory is
what a process has for itself (anonymous) at the most, sampled; mapped files are the page cache's. A checkpoint of half as
many layers shows whether it grows with the model.

Ends with a non-zero status when a goal is missed, so that it can be a gate.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs
import numpy as np
from gguf import GGUFReader
from machine import CpuWindow, describe_machine
from report import markdown_table, pairwise_ratio, publish
from servers import REPO, BenchError, cache_directory, llama_cpp_tree, peer_directory
from web import Figure

__all__ = ["main"]

_TOKENIZER: Final = REPO / "tests" / "fixtures" / "hf" / "llama2-spm-bin"
_CONFIG: Final[dict[str, object]] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 16,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_SAMPLE_S: Final = 0.02
_MEMORY_LIMIT_MB: Final = 1500


@attrs.frozen
class Run:
    """One process: wall seconds, and its own (anonymous) memory at the most, MB."""

    wall_s: float
    peak_mb: float


# -- the checkpoint --------------------------------------------------------------------------------------------------


def _shapes(n_layers: int) -> dict[str, tuple[int, ...]]:
    embd, ff, kv, vocab = 2048, 8192, 512, 128256
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, embd)}
    for layer in range(n_layers):
        at = f"model.layers.{layer}."
        shapes |= {
            f"{at}input_layernorm.weight": (embd,),
            f"{at}self_attn.q_proj.weight": (embd, embd),
            f"{at}self_attn.k_proj.weight": (kv, embd),
            f"{at}self_attn.v_proj.weight": (kv, embd),
            f"{at}self_attn.o_proj.weight": (embd, embd),
            f"{at}post_attention_layernorm.weight": (embd,),
            f"{at}mlp.gate_proj.weight": (ff, embd),
            f"{at}mlp.up_proj.weight": (ff, embd),
            f"{at}mlp.down_proj.weight": (embd, ff),
        }
    return shapes | {"model.norm.weight": (embd,)}


def write_checkpoint(folder: Path, n_layers: int) -> Path:
    """Make the checkpoint, unless it is there already; the same bytes each time."""
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy2(_TOKENIZER / name, folder)
    header: dict[str, object] = {}
    at = 0
    for name, shape in _shapes(n_layers).items():
        end = at + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": (at, end)}
        at = end
    text = json.dumps(header).encode()
    numbers = np.random.default_rng(1)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in _shapes(n_layers).values():
            left = int(np.prod(shape))
            while left:
                count = min(left, 1 << 24)
                values = numbers.standard_normal(count, np.float32) * np.float32(0.02)
                file.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())
                left -= count
    config = {**_CONFIG, "num_hidden_layers": n_layers}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


# -- running ---------------------------------------------------------------------------------------------------------


def run(command: Sequence[str | Path]) -> Run:
    """Run a program to its end. Raises BenchError with what it said."""
    started = time.perf_counter()
    with subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        peak = 0.0
        assert process.stderr is not None
        while process.poll() is None:
            peak = max(peak, _anonymous_mb(process.pid))
            try:
                process.communicate(timeout=_SAMPLE_S)
            except subprocess.TimeoutExpired:
                continue
        wall_s = time.perf_counter() - started
    if process.returncode:
        raise BenchError(f"{' '.join(map(str, command))}: rc {process.returncode}")
    return Run(wall_s, peak)


def _anonymous_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    lines = (line.split() for line in status.splitlines())
    return next((int(words[1]) / 1e3 for words in lines if words[:1] == ["RssAnon:"]), 0.0)


@attrs.frozen
class Place:
    """Where files are, and the peer's programs."""

    folder: Path
    checkpoint: Path
    peer_python: Path
    rounds: int

    def ours(self, target: Path, *types: str, checkpoint: Path | None = None) -> Run:
        """Convert by olm, in a fresh process."""
        target.unlink(missing_ok=True)
        script = REPO / "bench" / "convert_once.py"
        return run([sys.executable, script, checkpoint or self.checkpoint, target, *types])

    def peers(self, target: Path, file_type: str) -> Run:
        """Convert by llama.cpp's script."""
        target.unlink(missing_ok=True)
        script = llama_cpp_tree() / "convert_hf_to_gguf.py"
        options: list[str | Path] = ["--outtype", file_type, "--outfile", target]
        return run([self.peer_python, script, self.checkpoint, *options])


def _warm(path: Path) -> None:
    """Bring a file into the page cache."""
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass


# -- rows ------------------------------------------------------------------------------------------------------------


def f16_rows(place: Place) -> list[Figure]:
    """BF16 safetensors to an F16 GGUF."""
    mine, theirs, copies = [], [], []
    ours, other, copy = (place.folder / f"{name}.gguf" for name in ("ours", "peer", "copy"))
    for _ in range(place.rounds):
        _warm(place.checkpoint / "model.safetensors")
        mine.append(place.ours(ours, "F16"))
        theirs.append(place.peers(other, "f16"))
        copy.unlink(missing_ok=True)
        copies.append(run(["cp", ours, copy]))
    _check_equal(ours, other)
    for path in (ours, other, copy):
        path.unlink()
    return [
        _row("BF16 → F16, against `convert_hf_to_gguf.py`", mine, theirs, 1 / 3),
        _row("the same, against `cp` of the result", mine, copies, None),
        _memory_row("F16", mine),
    ]


def quantize_rows(place: Place) -> list[Figure]:
    """BF16 safetensors to Q4_K_M in one pass, against two passes."""
    mine, theirs = [], []
    ours, middle, other = (place.folder / f"{name}.gguf" for name in ("ours", "middle", "peer"))
    quantize = peer_directory() / "llama-quantize"
    for _ in range(place.rounds):
        _warm(place.checkpoint / "model.safetensors")
        mine.append(place.ours(ours, "Q4_K_M"))
        first = place.peers(middle, "bf16")
        other.unlink(missing_ok=True)
        second = run([quantize, middle, other, "Q4_K_M"])
        theirs.append(Run(first.wall_s + second.wall_s, max(first.peak_mb, second.peak_mb)))
    _check_equal(ours, other)
    for path in (ours, middle, other):
        path.unlink()
    name = "BF16 → Q4_K_M in one pass, against convert, then `llama-quantize`"
    return [_row(name, mine, theirs, 0.7), _memory_row("Q4_K_M", mine)]


def growth_rows(place: Place) -> list[Figure]:
    """Memory for half as many layers."""
    half = write_checkpoint(place.folder / "half", 8)
    target = place.folder / "half.gguf"
    runs = {name: place.ours(target, name, checkpoint=half) for name in ("F16", "Q4_K_M")}
    target.unlink()
    return [
        Figure(f"own memory for half the layers, {name}", f"{found.peak_mb:.0f} MB")
        for name, found in runs.items()
    ]


def _row(name: str, mine: Sequence[Run], theirs: Sequence[Run], limit: float | None) -> Figure:
    ratio = pairwise_ratio([r.wall_s for r in mine], [r.wall_s for r in theirs])
    ours, others = (statistics.median(r.wall_s for r in runs) for runs in (mine, theirs))
    goal = "" if limit is None else f"≤ {limit:.2f}"
    kept = limit is None or ratio.median <= limit
    return Figure(name, f"{ratio} = {ours:.1f} s", f"{others:.1f} s", goal, kept)


def _memory_row(kind: str, runs: Sequence[Run]) -> Figure:
    peak = max(r.peak_mb for r in runs)
    name = f"own memory at the most, {kind}"
    return Figure(name, f"{peak:.0f} MB", "", f"< {_MEMORY_LIMIT_MB} MB", peak < _MEMORY_LIMIT_MB)


def _check_equal(ours: Path, other: Path) -> None:
    """Raises BenchError unless both files have the same tensors, byte for byte."""
    found, wanted = (
        {tensor.name: tensor for tensor in GGUFReader(path).tensors} for path in (ours, other)
    )
    if found.keys() != wanted.keys():
        raise BenchError(f"other tensors: {sorted(found.keys() ^ wanted.keys())[:4]}")
    for name, tensor in found.items():
        if tensor.tensor_type != wanted[name].tensor_type or not np.array_equal(
            tensor.data.view(np.uint8), wanted[name].data.view(np.uint8)
        ):
            raise BenchError(f"{name}: other bytes than llama.cpp's")


_ROWS: Final = {"f16": f16_rows, "q4": quantize_rows, "half": growth_rows}


def main() -> None:
    """Run the command line described at the top of this file."""
    parser = argparse.ArgumentParser(description="What conversion costs.")
    parser.add_argument("--peer-python", type=Path, required=True, help="a Python with torch")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side")
    parser.add_argument("--only", default=",".join(_ROWS), help="some of the default, with commas")
    parser.add_argument("--publish", action="store_true", help="write to docs/performance.md")
    args = parser.parse_args()
    folder = cache_directory() / "convert"
    window, started = CpuWindow(None), time.perf_counter()
    try:
        checkpoint = write_checkpoint(folder / "whole", 16)
        place = Place(folder, checkpoint, args.peer_python, args.rounds)
        figures = [figure for name in args.only.split(",") for figure in _ROWS[name](place)]
    except (BenchError, OSError, KeyError) as exc:
        sys.exit(f"convert: {exc}")
    foreign = window.foreign_frac(time.perf_counter() - started)
    rows = [[f.name, f.ours, f.others, f.limit] for f in figures]
    table = markdown_table(["figure", "olm", "others", "limit"], rows)
    size_mb = (checkpoint / "model.safetensors").stat().st_size / 1e6
    text = (
        f"Machine: {describe_machine()}; other programs took {foreign:.0%} of it.\n"
        f"Checkpoint: Llama 3.2 1B's shape, BF16, random weights, {size_mb:.0f} MB; tensors are byte-equal to the peer's.\n\n{table}"
    )
    print(text)
    if args.publish:
        publish("convert", text)
    broken = [figure.name for figure in figures if not figure.is_kept]
    if broken:
        sys.exit(f"convert: over the limit: {', '.join(broken)}")


if __name__ == "__main__":
    main()
