"""The build itself: upstream's libraries, our engine and probe, the extension, and their installation into the package.

Two stored results with a key each, so that a change in our sources never rebuilds llama.cpp:

    libs-KEY   tree, superproject, compiler, flags, variants, GPU backends -> libggml*, libllama*, libmtmd
    ours-KEY   libs-KEY, native/engine, native/probe, native/decl          -> libolm_engine, olm-probe, _olm.abi3.so
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import extension
from .common import (
    BuildError,
    Places,
    digest_of,
    fail,
    files_sha256,
    locked,
    replace_dir,
    stored_entry,
)
from .progress import phase, run_logged, say
from .toolchain import Toolchain, build_env, default_jobs, find_toolchain, python_with_cffi
from .upstream import Pin, Tree, obtain_tree, parse_pin
from .variants import cpu_flags, machine_arch, variants_for

__all__ = [
    "BACKENDS",
    "Build",
    "Options",
    "build",
    "installed_info",
    "libs_key",
    "options_from",
    "ours_key",
    "prepare",
]

# GPU plug-ins: the name of the command line -> (CMake switches, target). spec: upstream docs/build.md.
BACKENDS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "cuda": (("-DGGML_CUDA=ON",), "ggml-cuda"),
    "hip": (("-DGGML_HIP=ON",), "ggml-hip"),
    "vulkan": (("-DGGML_VULKAN=ON",), "ggml-vulkan"),
    "metal": (("-DGGML_METAL=ON", "-DGGML_METAL_EMBED_LIBRARY=ON"), "ggml-metal"),
}
# Whatever changes what a compiler makes of the same sources.
_FLAG_VARIABLES = ("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "CMAKE_ARGS")
_LIBS_TARGET = "olm-libs"


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    all_variants: bool = False
    backends: tuple[str, ...] = ()
    jobs: int | None = None


def options_from(
    env: Mapping[str, str],
    *,
    all_variants: bool = False,
    backends: Sequence[str] = (),
    jobs: int | None = None,
) -> Options:
    """Join command line and environment (OLM_NATIVE_VARIANTS, OLM_NATIVE_BACKENDS, OLM_BUILD_JOBS).

    Raises:
        BuildError: a variable has a value that means nothing.
    """
    wanted = env.get("OLM_NATIVE_VARIANTS", "").strip().lower() or "native"
    if wanted not in ("all", "native"):
        raise BuildError(
            f"OLM_NATIVE_VARIANTS is '{wanted}': use 'all' (for every machine) or 'native' (for this one)"
        )
    named = [name for name in env.get("OLM_NATIVE_BACKENDS", "").replace(",", " ").split() if name]
    if jobs is None and env.get("OLM_BUILD_JOBS"):
        if not env["OLM_BUILD_JOBS"].isdigit() or int(env["OLM_BUILD_JOBS"]) < 1:
            raise BuildError(f"OLM_BUILD_JOBS is '{env['OLM_BUILD_JOBS']}': use a number from 1 on")
        jobs = int(env["OLM_BUILD_JOBS"])
    return Options(all_variants or wanted == "all", tuple(dict.fromkeys([*backends, *named])), jobs)


@dataclass(frozen=True)
class Build:
    """Everything decided before the first compiler runs."""

    places: Places
    pin: Pin
    tree: Tree
    tools: Toolchain
    variants: tuple[str, ...]
    options: Options
    env: Mapping[str, str]

    @property
    def jobs(self) -> int:
        """Compilers at once."""
        return self.options.jobs or default_jobs()

    def log(self, name: str) -> Path:
        """The log file of a part."""
        return self.places.cache / "logs" / f"{name}.log"


def prepare(places: Places, options: Options, env: Mapping[str, str]) -> Build:
    """Read the pin, get the tree, find the tools, choose the variants.

    Raises:
        BuildError: any of these cannot be had.
    """
    pin = parse_pin(places.pin_file.read_text())
    tree = obtain_tree(places, pin, env)
    tools = find_toolchain(places, env)
    variants = variants_for(machine_arch(), cpu_flags(), all_variants=options.all_variants)
    return Build(places, pin, tree, tools, variants, options, build_env(places, env))


def _flags(env: Mapping[str, str]) -> dict[str, str]:
    return {name: env[name] for name in _FLAG_VARIABLES if env.get(name)}


def libs_key(build: Build, backend: str | None = None) -> str:
    """Key of the upstream libraries, or of one GPU plug-in."""
    ggml = build.places.native / "ggml"
    ours = [ggml / "CMakeLists.txt", ggml / "amx_tileconfig.h"]
    return digest_of(
        {
            "tree": build.tree.identity,
            "superproject": files_sha256(ggml, ours),
            "compiler": build.tools.compiler_id,
            "machine": machine_arch(),
            "flags": _flags(build.env),
            "variants": list(build.variants) if backend is None else [],
            "backend": backend,
        }
    )


def ours_key(build: Build, libs: str) -> str:
    """Key of our own code on top of those libraries."""
    native = build.places.native
    sources = [
        path
        for part in ("engine", "probe", "decl", "ggml/engine")
        for path in (native / part).rglob("*")
        if path.is_file() and not path.name.startswith(".")
    ]
    sources.append(native / "olm_build" / "extension.py")
    return digest_of(
        {
            "libs": libs,
            "sources": files_sha256(native, sources),
            "python": sys.implementation.cache_tag[:7],
        }
    )


def has_engine(native: Path) -> bool:
    """Tell whether there are engine sources to build; before they exist the libraries alone are useful."""
    return any((native / "engine").glob("*.cpp")) and (native / "engine" / "olm_engine.h").is_file()


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
    run_logged(command, log=log, env=build.env, what="configuring")


def ninja(build: Build, directory: Path, targets: Iterable[str], log: Path, what: str) -> None:
    """Build targets of a configured directory."""
    command = [build.tools.ninja, "-C", str(directory), "-j", str(build.jobs), *targets]
    run_logged(command, log=log, env=build.env, what=what)


def libs_directory(build: Build, key: str) -> Path:
    """The build directory of the libraries; kept, because the peer's tools are built in it too."""
    return build.places.cache / "build" / f"libs-{key}"


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
                build, build.places.native / "ggml", directory, libs_defines(build, peer=False), log
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
            configure(build, build.places.native / "ggml", directory, defines, log)
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
        with phase("compiling the cffi extension"):
            extension.compile_extension(
                native=native,
                engine_dir=into,
                out=directory / extension.extension_name(),
                tools=build.tools,
                python=python_with_cffi(build.places, build.env),
                env=build.env,
                log=log,
            )
        extension.smoke_import(directory, [libs, into])
        shutil.copy(directory / extension.extension_name(), into)
        _strip(build, [into / extension.extension_name()])

    with locked(_lock(build, f"ours-{place}"), _waiting("the engine")):
        path, was_there = stored_entry(build.places, f"ours-{key}", make)
    say(f"engine: {'from the cache' if was_there else 'built'} ({key})")
    return path


