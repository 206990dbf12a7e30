"""The pin, cache keys, options, jobs, tags: the pure parts of the plan."""

import dataclasses
from pathlib import Path

import pytest
from olm_build import cli, common, plan, sync, toolchain, upstream, wheel

ROOT = Path(__file__).resolve().parents[2]
PIN_TEXT = (ROOT / "native" / "ggml" / "UPSTREAM.toml").read_text()
SHA = "ab" * 32


def tiny_pin(**changes: str) -> str:
    values = {
        "package": "p",
        "version": "1.0",
        "sha256": SHA,
        "subdir": "vendor/x",
        "llama_version": "0.1.0",
        "ggml_version": "0.2.0",
    }
    return "".join(f'{key} = "{value}"\n' for key, value in {**values, **changes}.items())


def test_the_pin_of_this_checkout_parses() -> None:
    pin = upstream.parse_pin(PIN_TEXT)

    assert pin.package == "llama-cpp-python"
    assert len(pin.sha256) == 64


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("package = 1\n", "missing"),
        ("not toml at all [", "UPSTREAM.toml"),
        (tiny_pin(sha256="abc"), "64 hexadecimal"),
        (tiny_pin(sha256=SHA.upper()), "64 hexadecimal"),
        (tiny_pin(subdir="../../etc"), "leaves the archive"),
        (tiny_pin(subdir="/etc"), "leaves the archive"),
        (tiny_pin(version="1.0 --pre"), "no package and version"),
        (tiny_pin(package="p @ file"), "no package and version"),
        (tiny_pin(version=""), "non-empty"),
        (tiny_pin() + 'extra = "x"\n', "extra"),
    ],
)
def test_a_bad_pin_is_refused_with_its_reason(text: str, complaint: str) -> None:
    with pytest.raises(common.BuildError, match=complaint):
        upstream.parse_pin(text)


def test_moving_the_pin_keeps_the_comments() -> None:
    new = dataclasses.replace(upstream.parse_pin(PIN_TEXT), version="9.9.9", sha256=SHA)

    text = sync.pin_text(PIN_TEXT, new)

    assert upstream.parse_pin(text) == new
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        line for line in PIN_TEXT.splitlines() if line.startswith("#")
    ]


def test_changed_headers_are_listed_by_path(tmp_path: Path) -> None:
    for tree, files in (
        ("old", {"a.h": "1", "b.h": "1", "c.h": "1"}),
        ("new", {"a.h": "1", "b.h": "2", "d.h": "1"}),
    ):
        (tmp_path / tree / "include").mkdir(parents=True)
        for name, text in files.items():
            (tmp_path / tree / "include" / name).write_text(text)

    assert sync.changed_headers(tmp_path / "old", tmp_path / "new") == [
        "~ include/b.h",
        "- include/c.h",
        "+ include/d.h",
    ]


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"OLM_BUILD_CACHE": "/c", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/c"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/olm"),
        ({"HOME": "/h"}, "/h/.cache/olm"),
    ],
)
def test_the_cache_is_where_the_environment_says(env: dict[str, str], expected: str) -> None:
    assert common.cache_root(env) == Path(expected)


def test_keys_do_not_depend_on_order() -> None:
    assert common.digest_of({"a": 1, "b": [2]}) == common.digest_of({"b": [2], "a": 1})
    assert common.digest_of({"a": 1}) != common.digest_of({"a": 2})


@pytest.fixture
def checkout(tmp_path: Path) -> plan.Build:
    """A checkout in miniature, planned but not built."""
    for name in (
        "ggml/CMakeLists.txt",
        "ggml/amx_tileconfig.h",
        "ggml/engine/CMakeLists.txt",
        "engine/a.cpp",
        "engine/olm_engine.h",
        "probe/p.cpp",
        "decl/core.h",
        "olm_build/extension.py",
    ):
        path = tmp_path / "native" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return plan.Build(
        places=common.Places(tmp_path, tmp_path / "cache"),
        pin=upstream.parse_pin(PIN_TEXT),
        tree=upstream.Tree(tmp_path / "tree", "tree-1", "a tree"),
        tools=toolchain.Toolchain("cmake", "ninja", "cc", "c++", None, None, "cc 12"),
        variants=("x64", "haswell"),
        options=plan.Options(),
        env={},
    )


def keys(planned: plan.Build) -> tuple[str, str]:
    libs = plan.libs_key(planned)
    return libs, plan.ours_key(planned, libs)


