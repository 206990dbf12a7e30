"""Trying CPU variants in child processes, and remembering the outcome. What to make of it is decided in `devices`.

The child is `olm-probe` (native/probe), installed beside the libraries: a variant that faults, hangs or computes wrongly
costs that child and nothing else. Outcomes are kept in a file per (CPU, kernel, installed libraries).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from olm.errors import NativeError

__all__ = [
    "PROBE_PROGRAM",
    "ProbeResult",
    "cache_key",
    "cache_path",
    "check_variant",
    "cpu_identity",
    "parse_cpu_identity",
    "parse_scores",
    "read_cached",
    "score_variants",
    "write_cached",
]

PROBE_PROGRAM = "olm-probe"
_TIMEOUT_S = 30.0  # the child's own alarm rings at 20 s; this is for a child that ignores it
_CPUINFO_BYTES = 8192  # the first processor's paragraph; reading all of them costs milliseconds on large machines
_IDENTITY_FIELDS = (
    "vendor_id",
    "cpu family",
    "model",
    "stepping",
    "flags",
    "CPU implementer",
    "CPU part",
    "Features",
)
_FORMAT = 1


@attrs.frozen
class ProbeResult:
    """How one variant's self-test ended.

    Attributes:
        is_good: every product it computed was right.
        detail: one line for people: "20 right 0 wrong", "died of SIGILL", ...
    """

    is_good: bool
    detail: str


def parse_cpu_identity(cpuinfo: str) -> str:
    """Take out of /proc/cpuinfo's text what tells one CPU model, with its features, from another."""
    found: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in _IDENTITY_FIELDS:
            found.setdefault(name.strip(), value.strip())
    return "|".join(f"{name}={found[name]}" for name in _IDENTITY_FIELDS if name in found)


def cpu_identity() -> str:
    """Tell this CPU and kernel from others: the kernel may withhold what the CPU offers (AMX)."""
    try:
        with open("/proc/cpuinfo", "rb", buffering=0) as file:
            text = file.read(_CPUINFO_BYTES).decode(errors="replace")
    except OSError:
        text = ""
    return f"{platform.machine()}|{platform.release()}|{parse_cpu_identity(text)}"


def cache_key(identity: str, files: Sequence[Path]) -> str:
    """Make the name under which an outcome is kept.

    Files count by size and times, not by contents: hashing them would take longer than everything else at a start, and
    an installation never changes a library in place.
    """
    total = hashlib.sha256(f"{_FORMAT}|{identity}\n".encode())
    for path in sorted(files):
        stat = path.stat()
        total.update(
            f"{path}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}|{stat.st_ino}\n".encode()
        )
    return total.hexdigest()[:32]


def cache_path(key: str, env: Mapping[str, str]) -> Path:
    """Place the outcome's file: below $OLM_BUILD_CACHE, $XDG_CACHE_HOME/olm or ~/.cache/olm."""
    if env.get("OLM_BUILD_CACHE"):
        root = Path(env["OLM_BUILD_CACHE"]).expanduser()
    elif env.get("XDG_CACHE_HOME"):
        root = Path(env["XDG_CACHE_HOME"]) / "olm"
    else:
        root = Path(env.get("HOME") or "~").expanduser() / ".cache" / "olm"
    return root / "probe" / f"{key}.json"


def read_cached(path: Path) -> tuple[str, int] | None:
    """Read (file name, score) of the variant chosen earlier; None if there is none or the file is damaged."""
    try:
        found = json.loads(path.read_bytes())
        name, score = found["file"], found["score"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (name, score) if isinstance(name, str) and isinstance(score, int) else None


def write_cached(path: Path, file: str, score: int, results: Mapping[str, ProbeResult]) -> None:
    """Keep an outcome, atomically. A cache that cannot be written is no error: the probe then runs at each start."""
    document = {
        "file": file,
        "score": score,
        "results": {name: attrs.asdict(result) for name, result in results.items()},
    }
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".probe-", dir=path.parent)
        try:
            with open(handle, "w", encoding="utf-8") as out:
                json.dump(document, out)
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise


def parse_scores(output: str) -> dict[str, int]:
    """Read `olm-probe score`: file name to score, without those that crashed, do not load (-1) or do not fit (0)."""
    scores: dict[str, int] = {}
    for line in output.splitlines():
        match line.split():
            case ["score", name, number] if number.lstrip("-").isdigit() and int(number) > 0:
                scores[name] = int(number)
            case _:
                pass
    return scores


def _run(lib_dir: Path, arguments: Sequence[str]) -> tuple[int, str]:
    import subprocess  # only needed when nothing is cached

    program = lib_dir / PROBE_PROGRAM
    try:
        done = subprocess.run(
            [str(program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # On a busy machine OpenMP's unbounded spinning would turn 20 ms into seconds.
            env={"GOMP_SPINCOUNT": "1000", **os.environ},
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 124, ""
    except OSError as exc:
        raise NativeError(f"cannot run {program}: {exc}; run build_native.py") from exc
    return done.returncode, done.stdout.decode(errors="replace")


def score_variants(lib_dir: Path, files: Sequence[Path]) -> dict[str, int]:
    """Ask each library for upstream's score on this CPU, in children.

    Returns:
        file name to score, usable ones only.

    Raises:
        NativeError: the probe program is missing or cannot run.
    """
    if not files:
        return {}
    status, output = _run(lib_dir, ["score", *map(str, files)])
    if status:
        raise NativeError(
            f"{lib_dir / PROBE_PROGRAM} failed ({_ending(status)}): {output.strip()[-500:]}"
        )
    return parse_scores(output)


def check_variant(lib_dir: Path, file: Path) -> ProbeResult:
    """Run the self-test of one variant in a child; whatever the child does, this returns.

    Raises:
        NativeError: the probe program is missing or cannot run.
    """
    status, output = _run(lib_dir, ["test", str(file)])
    lines = output.strip().splitlines()
    if status == 0 and lines and lines[-1].startswith("pass "):
        return ProbeResult(True, lines[-1].removeprefix("pass "))
    wrong = [line for line in lines if line.startswith("test ") and not line.endswith(" right")]
    if status < 0 or status == 124:
        return ProbeResult(False, _ending(status))
    said = wrong[0] if wrong else lines[-1] if lines else "no output"
    return ProbeResult(False, f"{_ending(status)}: {said}")


def _ending(status: int) -> str:
    if status == 124:
        return "timed out"
    if status < 0:
        import signal

        with contextlib.suppress(ValueError):
            return f"died of {signal.Signals(-status).name}"
        return f"died of signal {-status}"
    return f"exit status {status}"
