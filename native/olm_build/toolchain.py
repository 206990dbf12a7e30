"""Finding the tools: compiler, CMake, ninja, ccache, strip, and a Python with cffi. What is missing comes from PyPI."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .common import Places, fail, locked
from .progress import phase, say

__all__ = [
    "Toolchain",
    "build_env",
    "find_compiler",
    "find_toolchain",
    "jobs_for",
    "python_with_cffi",
]

_MIN_CMAKE = (3, 19)  # the superproject's own cmake_minimum_required
_FROM_PYPI = {"cmake": "cmake>=3.25,<5", "ninja": "ninja>=1.11", "cffi": "cffi>=1.17"}
_JOB_BYTES = (
    1536 * 1024 * 1024
)  # measured peak of the largest compile units (chat, arg, unity batches of models)


@dataclass(frozen=True)
class Toolchain:
    """Absolute paths, and the compilers' identity for cache keys."""

    cmake: str
    ninja: str
    cc: str
    cxx: str
    ccache: str | None
    strip: str | None
    compiler_id: str


def jobs_for(n_cpus: int, available_bytes: int | None) -> int:
    """Decide how many compilers run at once: one per CPU, but no more than memory holds, at least one."""
    if available_bytes is None:
        return max(1, n_cpus)
    return max(1, min(n_cpus, available_bytes // _JOB_BYTES))


def default_jobs() -> int:
    """Apply `jobs_for` to this machine."""
    n_cpus = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    try:
        found = re.search(
            r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE
        )
    except OSError:
        found = None
    return jobs_for(n_cpus, int(found.group(1)) * 1024 if found else None)


def build_env(places: Places, env: Mapping[str, str]) -> dict[str, str]:
    """Make the environment for CMake and compilers."""
    result = dict(env)
    result.setdefault(
        "CCACHE_BASEDIR", str(places.cache)
    )  # paths below the cache do not count as differences
    result.setdefault("CCACHE_SLOPPINESS", "time_macros")
    result["GIT_CEILING_DIRECTORIES"] = str(
        places.cache
    )  # upstream asks git for a commit: not ours around the cache
    result["NINJA_STATUS"] = "[%f/%t] "
    return result


def _said(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def find_compiler(env: Mapping[str, str]) -> tuple[str, str, str]:
    """Find (cc, c++, identity). $CC and $CXX win.

    Raises:
        BuildError: there is no C++ compiler; a compiler is the one tool PyPI does not replace.
    """
    cc = shutil.which(env.get("CC") or "cc") or shutil.which("gcc") or shutil.which("clang")
    cxx = shutil.which(env.get("CXX") or "c++") or shutil.which("g++") or shutil.which("clang++")
    if cc is None or cxx is None:
        fail(
            "no C/C++ compiler found: install gcc and g++ 10 or newer (Debian: build-essential), or set CC and CXX"
        )
    identity = "; ".join(
        _said([path, flag]).splitlines()[0]
        for path in (cc, cxx)
        for flag in ("--version", "-dumpmachine")
        if _said([path, flag])
    )
    return cc, cxx, identity


def _is_new_enough(cmake: str) -> bool:
    found = re.search(r"version (\d+)\.(\d+)", _said([cmake, "--version"]))
    return found is not None and (int(found.group(1)), int(found.group(2))) >= _MIN_CMAKE


def _tool(name: str) -> str | None:
    """Look on PATH, then beside this Python (a venv that is not activated)."""
    for path in (None, str(Path(sys.executable).parent), str(Path(sys.prefix) / "bin")):
        found = shutil.which(name, path=path)
        if found and (name != "cmake" or _is_new_enough(found)) and _said([found, "--version"]):
            return found
    return None


def tools_venv(places: Places, names: list[str], env: Mapping[str, str]) -> Path:
    """Make (once) a private virtual environment in the cache with the named tools from the package index; return its bin."""
    home = places.cache / "tools" / f"py{sys.version_info.major}.{sys.version_info.minor}"
    python = home / "bin" / "python"
    clean = {
        key: value
        for key, value in env.items()
        if key not in ("PYTHONPATH", "PYTHONNOUSERSITE", "PYTHONHOME")
    }
    with locked(places.lock("tools"), lambda: say("another build is installing tools; waiting")):
        missing = [name for name in names if not (home / f".have-{name}").exists()]
        if not missing:
            return python.parent
        with phase(f"installing {', '.join(missing)} from the package index into {home}"):
            for command in (
                [sys.executable, "-m", "venv", str(home)],
                [
                    str(python),
                    "-m",
                    "pip",
                    "install",
                    "-q",
                    "--disable-pip-version-check",
                    *(_FROM_PYPI[name] for name in missing),
                ],
            ):
                result = subprocess.run(
                    command, env=clean, capture_output=True, text=True, check=False
                )
                if result.returncode:
                    fail(
                        f"cannot install {missing}: install them yourself.\n{(result.stdout + result.stderr)[-2000:]}"
                    )
        for name in missing:
            (home / f".have-{name}").touch()
    return python.parent


def missing_requirements() -> list[str]:
    """List what a build front end should install first, as requirements: tools that the system does not have."""
    return [_FROM_PYPI[name] for name in ("cmake", "ninja") if _tool(name) is None]


def find_toolchain(places: Places, env: Mapping[str, str]) -> Toolchain:
    """Find everything a build needs, fetching CMake and ninja from PyPI where the system has none."""
    cc, cxx, identity = find_compiler(env)
    found = {name: _tool(name) for name in ("cmake", "ninja")}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        bin_dir = tools_venv(places, missing, env)
        found |= {name: str(bin_dir / name) for name in missing}
    return Toolchain(
        cmake=str(found["cmake"]),
        ninja=str(found["ninja"]),
        cc=cc,
        cxx=cxx,
        ccache=shutil.which("ccache"),
        strip=shutil.which("strip"),
        compiler_id=identity,
    )


def python_with_cffi(places: Places, env: Mapping[str, str]) -> str:
    """Return a Python that can import cffi: this one, or one in the tools environment."""
    if importlib.util.find_spec("cffi") is not None:
        return sys.executable
    return str(tools_venv(places, ["cffi"], env) / "python")
