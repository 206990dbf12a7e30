"""The peer: llama.cpp's own programs from the same tree, with the same CPU kernels, to measure olm against."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from .build import build_libs, configure, libs_defines, libs_directory, ninja, superproject
from .common import Places, fail, locked, stored_entry
from .plan import Options, prepare
from .progress import phase, say

__all__ = ["PROGRAMS", "build_peer"]

PROGRAMS = ("llama-server", "llama-bench", "llama-quantize")


def build_peer(places: Places, options: Options, env: Mapping[str, str]) -> Path:
    """Return a directory with llama-server, llama-bench and llama-quantize beside the very libraries olm uses.

    The programs find libggml-cpu-*.so beside themselves, so they run the kernels, and the AMX repair, that olm runs.
    """
    build = prepare(places, options, env)
    libs = build_libs(build)
    key = libs.name.removeprefix("libs-")
    directory, log = libs_directory(build, key), build.log(f"peer-{key}")

    def make(into: Path) -> None:
        log.unlink(missing_ok=True)
        with phase("configuring the peer"):
            configure(
                build,
                superproject(build, directory),
                directory,
                libs_defines(build, peer=True),
                log,
            )
        with phase("compiling the peer"):
            ninja(build, directory, ["olm-peer"], log, "compiling the peer")
        for path in libs.iterdir():
            if path.is_file() and path.name != "entry.json":
                shutil.copy2(path, into)
        for path in (directory / "bin").iterdir():
            if (
                path.is_file()
                and not (into / path.name).exists()
                and (path.name in PROGRAMS or path.name.startswith("lib"))
            ):
                shutil.copy2(path, into)
        missing = [name for name in PROGRAMS if not (into / name).exists()]
        if missing:
            fail(f"the build made no {', '.join(missing)}")

    with locked(
        places.lock(f"libs-{key}"),
        lambda: say("another build of llama.cpp is running; waiting for it"),
    ):
        path, _ = stored_entry(places, f"peer-{key}", make)
    return path