@pytest.mark.parametrize(
    "name", ["engine/a.cpp", "engine/olm_engine.h", "probe/p.cpp", "decl/core.h"]
)
def test_a_change_in_our_sources_leaves_the_libraries_alone(
    checkout: plan.Build, name: str
) -> None:
    libs, ours = keys(checkout)

    (checkout.places.native / name).write_text("changed")

    assert keys(checkout)[0] == libs
    assert keys(checkout)[1] != ours


def test_a_new_source_file_changes_our_key(checkout: plan.Build) -> None:
    libs, ours = keys(checkout)

    (checkout.places.native / "engine" / "b.cpp").write_text("b")

    assert keys(checkout)[0] == libs
    assert keys(checkout)[1] != ours


@pytest.mark.parametrize(
    "changes",
    [
        {"tree": upstream.Tree(Path("/t"), "tree-2", "another")},
        {"variants": ("x64",)},
        {"tools": toolchain.Toolchain("cmake", "ninja", "cc", "c++", None, None, "cc 13")},
        {"env": {"CXXFLAGS": "-g"}},
    ],
)
def test_what_changes_the_libraries_changes_both_keys(
    checkout: plan.Build, changes: dict[str, object]
) -> None:
    libs, ours = keys(checkout)

    after = keys(dataclasses.replace(checkout, **changes))

    assert after[0] != libs
    assert after[1] != ours


def test_the_amx_repair_is_part_of_the_key(checkout: plan.Build) -> None:
    libs, _ = keys(checkout)

    (checkout.places.native / "ggml" / "amx_tileconfig.h").write_text("// other")

    assert keys(checkout)[0] != libs


def test_paths_jobs_and_tools_places_are_not_part_of_the_key(checkout: plan.Build) -> None:
    tools = toolchain.Toolchain(
        "/o/cmake", "/o/ninja", "/o/cc", "/o/c++", "/o/ccache", "/o/strip", "cc 12"
    )
    other = dataclasses.replace(
        checkout,
        tools=tools,
        options=plan.Options(jobs=7),
        tree=upstream.Tree(Path("/elsewhere"), "tree-1", "same tree"),
        env={"HOME": "/x"},
    )

    assert keys(other) == keys(checkout)


@pytest.mark.parametrize(
    ("n_cpus", "available", "expected"),
    [(2, None, 2), (8, 64 << 30, 8), (16, 4 << 30, 2), (4, 100 << 20, 1), (0, None, 1)],
)
def test_jobs_are_bounded_by_memory(n_cpus: int, available: int | None, expected: int) -> None:
    assert toolchain.jobs_for(n_cpus, available) == expected


def test_environment_and_command_line_are_joined() -> None:
    env = {
        "OLM_NATIVE_VARIANTS": "all",
        "OLM_NATIVE_BACKENDS": "vulkan, cuda",
        "OLM_BUILD_JOBS": "3",
    }

    assert plan.options_from(env) == plan.Options(True, ("vulkan", "cuda"), 3)
    assert plan.options_from(env, backends=["cuda"], jobs=5) == plan.Options(
        True, ("cuda", "vulkan"), 5
    )
    assert plan.options_from({}) == plan.Options(False, (), None)


@pytest.mark.parametrize(
    "env", [{"OLM_NATIVE_VARIANTS": "some"}, {"OLM_BUILD_JOBS": "0"}, {"OLM_BUILD_JOBS": "x"}]
)
def test_bad_environment_is_refused(env: dict[str, str]) -> None:
    with pytest.raises(common.BuildError, match=next(iter(env))):
        plan.options_from(env)


@pytest.mark.parametrize(
    ("platform", "tag"),
    [
        ("linux-x86_64", "cp311-abi3-linux_x86_64"),
        ("manylinux_2_28_x86_64", "cp311-abi3-manylinux_2_28_x86_64"),
        ("macosx-11.0-arm64", "cp311-abi3-macosx_11_0_arm64"),
    ],
)
def test_the_wheel_is_tagged_for_its_platform_and_every_later_python(
    platform: str, tag: str
) -> None:
    assert wheel.wheel_tag(platform) == tag


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], []),
        (["--jobs", "1"], ["build", "--jobs", "1"]),
        (["peer", "--print-dir"], ["peer", "--print-dir"]),
        (["--help"], ["--help"]),
    ],
)
def test_options_without_a_command_are_those_of_build(argv: list[str], expected: list[str]) -> None:
    assert cli.with_command(argv) == expected


@pytest.mark.parametrize("argv", [["--jobs", "0"], ["--backend", "abacus"], ["sync"], ["dance"]])
def test_a_wrong_command_line_is_refused_before_anything_happens(argv: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(argv)
