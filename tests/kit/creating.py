"""For tests that make models in a whole daemon: uploads, creates, and what a store holds that nobody needs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import attrs
import httpx2

from kit.daemon import Daemon
from kit.hf import FIXTURES
from olm.cli.main import main

__all__ = [
    "Done",
    "answer",
    "children",
    "copy_checkpoint",
    "create",
    "events",
    "large_checkpoint",
    "olm",
    "referenced",
    "stored",
    "upload",
    "upload_folder",
]

Body = Mapping[str, object]


@attrs.frozen
class Done:
    """What a command came to."""

    returncode: int
    stdout: str
    stderr: str


def olm(daemon: Daemon, *args: str, cwd: Path) -> Done:
    """Run the command line against a daemon, in this process: starting one for each takes longer than most of what is done."""
    out, err = io.StringIO(), io.StringIO()
    with ExitStack() as stack:
        stack.enter_context(chdir(cwd))
        stack.enter_context(patch.dict(os.environ, daemon.env))
        stack.enter_context(patch.object(sys, "argv", ["olm", *args]))
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        status = main()
    return Done(status, out.getvalue(), err.getvalue())


def upload(daemon: Daemon, data: bytes) -> str:
    """Upload a blob; its digest."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    reply = httpx2.post(f"{daemon.url}/api/blobs/{digest}", content=data, timeout=60)
    assert reply.status_code in (200, 201), reply.text
    return digest


def upload_folder(daemon: Daemon, folder: Path) -> dict[str, str]:
    """Upload all files of a checkpoint: `files` of a create."""
    return {
        path.relative_to(folder).as_posix(): upload(daemon, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextmanager
def events(daemon: Daemon, body: Body) -> Iterator[Iterator[dict[str, object]]]:
    """Create, and give the events of it; leaving closes the connection."""
    url = f"{daemon.url}/api/create"
    with httpx2.stream("POST", url, json=body, timeout=120) as reply:
        yield (json.loads(line) for line in reply.iter_lines())


def create(daemon: Daemon, body: Body) -> list[dict[str, object]]:
    """Create a model; all events."""
    with events(daemon, body) as found:
        return list(found)


def answer(daemon: Daemon, model: str, prompt: str, n_tokens: int = 16) -> str:
    """What a model says after a raw prompt, taking the likeliest token each time."""
    options = {"temperature": 0, "num_predict": n_tokens, "repeat_penalty": 1.0, "num_ctx": 512}
    body = {"model": model, "prompt": prompt, "raw": True, "stream": False, "options": options}
    reply = httpx2.post(f"{daemon.url}/api/generate", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["response"])


def stored(daemon: Daemon) -> set[str]:
    """The names of all files among the blobs."""
    return {path.name for path in (daemon.home / "models/blobs").iterdir()}


def referenced(daemon: Daemon) -> set[str]:
    """The names of all blobs that models need."""
    found: set[str] = set()
    for path in (daemon.home / "models/manifests").rglob("*"):
        if path.is_file():
            manifest = json.loads(path.read_text())
            layers = [manifest["config"], *manifest["layers"]]
            found |= {layer["digest"].replace(":", "-") for layer in layers}
    return found


def children(daemon: Daemon, title: str = "olm convert") -> list[int]:
    """The daemon's child processes that go by a title."""
    return [pid for pid in daemon.worker_pids() if title in _title(pid)]


def _title(pid: int) -> str:
    try:
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            + Path(f"/proc/{pid}/comm").read_text()
        )
    except FileNotFoundError:
        return ""


def copy_checkpoint(name: str, folder: Path, **config: object) -> Path:
    """Copy a checkpoint of tests/fixtures/hf, with settings of its config.json changed."""
    target = folder / name
    shutil.copytree(FIXTURES / name, target, ignore=shutil.ignore_patterns("reference.json"))
    if config:
        path = target / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return target


def large_checkpoint(folder: Path, n_embd: int = 1024, n_layers: int = 4) -> Path:
    """A Llama in F16 of some 17 MB a layer, whose values repeat: small enough to upload, large enough to take a while."""
    target = copy_checkpoint(
        "llama-untied",
        folder,
        hidden_size=n_embd,
        intermediate_size=2 * n_embd,
        num_hidden_layers=n_layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        head_dim=n_embd // 8,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    shapes = {
        "model.embed_tokens": (512, n_embd),
        "lm_head": (512, n_embd),
        "model.norm": (n_embd,),
    }
    for layer in range(n_layers):
        names = {f"self_attn.{x}_proj": (n_embd, n_embd) for x in "qkvo"}
        names |= {f"mlp.{x}_proj": (2 * n_embd, n_embd) for x in ("gate", "up")}
        names |= {"mlp.down_proj": (n_embd, 2 * n_embd)}
        names |= dict.fromkeys(("input_layernorm", "post_attention_layernorm"), (n_embd,))
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in names.items()}
    head: dict[str, object] = {}
    offset = 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        place = [offset, offset + size]
        head[f"{name}.weight"] = {"dtype": "F16", "shape": shape, "data_offsets": place}
        offset += size
    raw = json.dumps(head).encode()
    block = struct.pack("<512e", *((i * 37 % 101 - 50) / 200 for i in range(512)))
    data = struct.pack("<Q", len(raw)) + raw + block * (offset // len(block))
    (target / "model.safetensors").write_bytes(data)
    return target
