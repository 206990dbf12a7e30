"""Which backends the engine loads: the choice of the CPU variant, and the GPU plug-ins that are there.

Pure choice over scores and probe results; the children that find them are run by `probe`. Nothing of the engine is
loaded into this process. `choose_cpu_variant` blocks on child processes the first time (about 0.1 s): call it in
the worker, or in a thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import attrs

from olm.errors import NativeError
from olm.native import probe
from olm.native.probe import ProbeResult

__all__ = [
    "CpuVariant",
    "choose_cpu_variant",
    "default_lib_dir",
    "describe",
    "pick",
    "plugin_paths",
    "ranked",
    "variant_name",
]

_PREFIX = "libggml-cpu"
_SUFFIXES = (".so", ".dylib")
# Load order is device order (upstream's ggml_backend_load_all_from_path); the CPU comes last, after these.
_PLUGINS = ("cuda", "hip", "metal", "sycl", "vulkan", "opencl", "rpc")
_GENERIC = "generic"  # the one build of an architecture without variants


@attrs.frozen
class CpuVariant:
    """A build of ggml's CPU backend for some instruction sets.

    Attributes:
        name: upstream's name, such as "sapphirerapids" or "x64".
        path: the library, absolute.
        score: upstream's own ranking, higher is better; 0 if it was forced and not asked.
    """

    name: str
    path: Path
    score: int


def default_lib_dir() -> Path:
    """Locate the libraries of this installation."""
    return Path(__file__).resolve().parent / "lib"


def variant_name(file: str) -> str:
    """Turn a file name into the variant's name."""
    stem = file.removeprefix(_PREFIX)
    for suffix in _SUFFIXES:
        stem = stem.removesuffix(suffix)
    return stem.removeprefix("-") or _GENERIC


def _candidates(lib_dir: Path) -> list[Path]:
    try:
        names = os.listdir(lib_dir)
    except OSError:
        return []
    wanted = (name for name in names if name.startswith(_PREFIX) and name.endswith(_SUFFIXES))
    return [lib_dir / name for name in sorted(wanted)]


def ranked(lib_dir: Path, scores: Mapping[str, int]) -> list[CpuVariant]:
    """Order variants by score, best first; equal scores by name, so that the order never depends on the file system."""
    order = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return [CpuVariant(variant_name(file), lib_dir / file, score) for file, score in order]


def pick(
    variants: Iterable[CpuVariant], check: Callable[[CpuVariant], ProbeResult]
) -> tuple[CpuVariant | None, dict[str, ProbeResult]]:
    """Take the first variant that passes; later ones are not tried.

    Returns:
        the variant (None if none passes), and the results by name of all that were tried.
    """
    results: dict[str, ProbeResult] = {}
    for variant in variants:
        results[variant.name] = result = check(variant)
        if result.is_good:
            return variant, results
    return None, results


def _forced(lib_dir: Path, files: Iterable[Path], name: str) -> CpuVariant:
    by_name = {variant_name(path.name): path for path in files}
    if name not in by_name:
        raise NativeError(
            f"OLM_CPU_VARIANT is '{name}'; {lib_dir} has: {', '.join(sorted(by_name)) or 'none'}"
        )
    return CpuVariant(name, by_name[name], 0)


def choose_cpu_variant(
    lib_dir: Path | None = None, env: Mapping[str, str] | None = None
) -> CpuVariant:
    """Choose the best CPU variant that works here.

    Candidates are asked for their score and tried, best first, each in a child process; the outcome is remembered
    per CPU and installation, and then costs a millisecond. $OLM_CPU_VARIANT names one without any test.

    Args:
        lib_dir: where the libraries are; this installation's by default.
        env: the environment to heed; this process's by default.

    Raises:
        NativeError: there are no libraries, the forced one does not exist, or none of them works.
    """
    lib_dir = (lib_dir or default_lib_dir()).absolute()
    env = os.environ if env is None else env
    files = _candidates(lib_dir)
    if not files:
        raise NativeError(f"no {_PREFIX}*.so in {lib_dir}: run build_native.py")
    forced = env.get("OLM_CPU_VARIANT", "").strip()
    if forced:
        return _forced(lib_dir, files, forced)
    program = lib_dir / probe.PROBE_PROGRAM
    if not program.is_file():
        raise NativeError(f"{program} is missing: run build_native.py")
    kept = probe.cache_path(probe.cache_key(probe.cpu_identity(), [*files, program]), env)
    cached = probe.read_cached(kept)
    if cached is not None and lib_dir / cached[0] in files:
        return CpuVariant(variant_name(cached[0]), lib_dir / cached[0], cached[1])
    variants = ranked(lib_dir, probe.score_variants(lib_dir, files))
    chosen, results = pick(variants, lambda variant: probe.check_variant(lib_dir, variant.path))
    if chosen is None:
        tried = (
            "; ".join(f"{name}: {result.detail}" for name, result in results.items())
            or "none fits this CPU"
        )
        raise NativeError(
            f"no CPU variant in {lib_dir} works here ({tried}); set OLM_CPU_VARIANT to force one"
        )
    probe.write_cached(kept, chosen.path.name, chosen.score, results)
    return chosen


def plugin_paths(lib_dir: Path | None = None) -> list[Path]:
    """List the GPU (and RPC) plug-ins that are installed beside the base libraries, in the order to load them."""
    lib_dir = (lib_dir or default_lib_dir()).absolute()
    paths = (lib_dir / f"libggml-{name}{suffix}" for name in _PLUGINS for suffix in _SUFFIXES)
    return [path for path in paths if path.is_file()]


def describe(lib_dir: Path | None = None) -> str:
    """Test every variant, cached or not, and tell the outcome as a table for people.

    Raises:
        NativeError: the probe cannot run at all.
    """
    lib_dir = (lib_dir or default_lib_dir()).absolute()
    files = _candidates(lib_dir)
    scores = probe.score_variants(lib_dir, files)
    lines = []
    for variant in ranked(lib_dir, scores):
        result = probe.check_variant(lib_dir, variant.path)
        lines.append(
            f"{variant.name:16} score {variant.score:5}  {'good' if result.is_good else 'BAD'}: {result.detail}"
        )
    lines += [
        f"{variant_name(path.name):16} not for this CPU"
        for path in files
        if path.name not in scores
    ]
    lines += [f"plug-in {path.name}" for path in plugin_paths(lib_dir)]
    try:
        lines.append(f"chosen: {choose_cpu_variant(lib_dir).name}")
    except NativeError as exc:
        lines.append(f"chosen: none: {exc}")
    return "\n".join(lines)
