"""CPU flags to variants, by tables."""

from pathlib import Path

import pytest
from olm_build import variants

AVX2 = {"sse4_2", "avx", "f16c", "fma", "avx2", "bmi2"}
AVX512 = AVX2 | {"avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"}
ICE = AVX512 | {"avx512vbmi", "avx512_vnni"}
SPR = ICE | {"avx512_bf16", "avx_vnni", "amx_tile", "amx_int8"}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (set(), ("x64",)),
        ({"sse4_2"}, ("x64", "sse42")),
        ({"sse4_2", "avx"}, ("x64", "sandybridge")),
        (AVX2, ("x64", "haswell")),
        (AVX2 | {"avx_vnni"}, ("x64", "alderlake")),
        (AVX512, ("x64", "haswell", "skylakex")),
        (ICE, ("x64", "haswell", "icelake")),
        (ICE | {"avx512_bf16"}, ("x64", "haswell", "zen4")),
        (SPR, ("x64", "alderlake", "zen4", "sapphirerapids")),
        # A hypervisor that hides AMX's integers, and one that hides bf16.
        (SPR - {"amx_int8"}, ("x64", "alderlake", "zen4")),
        (SPR - {"avx512_bf16"}, ("x64", "alderlake", "icelake")),
    ],
)
def test_a_machine_gets_the_baseline_and_the_best_of_its_top_classes(
    flags: set[str], expected: tuple[str, ...]
) -> None:
    assert variants.choose_native("x86_64", flags) == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"fp", "asimd"}, ("armv8.0_1",)),
        ({"asimddp"}, ("armv8.0_1", "armv8.2_1")),
        (
            {"asimddp", "asimdhp", "sve", "i8mm", "sve2"},
            ("armv8.0_1", "armv8.2_2", "armv8.2_3", "armv8.6_2"),
        ),
    ],
)
def test_arm_flags_choose_arm_variants(flags: set[str], expected: tuple[str, ...]) -> None:
    assert variants.choose_native("aarch64", flags) == expected


def test_an_architecture_without_variants_gets_the_generic_build() -> None:
    assert variants.variants_for("loongarch64", {"lsx"}, all_variants=True) == ()
    assert variants.variants_for("loongarch64", {"lsx"}, all_variants=False) == ()


def test_all_variants_do_not_depend_on_this_machine() -> None:
    everything = variants.variants_for("x86_64", (), all_variants=True)

    assert everything[0] == "x64"
    assert everything[-1] == "sapphirerapids"
    assert len(everything) == 14


def test_flags_are_read_from_the_first_processor_only() -> None:
    text = "processor : 0\nmodel name : X\nflags\t\t: fpu avx2 fma\n\nprocessor : 1\nflags : amx_tile\n"

    assert variants.parse_cpuinfo(text) == {"fpu", "avx2", "fma"}
    assert variants.parse_cpuinfo("Features\t: asimd sve\n") == {"asimd", "sve"}
    assert variants.parse_cpuinfo("nothing here") == frozenset()


def test_amx_counts_only_if_the_kernel_grants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : avx2 amx_tile amx_int8 amx_bf16\n")
    monkeypatch.setattr(variants, "_kernel_grants_amx", lambda: False)

    assert variants.cpu_flags(cpuinfo) == {"avx2"}

    monkeypatch.setattr(variants, "_kernel_grants_amx", lambda: True)

    assert "amx_int8" in variants.cpu_flags(cpuinfo)


def test_a_machine_without_cpuinfo_has_no_flags(tmp_path: Path) -> None:
    assert variants.cpu_flags(tmp_path / "absent") == frozenset()


def test_names_are_found_in_a_tree() -> None:
    text = """
function(ggml_add_cpu_backend_variant tag_name)
    ggml_add_cpu_backend_variant_impl(${tag_name})
endfunction()
        ggml_add_cpu_backend_variant(x64)
            ggml_add_cpu_backend_variant(armv8.2_1    DOTPROD)
"""

    assert variants.names_in_tree(text) == {"x64", "armv8.2_1"}
