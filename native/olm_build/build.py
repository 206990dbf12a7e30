"""The build itself: upstream's libraries, GPU plug-ins, our engine and probe, the extension.

Two stored results with a key each, so that a change in our sources never rebuilds llama.cpp:

    libs-KEY   tree, superproject, compiler, flags, variants          -> libggml*, libllama*, libmtmd
    ours-KEY   libs-KEY, native/engine, native/probe, native/decl     -> libolm_engine, olm-probe, _olm.abi3.so
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from . import extension
from .common import BuildError, Places, digest_of, fail, locked, stored_entry
from .install import install
from .plan import (
    BACKENDS,
    Build,
    Options,
    has_engine,
    libs_key,
    ours_key,
    prepare,
    superproject_files,
)
from .progress import phase, run_logged, say
from .toolchain import python_with_cffi

__all__ = [
    "build",
    "build_libs",
    "configure",
    "libs_defines",
    "libs_directory",
    "ninja",
    "superproject",
]

_LIBS_TARGET = "olm-libs"


def configure(
    build: Build, source: Path, directory: Path, defines: Iterable[str], log: Path
) -> None:
    """Run CMake's configuration step; repeating it on a directory is cheap."""
    launchers = [
        f"-DCMAKE_{lang}_COMPILER_LAUNCHER={build.tools.ccache or ''}" for lang in ("C", "CXX")
    ]
    command = [
        *(build.tools.cmake, "-S", str(source), "-B", str(directory), "-G", "Ninja"),
        *(f"-DCMAKE_MAKE_PROGRAM={build.tools.ninja}", f"-DOLM_UPSTREAM={build.tree.path}"),
        *(
            f"-DCMAKE_C_COMPILER={build.tools.cc}",
            f"-DCMAKE_CXX_COMPILER={build.tools.cxx}",
            "-DCMAKE_BUILD_TYPE=Release",
        ),
        *launchers,
        *defines,
        *build.env.get("CMAKE_ARGS", "").split(),
    ]
    was_used = (directory / "CMakeCache.txt").exists()
    try:
        run_logged(command, log=log, env=build.env, what="configuring")
    except BuildError:
        if not was_used:
            raise
        # A directory left by a killed build, another CMake or a moved compiler: start it afresh.
        shutil.rmtree(directory)
        run_logged(command, log=log, env=build.env, what="configuring")


def ninja(build: Build, directory: Path, targets: Iterable[str], log: Path, what: str) -> None:
    """Build targets of a configured directory."""
    command = [build.tools.ninja, "-C", str(directory), "-j", str(build.jobs), *targets]
    run_logged(command, log=log, env=build.env, what=what)


def libs_directory(build: Build, key: str) -> Path:
    """The build directory of the libraries; kept, because the peer's tools are built in it too."""
    return build.places.cache / "build" / f"libs-{key}"


def superproject(build: Build, directory: Path) -> Path:
    """Copy our CMake project beside a build directory and return the copy.

    A build directory is shared by all checkouts with the same key, but CMake ties it to one source path.
    """
    source = directory.with_name(f"{directory.name}-src")
    source.mkdir(parents=True, exist_ok=True)
    for path in superproject_files(build.places):
        target = source / path.name
        if not target.is_file() or target.read_bytes() != path.read_bytes():
            shutil.copy(path, target)
    return source


def libs_defines(build: Build, *, peer: bool) -> list[str]:
    """What the superproject is configured with."""
    return [
        f"-DOLM_CPU_VARIANTS={';'.join(build.variants) or 'all'}",
        f"-DOLM_PEER={'ON' if peer else 'OFF'}",
        "-DLLAMA_BUILD_NUMBER=0",
        f"-DLLAMA_BUILD_COMMIT={build.tree.identity[:12]}",
    ]


def _strip(build: Build, files: Iterable[Path]) -> None:
    if build.tools.strip is None or sys.platform == "darwin":
        return
    for path in files:
        subprocess.run([build.tools.strip, "--strip-unneeded", str(path)], check=True)


def _copy_licences(tree: Path, into: Path) -> None:
    into.mkdir()
    shutil.copy(tree / "LICENSE", into / "LICENSE.llama.cpp")
    for path in sorted((tree / "licenses").glob("*")):
        shutil.copy(path, into / path.name)
    for path in sorted((tree / "vendor").rglob("LICENSE*")):
        shutil.copy(path, into / f"LICENSE.{path.parent.name}")


def _bundle_openmp(build: Build, into: Path) -> None:
    """Put gcc's OpenMP runtime beside the libraries: a build for other machines cannot count on it (slim images lack it)."""
    if not sys.platform.startswith("linux"):
        return
    command = [build.tools.cc, "-print-file-name=libgomp.so.1"]
    found = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    # A bare name means that this compiler has none: clang brings libomp instead.
    if found.is_absolute() and found.is_file():
        shutil.copy(found.resolve(), into / "libgomp.so.1")


def _lock(build: Build, name: str) -> Path:
    return build.places.lock(name)


def _waiting(what: str) -> Callable[[], None]:
    return lambda: say(f"another build of {what} is running; waiting for it")


