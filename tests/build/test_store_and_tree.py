"""The cache's promises: wrong hashes refused, damage rebuilt, two builds at once, nothing half done."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from olm_build import common, extension, install, plan, toolchain, upstream, variants

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def places(tmp_path: Path) -> common.Places:
    return common.Places(tmp_path / "checkout", tmp_path / "cache")


def make_file(into: Path) -> None:
    (into / "lib.so").write_text("good")


def test_an_entry_is_made_once(places: common.Places) -> None:
    first, was_there = common.stored_entry(places, "libs-1", make_file)
    second, was_there_again = common.stored_entry(places, "libs-1", make_file)

    assert (was_there, was_there_again) == (False, True)
    assert first == second
    assert (first / "lib.so").read_text() == "good"


@pytest.mark.parametrize("damage", ["changed", "missing", "listing"])
def test_a_damaged_entry_is_made_again(places: common.Places, damage: str) -> None:
    path, _ = common.stored_entry(places, "libs-1", make_file)
    if damage == "changed":
        (path / "lib.so").write_text("evil")
    elif damage == "missing":
        (path / "lib.so").unlink()
    else:
        (path / "entry.json").write_text("{")

    again, was_there = common.stored_entry(places, "libs-1", make_file)

    assert not was_there
    assert (again / "lib.so").read_text() == "good"


def test_old_results_go_and_recent_ones_stay(tmp_path: Path) -> None:
    now = time.time()
    for number, age_s in enumerate([*range(10), 9000, 9001]):
        path = tmp_path / f"ours-{number}"
        path.mkdir()
        os.utime(path, (now - age_s, now - age_s))
    (tmp_path / "libs-1").mkdir()
    os.utime(tmp_path / "libs-1", (0, 0))

    common.prune(tmp_path, "ours")

    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "libs-1",
        *(f"ours-{n}" for n in range(10)),
    ]


def test_a_failed_build_leaves_nothing_under_the_name(places: common.Places) -> None:
    def fail(into: Path) -> None:
        make_file(into)
        raise common.BuildError("compiler says no")

    with pytest.raises(common.BuildError, match="compiler says no"):
        common.stored_entry(places, "libs-1", fail)

    assert list((places.cache / "store").iterdir()) == []


def test_a_replaced_directory_keeps_open_files_alive(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lib.so").write_text(name)

    with (tmp_path / "old" / "lib.so").open() as held:
        common.replace_dir(tmp_path / "new", tmp_path / "old")

        assert held.read() == "old"
    assert (tmp_path / "old" / "lib.so").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["old"]


def test_the_second_of_two_builds_waits_and_finds_the_result(places: common.Places) -> None:
    started, release, waited = threading.Event(), threading.Event(), threading.Event()
    made: list[str] = []

    def slow(into: Path) -> None:
        made.append("slow")
        started.set()
        assert release.wait(10)
        make_file(into)

    def run() -> None:
        with common.locked(places.lock("libs-1")):
            common.stored_entry(places, "libs-1", slow)

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(10)

    def on_wait() -> None:
        waited.set()
        release.set()

    with common.locked(places.lock("libs-1"), on_wait):
        _, was_there = common.stored_entry(places, "libs-1", make_file)
    thread.join()

    assert waited.is_set()
    assert was_there
    assert made == ["slow"]


@pytest.mark.slow
def test_a_lock_dies_with_its_process(places: common.Places) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'native')!r})\nfrom olm_build import common\nfrom pathlib import Path\nwith common.locked(Path({str(places.lock('x'))!r})):\n    print('held', flush=True)\n    sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        child.kill()

        with common.locked(places.lock("x")):
            pass


def add(tar: tarfile.TarFile, name: str, data: bytes = b"x", **attributes: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in attributes.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(data))


def cmake(prefix: str, version: str) -> bytes:
    parts = zip(("MAJOR", "MINOR", "PATCH"), version.split("."), strict=True)
    return "".join(f"set({prefix}_VERSION_{part} {number})\n" for part, number in parts).encode()


def make_sdist(path: Path, llama: str = "0.5.0") -> str:
    with tarfile.open(path, "w:gz") as tar:
        add(tar, "p-1/setup.py", b"raise SystemExit('never run')")
        add(tar, "p-1/vendor/llama.cpp/CMakeLists.txt", cmake("LLAMA", llama))
        add(tar, "p-1/vendor/llama.cpp/ggml/CMakeLists.txt", cmake("GGML", "0.25.3"))
        add(tar, "p-1/vendor/llama.cpp.evil/x")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pin_for(sha256: str) -> upstream.Pin:
    return upstream.Pin("p", "1", sha256, "vendor/llama.cpp", "0.5.0", "0.25.3")


@pytest.fixture
def kept(places: common.Places) -> upstream.Pin:
    """A pin whose archive lies in the cache already."""
    archive = places.cache / "download" / "new.tar.gz"
    archive.parent.mkdir(parents=True)
    pin = pin_for(make_sdist(archive))
    archive.rename(archive.with_name(f"{pin.sha256[:12]}.tar.gz"))
    return pin


def no_download(*_: object) -> Path:
    raise common.BuildError("tried the network")


def test_a_tree_is_unpacked_from_the_kept_archive(
    places: common.Places, kept: upstream.Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "download_sdist", no_download)

    tree = upstream.obtain_tree(places, kept, {})

    assert sorted(p.name for p in tree.path.rglob("*")) == [
        "CMakeLists.txt",
        "CMakeLists.txt",
        "ggml",
    ]
    assert tree.identity == kept.sha256


def test_a_partial_tree_is_unpacked_again(
    places: common.Places, kept: upstream.Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "download_sdist", no_download)
    tree = upstream.obtain_tree(places, kept, {})
    (tree.path / "ggml" / "CMakeLists.txt").unlink()

    again = upstream.obtain_tree(places, kept, {})

    assert (again.path / "ggml" / "CMakeLists.txt").is_file()


def test_a_kept_archive_with_another_hash_is_not_used(
    places: common.Places, kept: upstream.Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = places.cache / "download" / f"{kept.sha256[:12]}.tar.gz"
    archive.write_bytes(archive.read_bytes() + b"!")
    monkeypatch.setattr(upstream, "download_sdist", no_download)

    with pytest.raises(common.BuildError, match="tried the network"):
        upstream.obtain_tree(places, kept, {})


def test_a_tree_of_another_version_than_pinned_is_refused(places: common.Places) -> None:
    archive = places.cache / "download" / "new.tar.gz"
    archive.parent.mkdir(parents=True)
    pin = pin_for(make_sdist(archive, llama="0.6.0"))
    archive.rename(archive.with_name(f"{pin.sha256[:12]}.tar.gz"))

    with pytest.raises(common.BuildError, match=r"says llama 0\.6\.0"):
        upstream.obtain_tree(places, pin, {})


def fake_pip(tmp_path: Path, body: str) -> Mapping[str, str]:
    """A pip that is a shell script: the seam to the package index."""
    program = tmp_path / "bin" / "pip3"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit 0\n{body}\n')
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:/usr/bin:/bin"}


@pytest.fixture
def only_pip_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream.sys, "executable", "/nonexistent/python-without-pip")


@pytest.mark.usefixtures("only_pip_on_path")
def test_a_download_with_another_hash_is_refused(tmp_path: Path) -> None:
    sdist = tmp_path / "p-1.tar.gz"
    actual = make_sdist(sdist)
    env = fake_pip(tmp_path, f'while [ "$1" != -d ]; do shift; done; cp {sdist} "$2"')

    with pytest.raises(common.BuildError, match=actual):
        upstream.download_sdist("p", "1", "00" * 32, tmp_path / "into", env)

    assert upstream.download_sdist("p", "1", actual, tmp_path / "into2", env).name == "p-1.tar.gz"


@pytest.mark.usefixtures("only_pip_on_path")
def test_pip_gets_the_hash_and_its_words_reach_the_user(tmp_path: Path) -> None:
    env = fake_pip(
        tmp_path,
        'while [ "$1" != -r ]; do shift; done; cat "$2"; echo no route to index >&2; exit 1',
    )

    with pytest.raises(common.BuildError, match="no route to index") as caught:
        upstream.download_sdist("p", "1", "ab" * 32, tmp_path / "into", env)

    assert f"p==1 --hash=sha256:{'ab' * 32}" in str(caught.value)
    assert "OLM_LLAMA_CPP" in str(caught.value)


def test_pip_never_sees_the_front_ends_path() -> None:
    for _, env in upstream.pip_commands(
        {"PATH": "/bin", "PYTHONPATH": "/isolated", "PIP_INDEX_URL": "u"}
    ):
        assert "PYTHONPATH" not in env
        assert env["PIP_INDEX_URL"] == "u"


def test_members_outside_the_subdirectory_stay_packed(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        add(tar, "p-1/vendor/x/good")
        add(tar, "p-1/vendor/x/../../../../evil")

    with pytest.raises(tarfile.FilterError):
        upstream.unpack(archive, "vendor/x", tmp_path / "out")

    assert not (tmp_path.parent / "evil").exists()


def test_a_local_tree_counts_by_its_files(tmp_path: Path, places: common.Places) -> None:
    tree = tmp_path / "tree"
    (tree / "ggml").mkdir(parents=True)
    (tree / "CMakeLists.txt").write_bytes(cmake("LLAMA", "1.2.3"))
    (tree / "ggml" / "CMakeLists.txt").write_bytes(cmake("GGML", "4.5.6"))
    env = {"OLM_LLAMA_CPP": str(tree)}

    first = upstream.obtain_tree(places, pin_for("ab" * 32), env)
    same = upstream.obtain_tree(places, pin_for("ab" * 32), env)
    (tree / "ggml" / "new.c").write_text("int x;")
    changed = upstream.obtain_tree(places, pin_for("ab" * 32), env)

    assert first == same
    assert first.identity != changed.identity
    assert "1.2.3" in first.label


def test_a_local_tree_that_is_none_is_refused(tmp_path: Path, places: common.Places) -> None:
    with pytest.raises(common.BuildError, match=r"no llama\.cpp tree"):
        upstream.obtain_tree(places, pin_for("ab" * 32), {"OLM_LLAMA_CPP": str(tmp_path)})


def test_declarations_follow_the_order_file(tmp_path: Path) -> None:
    for name in ("a.h", "b.h"):
        (tmp_path / name).write_text(f"/* {name} */")

    assert extension.read_declarations(tmp_path) == "/* a.h */\n/* b.h */"

    (tmp_path / "ORDER").write_text("# types first\nb.h\na.h # then the rest\n")

    assert extension.read_declarations(tmp_path) == "/* b.h */\n/* a.h */"

    (tmp_path / "ORDER").write_text("b.h\n")
    with pytest.raises(common.BuildError, match="ORDER"):
        extension.read_declarations(tmp_path)


def planned(places: common.Places, identity: str = "tree-1") -> plan.Build:
    return plan.Build(
        places=places,
        pin=pin_for("ab" * 32),
        tree=upstream.Tree(places.cache / "tree", identity, "a tree"),
        tools=toolchain.Toolchain("cmake", "ninja", "cc", "c++", None, None, "cc 12"),
        variants=("x64",),
        options=plan.Options(),
        env={},
    )


def entry(places: common.Places, name: str, files: Mapping[str, str]) -> Path:
    def make(into: Path) -> None:
        for file, text in files.items():
            (into / file).parent.mkdir(exist_ok=True)
            (into / file).write_text(text)

    return common.stored_entry(places, name, make)[0]


def test_installing_puts_libraries_licences_and_facts_in_place(places: common.Places) -> None:
    libs = entry(places, "libs-1", {"libggml.so": "ggml", "licenses/LICENSE.x": "MIT"})
    ours = entry(places, "ours-1", {"olm-probe": "probe", "_olm.abi3.so": "ext"})

    first = install.install(planned(places), libs, ours, {})
    second = install.install(planned(places), libs, ours, {})

    assert (first, second) == (True, False)
    assert sorted(p.name for p in places.lib.iterdir()) == [
        "build.json",
        "libggml.so",
        "licenses",
        "olm-probe",
    ]
    assert (places.package / "_olm.abi3.so").read_text() == "ext"
    assert json.loads((places.lib / "build.json").read_text())["variants"] == ["x64"]


def test_a_tampered_installation_is_put_right(places: common.Places) -> None:
    libs = entry(places, "libs-1", {"libggml.so": "ggml", "licenses/LICENSE.x": "MIT"})
    ours = entry(places, "ours-1", {"olm-probe": "probe"})
    install.install(planned(places), libs, ours, {})
    (places.lib / "libggml.so").write_text("else")

    assert install.install(planned(places), libs, ours, {})
    assert (places.lib / "libggml.so").read_text() == "ggml"


def test_plugins_survive_a_rebuild_of_the_same_tree_only(places: common.Places) -> None:
    libs = entry(places, "libs-1", {"libggml.so": "ggml", "licenses/LICENSE.x": "MIT"})
    ours = [entry(places, f"ours-{n}", {"olm-probe": f"probe {n}"}) for n in range(3)]
    cuda = entry(places, "cuda-1", {"libggml-cuda.so": "cuda"})
    install.install(planned(places), libs, ours[0], {"cuda": cuda})

    install.install(planned(places), libs, ours[1], {})

    assert (places.lib / "libggml-cuda.so").read_text() == "cuda"
    assert install.installed_info(places)["plugins"] == ["cuda"]

    install.install(planned(places, "tree-2"), libs, ours[2], {})

    assert not (places.lib / "libggml-cuda.so").exists()
    assert install.installed_info(places)["plugins"] == []


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_package_index_has_what_is_pinned(places: common.Places) -> None:
    pin = upstream.parse_pin((ROOT / "native" / "ggml" / "UPSTREAM.toml").read_text())

    tree = upstream.obtain_tree(places, pin, os.environ)

    assert (tree.path / "include" / "llama.h").is_file()
    declared = variants.names_in_tree((tree.path / "ggml" / "src" / "CMakeLists.txt").read_text())
    assert {name for table in variants.ALL.values() for _, name, _ in table} <= declared


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_real_pip_refuses_another_hash(tmp_path: Path) -> None:
    with pytest.raises(common.BuildError, match=r"(?i)hash"):
        upstream.download_sdist("cffi", "1.17.1", "00" * 32, tmp_path, os.environ)


INSTALLED = install.installed_info(common.Places(ROOT, ROOT))


@pytest.mark.native
@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="run build_native.py first")
@pytest.mark.timeout(600)
def test_two_builds_at_once_agree(tmp_path: Path) -> None:
    """The real script twice on one checkout without an engine; only the probe is left to compile."""
    checkout, cache, shared = (
        tmp_path / "checkout",
        tmp_path / "cache",
        common.cache_root(os.environ),
    )
    libs = f"store/{INSTALLED['libs']}"
    if not (shared / libs).is_dir() or not (shared / "upstream").is_dir():
        pytest.skip("the cache has been emptied since the last build")
    shutil.copytree(ROOT / "native", checkout / "native")
    for path in (checkout / "native" / "engine").glob("*.cpp"):
        path.unlink()
    shutil.copy2(ROOT / "build_native.py", checkout)
    shutil.copytree(shared / libs, cache / libs)
    (cache / "upstream").symlink_to(shared / "upstream")
    command = [sys.executable, str(checkout / "build_native.py")]
    env = {**os.environ, "OLM_BUILD_CACHE": str(cache)}

    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as one,
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as two,
    ):
        said = one.communicate()[1] + two.communicate()[1]

    assert (one.returncode, two.returncode) == (0, 0), said
    if "llama.cpp libraries: built" in said:
        pytest.skip("native/ggml or the compiler changed since the last build")
    assert said.count("compiling the engine:") == 1, said
    assert said.count("installed into") == 1, said
    installed = checkout / "src" / "olm" / "native"
    assert (installed / "lib" / "libllama.so").is_file()
    assert not list(installed.glob(".*"))
