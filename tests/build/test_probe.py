"""The choice of a CPU variant: the pure order, and the real probe on real, broken and lying libraries."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from olm.errors import NativeError
from olm.native import devices, probe
from olm.native.devices import CpuVariant
from olm.native.probe import ProbeResult

LIB = devices.default_lib_dir()
needs_libs = pytest.mark.skipif(
    not (LIB / "olm-probe").is_file(), reason="run build_native.py first"
)

GOOD = ProbeResult(True, "8 right 0 wrong")
BAD = ProbeResult(False, "died of SIGILL")


def test_variants_are_ranked_by_score_then_name() -> None:
    scores = {
        "libggml-cpu-x64.so": 1,
        "libggml-cpu-zen4.so": 1984,
        "libggml-cpu-b.so": 128,
        "libggml-cpu-a.so": 128,
    }

    names = [variant.name for variant in devices.ranked(Path("/lib"), scores)]

    assert names == ["zen4", "a", "b", "x64"]


@pytest.mark.parametrize(
    ("outcomes", "chosen", "tried"),
    [
        ({"a": GOOD, "b": GOOD}, "a", ["a"]),
        ({"a": BAD, "b": GOOD}, "b", ["a", "b"]),
        ({"a": BAD, "b": BAD}, None, ["a", "b"]),
        ({}, None, []),
    ],
)
def test_the_first_that_passes_is_taken(
    outcomes: Mapping[str, ProbeResult], chosen: str | None, tried: list[str]
) -> None:
    variants = [CpuVariant(name, Path(name), 1) for name in outcomes]

    found, results = devices.pick(variants, lambda variant: outcomes[variant.name])

    assert (found.name if found else None) == chosen
    assert list(results) == tried


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("libggml-cpu-sapphirerapids.so", "sapphirerapids"),
        ("libggml-cpu-armv8.2_1.so", "armv8.2_1"),
        ("libggml-cpu.so", "generic"),
        ("libggml-cpu-apple_m1.dylib", "apple_m1"),
    ],
)
def test_names_come_from_files(file: str, name: str) -> None:
    assert devices.variant_name(file) == name


def test_scores_are_read_and_the_unusable_left_out() -> None:
    said = "score libggml-cpu-a.so 128\nscore libggml-cpu-b.so 0\nscore c.so -1\ncrash d.so\nnoise\nscore e.so x\n"

    assert probe.parse_scores(said) == {"libggml-cpu-a.so": 128}


def test_the_cpu_is_told_by_its_model_and_flags_only() -> None:
    one = "vendor_id : I\nmodel : 1\ncpu MHz : 1000.5\nflags : a b\n\nprocessor : 1\nmodel : 9\n"
    hotter = one.replace("1000.5", "3000.1")
    other = one.replace("a b", "a b amx_tile")

    assert probe.parse_cpu_identity(one) == probe.parse_cpu_identity(hotter)
    assert probe.parse_cpu_identity(one) != probe.parse_cpu_identity(other)
    assert "model=1" in probe.parse_cpu_identity(one)


def test_the_key_follows_cpu_and_files(tmp_path: Path) -> None:
    file = tmp_path / "libggml-cpu-x64.so"
    file.write_bytes(b"1")
    key = probe.cache_key("cpu 1", [file])

    assert probe.cache_key("cpu 1", [file]) == key
    assert probe.cache_key("cpu 2", [file]) != key

    replacement = tmp_path / "new"
    replacement.write_bytes(b"2")
    os.utime(replacement, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    replacement.replace(file)

    assert probe.cache_key("cpu 1", [file]) != key


@pytest.mark.parametrize("text", ["", "{", "[]", '{"file": 1, "score": 2}', '{"file": "x"}'])
def test_a_damaged_cache_file_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "k.json").write_text(text)

    assert probe.read_cached(tmp_path / "k.json") is None
    assert probe.read_cached(tmp_path / "absent.json") is None


def test_an_outcome_is_kept_and_an_unwritable_cache_is_no_error(tmp_path: Path) -> None:
    probe.write_cached(tmp_path / "probe" / "k.json", "libggml-cpu-x64.so", 1, {"x64": GOOD})
    (tmp_path / "file").write_text("")

    probe.write_cached(tmp_path / "file" / "k.json", "libggml-cpu-x64.so", 1, {})

    assert probe.read_cached(tmp_path / "probe" / "k.json") == ("libggml-cpu-x64.so", 1)
    assert [p.name for p in (tmp_path / "probe").iterdir()] == ["k.json"]


def test_an_empty_installation_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(NativeError, match=r"build_native\.py"):
        devices.choose_cpu_variant(tmp_path, {})
    with pytest.raises(NativeError, match=r"build_native\.py"):
        devices.choose_cpu_variant(tmp_path / "absent", {})

    (tmp_path / "libggml-cpu-x64.so").touch()

    with pytest.raises(NativeError, match="olm-probe is missing"):
        devices.choose_cpu_variant(tmp_path, {})


def test_a_forced_variant_is_taken_unseen(tmp_path: Path) -> None:
    (tmp_path / "libggml-cpu-x64.so").touch()

    assert (
        devices.choose_cpu_variant(tmp_path, {"OLM_CPU_VARIANT": "x64"}).path
        == tmp_path / "libggml-cpu-x64.so"
    )
    with pytest.raises(NativeError, match="has: x64"):
        devices.choose_cpu_variant(tmp_path, {"OLM_CPU_VARIANT": "../../evil"})


def test_plugins_are_listed_in_load_order(tmp_path: Path) -> None:
    for name in (
        "libggml-vulkan.so",
        "libggml-cuda.so",
        "libggml-base.so",
        "libggml-cpu-x64.so",
        "libggml-evil.so",
    ):
        (tmp_path / name).touch()

    assert [path.name for path in devices.plugin_paths(tmp_path)] == [
        "libggml-cuda.so",
        "libggml-vulkan.so",
    ]


# ---- with the real libraries ----


@pytest.fixture
def lib_dir(tmp_path: Path) -> Path:
    """The base libraries and the program, without any variant."""
    target = tmp_path / "lib"
    target.mkdir()
    for name in ("libggml.so", "libggml-base.so", "olm-probe"):
        shutil.copy2(LIB / name, target)
    return target


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"OLM_BUILD_CACHE": str(tmp_path / "cache")}


def lowest() -> Path:
    return (
        LIB
        / min(
            probe.score_variants(LIB, sorted(LIB.glob("libggml-cpu*.so"))).items(),
            key=lambda item: item[1],
        )[0]
    )


@pytest.fixture
def fallback(lib_dir: Path) -> CpuVariant:
    """A variant that works, with the lowest score there is."""
    source = lowest()
    shutil.copy2(source, lib_dir)
    return CpuVariant(devices.variant_name(source.name), lib_dir / source.name, 0)


Compile = Callable[[str, str], Path]


@pytest.fixture
def compiled(lib_dir: Path, tmp_path: Path) -> Compile:
    """Compile a few lines of C into a variant of a name."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")

    def make(name: str, code: str) -> Path:
        source = tmp_path / f"{name}.c"
        source.write_text(code)
        target = lib_dir / f"libggml-cpu-{name}.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(target), str(source)], check=True)
        return target

    return make