def build_libs(build: Build) -> Path:
    """Return the stored directory of upstream's libraries, building it if need be."""
    key = libs_key(build)
    directory, log = libs_directory(build, key), build.log(f"libs-{key}")

    def make(into: Path) -> None:
        log.unlink(missing_ok=True)
        with phase("configuring llama.cpp"):
            configure(
                build,
                superproject(build, directory),
                directory,
                libs_defines(build, peer=False),
                log,
            )
        names = ", ".join(build.variants) or "generic"
        with phase(f"compiling llama.cpp with {build.jobs} jobs (CPU variants: {names})"):
            ninja(build, directory, [_LIBS_TARGET], log, "compiling llama.cpp")
        wanted = {
            "ggml-base",
            "ggml",
            "llama",
            "llama-common",
            "mtmd",
            *(f"ggml-cpu-{v}" for v in build.variants),
        }
        _take_libraries(
            build, directory / "bin", wanted if build.variants else {*wanted, "ggml-cpu"}, into
        )
        _copy_licences(build.tree.path, into / "licenses")
        if build.options.all_variants:
            _bundle_openmp(build, into)

    with locked(_lock(build, f"libs-{key}"), _waiting("llama.cpp")):
        path, was_there = stored_entry(build.places, f"libs-{key}", make)
    say(f"llama.cpp libraries: {'from the cache' if was_there else 'built'} ({key})")
    return path


def _take_libraries(build: Build, bin_dir: Path, names: Iterable[str], into: Path) -> None:
    taken = []
    for name in sorted(names):
        found = [
            path
            for suffix in (".so", ".dylib")
            if (path := bin_dir / f"lib{name}{suffix}").is_file()
        ]
        if not found:
            fail(f"the build made no lib{name} in {bin_dir}")
        shutil.copy(found[0], into)
        taken.append(into / found[0].name)
    _strip(build, taken)


def build_plugin(build: Build, backend: str) -> Path:
    """Return the stored directory of one GPU plug-in, building it if need be."""
    key = libs_key(build, backend)
    directory, log = (
        build.places.cache / "build" / f"{backend}-{key}",
        build.log(f"{backend}-{key}"),
    )
    switches, target = BACKENDS[backend]

    def make(into: Path) -> None:
        log.unlink(missing_ok=True)
        defines = [*libs_defines(build, peer=False), "-DOLM_CPU_VARIANTS=none", *switches]
        with phase(f"configuring the {backend} plug-in"):
            configure(build, superproject(build, directory), directory, defines, log)
        with phase(f"compiling the {backend} plug-in (this can take an hour on few cores)"):
            ninja(build, directory, [target], log, f"compiling the {backend} plug-in")
        _take_libraries(build, directory / "bin", [target], into)

    with locked(_lock(build, f"{backend}-{key}"), _waiting(f"the {backend} plug-in")):
        path, was_there = stored_entry(build.places, f"{backend}-{key}", make)
    say(f"{backend} plug-in: {'from the cache' if was_there else 'built'} ({key})")
    return path


def build_ours(build: Build, libs: Path) -> Path:
    """Return the stored directory of our own code, building it if need be."""
    native = build.places.native
    key = ours_key(build, libs.name)
    # One directory per checkout: objects of unchanged sources are reused while somebody works on the engine.
    place = digest_of({"root": str(build.places.root), "libs": libs.name})
    directory, log = build.places.cache / "build" / f"ours-{place}", build.log(f"ours-{place}")

    def make(into: Path) -> None:
        log.unlink(missing_ok=True)
        with phase("compiling the engine"):
            configure(
                build,
                native / "ggml" / "engine",
                directory,
                [f"-DOLM_LIBS={libs}", f"-DOLM_NATIVE={native}"],
                log,
            )
            ninja(build, directory, ["all"], log, "compiling the engine")
        shutil.copy(directory / "bin" / "olm-probe", into)
        _strip(build, [into / "olm-probe"])
        if not has_engine(native):
            return
        _take_libraries(build, directory / "bin", ["olm_engine"], into)
        python = python_with_cffi(build.places, build.env)
        with phase("compiling the cffi extension"):
            extension.compile_extension(
                native=native,
                engine_dir=into,
                out=directory / extension.extension_name(),
                tools=build.tools,
                python=python,
                env=build.env,
                log=log,
            )
        extension.smoke_import(directory, [libs, into], python, build.env)
        shutil.copy(directory / extension.extension_name(), into)
        _strip(build, [into / extension.extension_name()])

    with locked(_lock(build, f"ours-{place}"), _waiting("the engine")):
        path, was_there = stored_entry(build.places, f"ours-{key}", make)
    say(f"engine: {'from the cache' if was_there else 'built'} ({key})")
    return path


def build(places: Places, options: Options, env: Mapping[str, str]) -> Build:
    """Do all of it: from the pin to libraries that `import olm.native.lib` finds.

    Raises:
        BuildError: something the user can mend; nothing installed has been touched then.
    """
    unknown = [name for name in options.backends if name not in BACKENDS]
    if unknown:
        fail(f"unknown backend {unknown[0]}; known: {', '.join(BACKENDS)}")
    if os.name != "posix":
        fail("the native build supports Linux and macOS; on Windows use WSL")
    plan = prepare(places, options, env)
    libs = build_libs(plan)
    plugins = {name: build_plugin(plan, name) for name in options.backends}
    ours = build_ours(plan, libs)
    changed = install(plan, libs, ours, plugins)
    if changed and not has_engine(places.native):
        say("native/engine has no sources yet: only the libraries were installed")
    say(f"{'installed into' if changed else 'up to date:'} {places.lib}")
    return plan