def installed_info(places: Places) -> dict[str, object]:
    """Read lib/build.json of what is installed; {} if there is nothing."""
    try:
        info = json.loads((places.lib / "build.json").read_text())
    except (OSError, ValueError):
        return {}
    return info if isinstance(info, dict) else {}


def _kept_plugins(build: Build) -> list[str]:
    """Name the plug-ins installed earlier that came from the same tree: a plain rebuild keeps them."""
    info = installed_info(build.places)
    plugins = info.get("plugins")
    if info.get("tree") != build.tree.identity or not isinstance(plugins, list):
        return []
    return [name for name in plugins if name in BACKENDS and name not in build.options.backends]


def install(build: Build, libs: Path, ours: Path, plugins: Mapping[str, Path]) -> bool:
    """Put everything into src/olm/native: `lib/` is swapped as a whole, the extension by rename.

    Returns:
        False if the very same build was installed already and is intact.
    """
    places = build.places
    kept_plugins = _kept_plugins(build)
    sources: dict[str, object] = {
        "libs": libs.name,
        "ours": ours.name,
        "plugins": sorted({*plugins, *kept_plugins}),
    }
    info = {
        **sources,
        "tree": build.tree.identity,
        "pin": vars(build.pin),
        "variants": list(build.variants),
        "compiler": build.tools.compiler_id,
        "flags": _flags(build.env),
        "extension": has_engine(places.native),
    }
    files = [
        path
        for d in (libs, ours, *plugins.values())
        for path in d.iterdir()
        if path.name not in ("entry.json", "licenses")
    ]
    with locked(
        _lock(build, "install-" + digest_of({"lib": str(places.lib)})), _waiting("this checkout")
    ):
        kept = _plugin_files(places, kept_plugins)
        have = installed_info(places)
        same = {key: have.get(key) for key in sources} == sources and have.get(
            "tree"
        ) == build.tree.identity
        if same and all(_is_copy(path, _target(places, path)) for path in files):
            return False
        fresh = places.lib.with_name(f".lib.new-{os.getpid()}")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for path in [*files, *kept]:
            if path.name != extension.extension_name():
                shutil.copy2(path, fresh / path.name)
        shutil.copytree(libs / "licenses", fresh / "licenses")
        built_at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        (fresh / "build.json").write_text(
            json.dumps({**info, "built_at": built_at}, indent=1) + "\n"
        )
        replace_dir(fresh, places.lib)
        target = places.package / extension.extension_name()
        if (ours / target.name).is_file():
            temporary = target.with_name(f".{target.name}.new-{os.getpid()}")
            shutil.copy2(ours / target.name, temporary)
            temporary.replace(target)
        else:
            target.unlink(missing_ok=True)
    return True


def _plugin_files(places: Places, backends: Iterable[str]) -> list[Path]:
    names = sorted(
        f"lib{BACKENDS[name][1]}{suffix}" for name in backends for suffix in (".so", ".dylib")
    )
    return [places.lib / name for name in names if (places.lib / name).is_file()]


def _target(places: Places, path: Path) -> Path:
    return (places.package if path.name == extension.extension_name() else places.lib) / path.name


def _is_copy(source: Path, target: Path) -> bool:
    try:
        have, want = target.stat(), source.stat()
    except OSError:
        return False
    return (have.st_size, have.st_mtime_ns) == (want.st_size, want.st_mtime_ns)


def build(places: Places, options: Options, env: Mapping[str, str]) -> Build:
    """Do all of it: from the pin to libraries that `import olm.native.lib` finds.

    Raises:
        BuildError: something the user can mend; nothing installed has been touched then.
    """
    unknown = [name for name in options.backends if name not in BACKENDS]
    if unknown:
        fail(f"unknown backend {unknown[0]}; known: {', '.join(BACKENDS)}")
    if os.name != "posix":
        raise BuildError("the native build supports Linux and macOS; on Windows use WSL")
    plan = prepare(places, options, env)
    libs = build_libs(plan)
    plugins = {name: build_plugin(plan, name) for name in options.backends}
    ours = build_ours(plan, libs)
    changed = install(plan, libs, ours, plugins)
    if changed and not has_engine(places.native):
        say("native/engine has no sources yet: only the libraries were installed")
    say(f"{'installed into' if changed else 'up to date:'} {places.lib}")
    return plan