SCORES_HIGH = "int ggml_backend_score(void) { return 1000000; }\n"
FAULTS = {
    "illegal instruction": (
        SCORES_HIGH + "void *ggml_backend_init(void) { __builtin_trap(); }",
        "died of SIG",
    ),
    "segmentation fault": (
        SCORES_HIGH + "void *ggml_backend_init(void) { *(volatile int *) 16 = 1; return 0; }",
        "died of SIGSEGV",
    ),
    "exit": (
        "#include <stdlib.h>\n" + SCORES_HIGH + "void *ggml_backend_init(void) { exit(0); }",
        "exit status 0",
    ),
    "no backend": (SCORES_HIGH + "void *ggml_backend_init(void) { return 0; }", "cannot be loaded"),
    "no entry": (SCORES_HIGH, "cannot be loaded"),
}


@needs_libs
@pytest.mark.native
@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_variant_is_passed_over(
    lib_dir: Path, env: dict[str, str], fallback: CpuVariant, compiled: Compile, fault: str
) -> None:
    code, detail = FAULTS[fault]
    broken = compiled("broken", code)

    chosen = devices.choose_cpu_variant(lib_dir, env)
    result = probe.check_variant(lib_dir, broken)

    assert chosen.name == fallback.name
    assert not result.is_good
    assert detail in result.detail


@needs_libs
@pytest.mark.native
def test_a_variant_that_dies_while_asked_for_its_score_is_left_out(
    lib_dir: Path, env: dict[str, str], fallback: CpuVariant, compiled: Compile
) -> None:
    compiled("broken", "int ggml_backend_score(void) { __builtin_trap(); }")

    assert devices.choose_cpu_variant(lib_dir, env).name == fallback.name


@needs_libs
@pytest.mark.native
def test_a_file_that_is_no_library_is_left_out(
    lib_dir: Path, env: dict[str, str], fallback: CpuVariant
) -> None:
    (lib_dir / "libggml-cpu-torn.so").write_bytes(fallback.path.read_bytes()[:5000])

    assert devices.choose_cpu_variant(lib_dir, env).name == fallback.name


