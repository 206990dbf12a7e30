"""The cffi extension `olm.native._olm` in API mode: declarations in, one abi3 library out.

Run as a module (`python -m olm_build.extension DECL_DIR OUT.c`) it only emits the C source: that is the one step which
needs cffi, so it can run in another Python than the build's own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from .common import fail
from .progress import run_logged
from .toolchain import Toolchain

__all__ = ["MODULE", "compile_extension", "extension_name", "read_declarations", "smoke_import"]

MODULE = "olm.native._olm"
_IMPORT = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location(*sys.argv[1:])
spec.loader.exec_module(importlib.util.module_from_spec(spec))
"""
ABI_VERSION = 0x030B0000  # Python 3.11's limited API: one build serves every later Python


def extension_name() -> str:
    """Name the extension's file."""
    return "_olm.abi3.so"


def read_declarations(decl: Path) -> str:
    """Join the cdef texts of native/decl in the order its ORDER file lists, or by name where there is none.

    Raises:
        BuildError: ORDER and the directory disagree.
    """
    have = {path.name for path in decl.glob("*.h")}
    order = sorted(have)
    if (decl / "ORDER").is_file():
        lines = (line.split("#")[0].strip() for line in (decl / "ORDER").read_text().splitlines())
        order = [line for line in lines if line]
        if set(order) != have or len(order) != len(have):
            fail(f"native/decl/ORDER lists {order}, the directory has {sorted(have)}")
    return "\n".join((decl / name).read_text() for name in order)


def emit(decl: Path, target: Path) -> None:
    """Write the extension's C source."""
    import cffi

    ffi = cffi.FFI()
    ffi.cdef(read_declarations(decl))
    ffi.set_source(MODULE, '#include "olm_engine.h"\n', py_limited_api=True)
    ffi.emit_c_code(str(target))


def compile_extension(
    *,
    native: Path,
    engine_dir: Path,
    out: Path,
    tools: Toolchain,
    python: str,
    env: Mapping[str, str],
    log: Path,
) -> None:
    """Emit, compile and link the extension against libolm_engine in `engine_dir`; it will look in its own `lib/`.

    Raises:
        BuildError: Python's headers are missing, a declaration does not match the header, or the link fails.
    """
    include = sysconfig.get_path("include")
    if not (Path(include) / "Python.h").is_file():
        fail(
            f"Python.h is not in {include}: install Python's development headers (Debian: python3-dev)"
        )
    source = out.with_name("_olm.c")
    child_env = {
        **env,
        "PYTHONPATH": os.pathsep.join(
            [str(native), *([env["PYTHONPATH"]] if env.get("PYTHONPATH") else [])]
        ),
    }
    command = [python, "-m", "olm_build.extension", str(native / "decl"), str(source)]
    run_logged(command, log=log, env=child_env, what="emitting the cffi source")
    origin = "@loader_path" if sys.platform == "darwin" else "$ORIGIN"
    undefined = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
    command = [
        *([tools.ccache] if tools.ccache else []),
        *(
            tools.cc,
            "-O2",
            "-fPIC",
            "-fvisibility=hidden",
            "-Wno-unused-function",
            f"-DPy_LIMITED_API={ABI_VERSION:#x}",
        ),
        *(
            "-I",
            include,
            "-I",
            str(native / "engine"),
            "-c",
            str(source),
            "-o",
            str(source.with_suffix(".o")),
        ),
    ]
    run_logged(
        command,
        log=log,
        env=env,
        what="compiling the cffi extension (do native/decl and olm_engine.h agree?)",
    )
    command = [tools.cc, "-shared", *undefined, str(source.with_suffix(".o")), "-o", str(out)]
    command += [f"-L{engine_dir}", "-lolm_engine", f"-Wl,-rpath,{origin}/lib"]
    if sys.platform != "darwin":
        # The engine's own dependencies lie elsewhere during this link; they are checked when the engine is linked.
        command += ["-Wl,--allow-shlib-undefined", "-Wl,--no-as-needed"]
    run_logged(command, log=log, env=env, what="linking the cffi extension")


def smoke_import(
    directory: Path, libraries: Sequence[Path], python: str, env: Mapping[str, str]
) -> None:
    """Import the extension built in `directory` in a child process, its `lib/` made of links to `libraries`.

    Raises:
        BuildError: it does not load, for instance because the engine lacks a function which native/decl declares.
    """
    lib = directory / "lib"
    shutil.rmtree(lib, ignore_errors=True)
    lib.mkdir()
    for path in (
        path for source in libraries for path in source.iterdir() if path.name.startswith("lib")
    ):
        (lib / path.name).symlink_to(path)
    result = subprocess.run(
        [python, "-P", "-c", _IMPORT, MODULE, str(directory / extension_name())],
        env=dict(env),  # an isolated build has its cffi on PYTHONPATH
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        fail(f"the extension was built but does not load:\n{result.stderr[-2000:]}")


if __name__ == "__main__":
    emit(Path(sys.argv[1]), Path(sys.argv[2]))
