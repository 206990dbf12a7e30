"""Which CPU variants of ggml to build: pure decisions on names and CPU flags.

The names, and what each needs, are the list at the end of `ggml/src/CMakeLists.txt` of the pinned tree; `sync` warns
when that list changes. Flags are those of /proc/cpuinfo, which the kernel has already cleared of what it does not support.
"""

from __future__ import annotations

import ctypes
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

__all__ = [
    "ALL",
    "choose_native",
    "cpu_flags",
    "machine_arch",
    "names_in_tree",
    "parse_cpuinfo",
    "variants_for",
]

_SSE42 = ("sse4_2",)
_AVX = (*_SSE42, "avx")
_FMA3 = (*_AVX, "f16c", "fma")
_AVX2 = (*_FMA3, "avx2", "bmi2")
_AVX512 = (*_AVX2, "avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw")
_VBMI, _VNNI, _BF16 = "avx512vbmi", "avx512_vnni", "avx512_bf16"
_ARM_DOT = ("asimddp",)
_ARM_FP16 = (*_ARM_DOT, "asimdhp")
_ARM_I8MM = (*_ARM_FP16, "sve", "i8mm")

# Per architecture: (class, name, flags), best last in each class, best class last. The score of upstream's own detection
# grows in the same order. For one machine one variant of each of the top classes is enough; see `choose_native`.
ALL: Mapping[str, Sequence[tuple[str, str, tuple[str, ...]]]] = {
    "x86_64": (
        ("base", "x64", ()),
        ("sse", "sse42", _SSE42),
        ("avx", "sandybridge", _AVX),
        ("avx", "ivybridge", (*_AVX, "f16c")),
        ("avx", "piledriver", _FMA3),
        ("avx2", "haswell", _AVX2),
        ("avx2", "alderlake", (*_AVX2, "avx_vnni")),
        ("avx512", "skylakex", _AVX512),
        ("avx512", "cannonlake", (*_AVX512, _VBMI)),
        ("avx512", "cascadelake", (*_AVX512, _VNNI)),
        ("avx512", "icelake", (*_AVX512, _VBMI, _VNNI)),
        ("avx512", "cooperlake", (*_AVX512, _VNNI, _BF16)),
        ("avx512", "zen4", (*_AVX512, _VBMI, _VNNI, _BF16)),
        ("amx", "sapphirerapids", (*_AVX512, _VBMI, _VNNI, _BF16, "amx_tile", "amx_int8")),
    ),
    "aarch64": (
        ("base", "armv8.0_1", ()),
        ("dot", "armv8.2_1", _ARM_DOT),
        ("dot", "armv8.2_2", _ARM_FP16),
        ("sve", "armv8.2_3", (*_ARM_FP16, "sve")),
        ("i8mm", "armv8.6_1", _ARM_I8MM),
        ("i8mm", "armv8.6_2", (*_ARM_I8MM, "sve2")),
        ("sme", "armv9.2_1", (*_ARM_I8MM, "sme")),
        ("sme", "armv9.2_2", (*_ARM_I8MM, "sve2", "sme")),
    ),
    # macOS names no flags; every one of its variants is small, and the score at run time chooses.
    "arm64": (("base", "apple_m1", ()), ("m2", "apple_m2_m3", ()), ("m4", "apple_m4", ())),
}
_OLD_CLASSES = ("sse", "avx")  # of use only to a CPU that has nothing newer
_TOP_CLASSES = 3  # and the baseline: a fallback each for the case that the probe rejects the best

_ARCH_GET_XCOMP_SUPP = 0x1021  # Linux, arch/x86/include/uapi/asm/prctl.h
_SYS_ARCH_PRCTL = 158
_XFEATURE_XTILEDATA = 18


def machine_arch() -> str:
    """Name the architecture as the table does."""
    machine = platform.machine()
    return {"AMD64": "x86_64", "amd64": "x86_64"}.get(machine, machine)


def parse_cpuinfo(text: str) -> frozenset[str]:
    """Take the flags of the first processor out of /proc/cpuinfo's text (`flags` on x86, `Features` on ARM)."""
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(match.group(1).split()) if match else frozenset()


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Tell what this machine's CPU and kernel support; AMX only if the kernel would grant its tile data."""
    try:
        flags = parse_cpuinfo(cpuinfo.read_text())
    except OSError:
        return frozenset()
    if "amx_tile" in flags and not _kernel_grants_amx():
        flags -= {"amx_tile", "amx_int8", "amx_bf16"}
    return flags


def _kernel_grants_amx() -> bool:
    mask = ctypes.c_uint64(0)
    libc = ctypes.CDLL(None, use_errno=True)
    status = libc.syscall(_SYS_ARCH_PRCTL, _ARCH_GET_XCOMP_SUPP, ctypes.byref(mask))
    return status == 0 and bool(mask.value >> _XFEATURE_XTILEDATA & 1)


def choose_native(arch: str, flags: Iterable[str]) -> tuple[str, ...]:
    """Pick the variants for one machine, worst first: the baseline and the best of each of the three best classes it can run.

    An architecture without a table gets (), which means upstream's single generic build.
    """
    have = frozenset(flags)
    # A later name of the same class replaces an earlier one.
    best = {cls: name for cls, name, needs in ALL.get(arch, ()) if have.issuperset(needs)}
    names = [name for cls, name in best.items() if cls not in _OLD_CLASSES]
    old = [name for cls, name in best.items() if cls in _OLD_CLASSES]
    if len(names) == 1:
        names += old[-1:]
    return tuple(names[:1] + names[1:][-_TOP_CLASSES:])


def variants_for(arch: str, flags: Iterable[str], *, all_variants: bool) -> tuple[str, ...]:
    """Name the variants to build, worst first; () where upstream has only one build."""
    if all_variants:
        return tuple(name for _, name, _ in ALL.get(arch, ()))
    return choose_native(arch, flags)


def names_in_tree(cmake_text: str) -> frozenset[str]:
    """List the variants which a tree's ggml/src/CMakeLists.txt declares, to compare with `ALL`."""
    return frozenset(re.findall(r"ggml_add_cpu_backend_variant\(([\w.]+)[\s)]", cmake_text)) - {
        "tag_name"
    }
