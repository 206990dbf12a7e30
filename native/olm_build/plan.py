"""What is decided before the first compiler runs: options, variants, and the keys of the two stored results."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .common import BuildError, Places, digest_of, files_sha256
from .toolchain import Toolchain, build_env, default_jobs, find_toolchain
from .upstream import Pin, Tree, obtain_tree, parse_pin
from .variants import cpu_flags, machine_arch, variants_for

__all__ = [
    "BACKENDS",
    "Build",
    "Options",
    "compile_flags",
    "has_engine",
    "libs_key",
    "options_from",
    "ours_key",
    "prepare",
    "superproject_files",
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


def compile_flags(env: Mapping[str, str]) -> dict[str, str]:
    """Pick the variables that change what a compiler makes of the same sources."""
    return {name: env[name] for name in _FLAG_VARIABLES if env.get(name)}


def superproject_files(places: Places) -> list[Path]:
    """List the files of our CMake project around the tree."""
    return [places.native / "ggml" / name for name in ("CMakeLists.txt", "amx_tileconfig.h")]


def libs_key(build: Build, backend: str | None = None) -> str:
    """Key of the upstream libraries, or of one GPU plug-in."""
    return digest_of(
        {
            "tree": build.tree.identity,
            "superproject": files_sha256(
                build.places.native / "ggml", superproject_files(build.places)
            ),
            "compiler": build.tools.compiler_id,
            "machine": machine_arch(),
            "flags": compile_flags(build.env),
            "variants": list(build.variants) if backend is None else [],
            "all_variants": build.options.all_variants if backend is None else None,
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
