"""Start and stop the servers that are measured: `olm serve` and llama.cpp's own `llama-server`.

Both run in their own process on loopback, on a port that was free, with their output kept in a file; leaving the
`with` block stops them. Also here: where the peer's programs and the llama.cpp tree are. No measuring.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import attrs
from load import Api

__all__ = [
    "BenchError",
    "Server",
    "ServerPlan",
    "cache_directory",
    "create_model",
    "end_on_sigterm",
    "llama_cpp_tree",
    "olm_command",
    "open_bare",
    "open_llama_server",
    "open_olm",
    "peer_directory",
    "variant_directory",
    "wait_until_up",
]

REPO: Final = Path(__file__).resolve().parents[1]
_START_LIMIT_S: Final = 60.0
_STOP_LIMIT_S: Final = 15.0
_POLL_S: Final = 0.02


class BenchError(Exception):
    """A benchmark cannot run: something is missing, or a server does not start."""


@attrs.frozen
class ServerPlan:
    """How to run a model: the same for both servers.

    Attributes:
        n_parallel: slots.
        n_ctx: context of each slot, tokens.
        n_threads: compute threads.
        cpu_variant: force one CPU build (olm only); empty for the server's own choice.
    """

    n_parallel: int
    n_threads: int
    n_ctx: int = 1024
    cpu_variant: str = ""


@attrs.frozen
class Server:
    """A server that answers. `pid` is the root of its process tree."""

    url: str
    api: Api
    pid: int
    log: Path


def _build_cache() -> Path:
    """The cache of build_native.py, by its own rule: $OLM_BUILD_CACHE, $XDG_CACHE_HOME/olm or ~/.cache/olm."""
    named = os.environ.get("OLM_BUILD_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "olm"


def cache_directory() -> Path:
    """Where models of the benchmarks are kept between runs: $OLM_BENCH_CACHE or `bench` in the build cache."""
    named = os.environ.get("OLM_BENCH_CACHE")
    directory = Path(named) if named else _build_cache() / "bench"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def llama_cpp_tree() -> Path:
    """Return the pinned llama.cpp tree that build_native.py unpacked, or $OLM_LLAMA_CPP; raises BenchError."""
    named = os.environ.get("OLM_LLAMA_CPP")
    if named:
        return Path(named)
    pin = tomllib.loads((REPO / "native" / "ggml" / "UPSTREAM.toml").read_text())
    tree = _build_cache() / "upstream" / str(pin["sha256"])[:12] / "llama.cpp"
    if tree.is_dir():
        return tree
    raise BenchError(f"no llama.cpp tree at {tree}; run `python build_native.py` first")


def peer_directory() -> Path:
    """Return the folder with llama-server and llama-bench: $OLM_BENCH_PEER, else what `build_native.py peer` made.

    Raises BenchError when they cannot be built.
    """
    named = os.environ.get("OLM_BENCH_PEER")
    if not named:
        command = [sys.executable, str(REPO / "build_native.py"), "peer", "--print-dir"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        lines = done.stdout.strip().splitlines()
        if done.returncode or not lines:
            raise BenchError(f"{' '.join(command)} failed with status {done.returncode}")
        named = lines[-1].strip()
    directory = Path(named)
    if not (directory / "llama-server").is_file():
        raise BenchError(f"no llama-server in {directory}")
    return directory


def olm_command() -> list[str]:
    """The `olm` command that belongs to this Python, else the same program without the script."""
    script = Path(sys.executable).with_name("olm")
    if script.exists():
        return [str(script)]
    return [sys.executable, "-m", "olm"]


def end_on_sigterm() -> None:
    """Make SIGTERM end this program like an error does, so that no server outlives it."""

    def end(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)


def _free_port() -> int:
    # Another program could take it before the server does; on a quiet machine that is a failed run, no wrong number.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int), "an IPv4 address is (host, port)"
        return port


def wait_until_up(url: str, process: subprocess.Popen[bytes]) -> float:
    """Poll `url` until it answers 200 and return the seconds that took; raises BenchError when it never does."""
    started = time.perf_counter()
    while time.perf_counter() - started < _START_LIMIT_S and process.poll() is None:
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(url, timeout=5) as reply,
        ):
            if reply.status == 200:
                return time.perf_counter() - started
        time.sleep(_POLL_S)
    reason = f"exited with {process.returncode}" if process.returncode is not None else "is silent"
    raise BenchError(f"the server {reason}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:].strip()


@contextlib.contextmanager
def _running(
    command: Sequence[str], environ: Mapping[str, str], name: str
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a command until the block ends; SIGTERM, then SIGKILL. If the block fails, its log's end is printed."""
    with tempfile.TemporaryDirectory(prefix="olm-bench-") as scratch:
        log = Path(scratch) / f"{name}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command, stdout=sink, stderr=subprocess.STDOUT, env={**os.environ, **environ}
            )
        try:
            yield process, log
        except Exception:
            print(f"--- end of {name}'s log\n{_tail(log)}\n---", file=sys.stderr)
            raise
        finally:
            process.terminate()
            try:
                process.wait(_STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def open_llama_server(directory: Path, model: Path, plan: ServerPlan) -> Iterator[Server]:
    """Run llama-server on one model, with the slots and the context that its own documentation advises for them."""
    port = _free_port()
    command = [str(directory / "llama-server"), "-m", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--no-webui"]
    command += ["-t", str(plan.n_threads), "-np", str(plan.n_parallel)]
    command += ["-c", str(plan.n_parallel * plan.n_ctx)]
    with _running(command, {}, "llama-server") as (process, log):
        url = f"http://127.0.0.1:{port}"
        wait_until_up(f"{url}/health", process)
        yield Server(url, "llama", process.pid, log)


@contextlib.contextmanager
def open_olm(
    store: Path, plan: ServerPlan | None = None, command: Sequence[str] = ()
) -> Iterator[Server]:
    """Run `olm serve` on a store of its own; without a plan everything is left at its default.

    `command` is run in place of `olm`.
    """
    port = _free_port()
    environ = {
        "OLM_HOST": f"127.0.0.1:{port}",
        "OLM_HOME": str(store),
        "OLM_MODELS": str(store / "models"),
    }
    if plan:
        environ |= {
            "OLM_NUM_PARALLEL": str(plan.n_parallel),
            "OLM_NUM_THREADS": str(plan.n_threads),
            "OLM_CONTEXT_LENGTH": str(plan.n_ctx),
            "OLM_CPU_VARIANT": plan.cpu_variant,
        }
    with _running([*(command or olm_command()), "serve"], environ, "olm") as (process, log):
        url = f"http://127.0.0.1:{port}"
        wait_until_up(f"{url}/api/version", process)
        yield Server(url, "ollama", process.pid, log)


@contextlib.contextmanager
def open_bare(loop: str) -> Iterator[Server]:
    """Run the least application that hypercorn can serve (bare_app.py), on `trio` or `asyncio`."""
    address = f"127.0.0.1:{_free_port()}"
    script = Path(__file__).with_name("bare_app.py")
    command = [sys.executable, str(script), address, loop]
    with _running(command, {}, "bare") as (process, log):
        url = f"http://{address}"
        wait_until_up(url, process)
        yield Server(url, "ollama", process.pid, log)


def create_model(server: Server, name: str, weights: Path) -> None:
    """Make `weights` a stored model through `olm create`; raises BenchError with what the command said."""
    with tempfile.TemporaryDirectory(prefix="olm-bench-") as scratch:
        modelfile = Path(scratch) / "Modelfile"
        modelfile.write_text(f"FROM {weights}\n")
        environ = {**os.environ, "OLM_HOST": server.url.removeprefix("http://")}
        command = [*olm_command(), "create", name, "-f", str(modelfile)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"olm create {name}: {done.stderr.strip() or done.stdout.strip()}")


def variant_directory(directory: Path, variant: str, target: Path) -> Path:
    """Copy the peer's programs into `target` with only one CPU build beside them, so that they must use it.

    ggml loads the best `libggml-cpu-*.so` from the folder of the program (ggml-backend-reg.cpp). Raises BenchError
    when the build has no such variant.
    """
    wanted = directory / f"libggml-cpu-{variant}.so"
    if not wanted.is_file():
        found = sorted(
            path.stem.removeprefix("libggml-cpu-") for path in directory.glob("libggml-cpu-*.so")
        )
        raise BenchError(f"no CPU variant {variant!r} in {directory}; there are {', '.join(found)}")
    target.mkdir(parents=True, exist_ok=True)
    for path in directory.iterdir():
        is_other = path.name.startswith("libggml-cpu-") and path != wanted
        if path.is_file() and not is_other:
            shutil.copy2(path, target / path.name)
    return target