@needs_libs
@pytest.mark.native
@pytest.mark.slow
def test_a_variant_that_hangs_is_passed_over(
    lib_dir: Path,
    env: dict[str, str],
    fallback: CpuVariant,
    compiled: Compile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled(
        "broken",
        "#include <unistd.h>\n"
        + SCORES_HIGH
        + "void *ggml_backend_init(void) { for (;;) { pause(); } }",
    )
    monkeypatch.setattr(probe, "_TIMEOUT_S", 1.0)

    assert devices.choose_cpu_variant(lib_dir, env).name == fallback.name


def _patched(library: bytes, path: Path, symbol_pattern: str) -> tuple[bytes, int]:
    """Overwrite every matching function with a bare return: it then leaves its result unset."""
    segments = re.findall(
        r"LOAD\s+(0x\w+) (0x\w+) 0x\w+ (0x\w+)",
        subprocess.run(
            ["readelf", "-lW", str(path)], capture_output=True, text=True, check=True
        ).stdout,
    )
    symbols = subprocess.run(
        ["nm", "-D", str(path)], capture_output=True, text=True, check=True
    ).stdout
    data, n_patched = bytearray(library), 0
    for address, name in re.findall(r"^(\w+) T (\w+)$", symbols, re.MULTILINE):
        if not re.fullmatch(symbol_pattern, name):
            continue
        for offset, start, size in segments:
            if int(start, 16) <= int(address, 16) < int(start, 16) + int(size, 16):
                data[int(offset, 16) + int(address, 16) - int(start, 16)] = 0xC3  # x86: ret
                n_patched += 1
    return bytes(data), n_patched


@needs_libs
@pytest.mark.native
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="patches x86 code")
@pytest.mark.skipif(
    shutil.which("readelf") is None or shutil.which("nm") is None, reason="needs binutils"
)
def test_a_variant_that_computes_wrongly_is_passed_over(lib_dir: Path, env: dict[str, str]) -> None:
    scores = probe.score_variants(LIB, sorted(LIB.glob("libggml-cpu*.so")))
    if len(scores) < 2:
        pytest.skip("needs two variants")
    low, *_, high = sorted(scores, key=lambda file: scores[file])
    data, n_patched = _patched(
        (LIB / high).read_bytes(), LIB / high, r"ggml_vec_dot_q4_0_q8_0|ggml_vec_dot_q8_0_q8_0"
    )
    assert n_patched == 2, "the kernels moved: patch others"
    (lib_dir / high).write_bytes(data)
    shutil.copy2(LIB / low, lib_dir)

    chosen = devices.choose_cpu_variant(lib_dir, env)
    result = probe.check_variant(lib_dir, lib_dir / high)

    assert chosen.name == devices.variant_name(low)
    assert re.search(r"exit status 1: test .* (wrong|not finite)", result.detail)


@needs_libs
@pytest.mark.native
def test_with_nothing_that_works_the_error_says_what_was_tried(
    lib_dir: Path, env: dict[str, str], compiled: Compile
) -> None:
    compiled("broken", FAULTS["no backend"][0])

    with pytest.raises(NativeError, match=r"broken: exit status 1: .*cannot be loaded"):
        devices.choose_cpu_variant(lib_dir, env)


@needs_libs
@pytest.mark.native
def test_the_choice_is_remembered_until_the_library_changes(
    lib_dir: Path, env: dict[str, str], fallback: CpuVariant, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = devices.choose_cpu_variant(lib_dir, env)
    runs: list[list[str]] = []
    real = probe._run

    def counting(directory: Path, arguments: list[str]) -> tuple[int, str]:
        runs.append(list(arguments))
        return real(directory, arguments)

    monkeypatch.setattr(probe, "_run", counting)

    assert devices.choose_cpu_variant(lib_dir, env) == first
    assert runs == []

    fallback.path.write_bytes(fallback.path.read_bytes())
    assert devices.choose_cpu_variant(lib_dir, env) == first
    assert [arguments[0] for arguments in runs] == ["score", "test"]


@needs_libs
@pytest.mark.native
def test_every_installed_variant_of_this_cpu_computes_rightly() -> None:
    files = sorted(LIB.glob("libggml-cpu*.so"))
    scores = probe.score_variants(LIB, files)

    results = {file: probe.check_variant(LIB, LIB / file) for file in scores}

    assert scores
    assert {file: result for file, result in results.items() if not result.is_good} == {}


@needs_libs
@pytest.mark.native
def test_amx_is_really_tried_where_the_cpu_has_it() -> None:
    path = LIB / "libggml-cpu-sapphirerapids.so"
    if path.name not in probe.score_variants(LIB, [path]):
        pytest.skip("this CPU has no AMX")

    said = subprocess.run(
        [LIB / "olm-probe", "test", path], capture_output=True, text=True, check=True
    ).stdout

    assert "test AMX q8_0 33" in said
    assert "test AMX q4_0 33" in said


def test_choosing_imports_neither_numpy_nor_the_engine() -> None:
    code = "import sys; import olm.native.devices; print([m for m in ('numpy', 'cffi', 'trio', 'olm.native._olm', 'subprocess') if m in sys.modules])"
    src = str(Path(__file__).resolve().parents[2] / "src")

    said = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": src},
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert said.strip() == "[]"
