"""The pinned llama.cpp tree: reading the pin, obtaining the tree through the user's own package index, checking it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .common import BuildError, Places, digest_of, fail, file_sha256, locked, replace_dir
from .progress import phase, say

__all__ = [
    "Pin",
    "Tree",
    "download_sdist",
    "obtain_tree",
    "parse_pin",
    "pip_commands",
    "read_versions",
    "unpack",
]

_MARK = "olm-complete.json"
# The directories of a local tree whose contents decide the build.
_LOCAL_PARTS = ("CMakeLists.txt", "cmake", "common", "ggml", "include", "src", "tools", "vendor")


@dataclass(frozen=True)
class Pin:
    """native/ggml/UPSTREAM.toml."""

    package: str
    version: str
    sha256: str
    subdir: str
    llama_version: str
    ggml_version: str


@dataclass(frozen=True)
class Tree:
    """A llama.cpp tree on disk; `identity` goes into cache keys, `label` is for people."""

    path: Path
    identity: str
    label: str


def parse_pin(text: str) -> Pin:
    """Read the pin's TOML.

    Raises:
        BuildError: a key is missing, unknown or malformed.
    """
    try:
        pin = Pin(**tomllib.loads(text))
    except (tomllib.TOMLDecodeError, TypeError) as exc:
        raise BuildError(f"UPSTREAM.toml: {exc}") from exc
    if not all(isinstance(value, str) and value for value in vars(pin).values()):
        fail("UPSTREAM.toml: every value must be a non-empty string")
    if not re.fullmatch(r"[0-9a-f]{64}", pin.sha256):
        fail(f"UPSTREAM.toml: sha256 must be 64 hexadecimal digits, not '{pin.sha256}'")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", pin.package) or not re.fullmatch(
        r"[A-Za-z0-9.!+]+", pin.version
    ):
        fail(f"UPSTREAM.toml: '{pin.package}' '{pin.version}' is no package and version")
    if PurePosixPath(pin.subdir).is_absolute() or ".." in PurePosixPath(pin.subdir).parts:
        fail(f"UPSTREAM.toml: subdir '{pin.subdir}' leaves the archive")
    return pin


def pip_commands(env: Mapping[str, str]) -> Iterator[tuple[Sequence[str], Mapping[str, str]]]:
    """Yield ways to run pip, with their environments, best first.

    The build front end's PYTHONPATH (which hides pip in isolated builds) is left out; configuration, proxies and
    certificates stay, so that the index is always the user's.
    """
    clean = {
        key: value
        for key, value in env.items()
        if key not in ("PYTHONPATH", "PYTHONNOUSERSITE", "PYTHONHOME")
    }
    yield [sys.executable, "-m", "pip"], clean
    for name in ("pip3", "pip"):
        if found := shutil.which(name, path=clean.get("PATH")):
            yield [found], clean
    if found := shutil.which("uv", path=clean.get("PATH")):
        yield [found, "run", "--no-project", "--with", "pip", "python", "-m", "pip"], clean


def _ran(command: Sequence[str], env: Mapping[str, str]) -> tuple[int, str]:
    try:
        done = subprocess.run(command, env=dict(env), capture_output=True, text=True, check=False)
    except OSError as exc:
        return 127, str(exc)
    return done.returncode, done.stdout + done.stderr


def download_sdist(
    package: str, version: str, sha256: str | None, into: Path, env: Mapping[str, str]
) -> Path:
    """Fetch a source distribution through pip and the user's configured index.

    With a hash pip checks it before any code of the package runs; it is checked here again.

    Raises:
        BuildError: no pip at hand, pip failed (its words are in the message), or the hash is another.
    """
    into.mkdir(parents=True, exist_ok=True)
    requirement = f"{package}=={version}" + (f" --hash=sha256:{sha256}" if sha256 else "")
    wanted = into / "wanted.txt"
    wanted.write_text(requirement + "\n")
    options = [
        "--no-deps",
        "--no-binary",
        package,
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar",
        "off",
    ]
    said = "no pip was found: install pip, or set OLM_LLAMA_CPP to a llama.cpp tree"
    for pip, pip_env in pip_commands(env):
        if _ran([*pip, "--version"], pip_env)[0]:
            continue
        status, said = _ran(
            [*pip, "download", *options, "-d", str(into), "-r", str(wanted)], pip_env
        )
        if status == 0:
            return _the_sdist(into, sha256)
        said = said.strip()[-3000:]
        break
    raise BuildError(
        f"cannot download {package}=={version}; set OLM_LLAMA_CPP to a local tree to do without.\n{said}"
    )


def _the_sdist(directory: Path, sha256: str | None) -> Path:
    found = list(directory.glob("*.tar.gz"))
    if len(found) != 1:
        fail(f"expected one .tar.gz from the package index, found {[p.name for p in found]}")
    if sha256 is not None and (actual := file_sha256(found[0])) != sha256:
        fail(f"{found[0].name}: sha256 is {actual}, pinned is {sha256}; refusing to use it")
    return found[0]


def unpack(archive: Path, subdir: str, into: Path) -> None:
    """Unpack `*/subdir` of an sdist as directory `into`, which must not exist; only plain members inside it are taken."""
    inside = PurePosixPath(subdir).parts
    depth = 1 + len(inside)
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts
            if parts[1:depth] != inside or len(parts) <= depth:
                continue
            member.name = str(PurePosixPath(*parts[depth:]))
            tar.extract(member, into, filter="data")
    if not into.is_dir():
        fail(f"{archive.name} has no {subdir}")


def read_versions(tree: Path) -> tuple[str, str]:
    """Read (llama.cpp version, ggml version) out of a tree's CMake files.

    Raises:
        BuildError: this is no llama.cpp tree, or its layout is unknown.
    """
    versions = []
    for path, prefix in (
        (tree / "CMakeLists.txt", "LLAMA"),
        (tree / "ggml" / "CMakeLists.txt", "GGML"),
    ):
        try:
            text = path.read_text()
        except OSError as exc:
            raise BuildError(f"{tree} is no llama.cpp tree: {exc}") from exc
        numbers = [
            re.search(rf"set\({prefix}_VERSION_{part}\s+(\d+)\)", text)
            for part in ("MAJOR", "MINOR", "PATCH")
        ]
        versions.append(".".join(n.group(1) for n in numbers if n) or "unknown")
    return versions[0], versions[1]


def _local_tree(path: Path) -> Tree:
    llama, ggml = read_versions(path)
    stamps: dict[str, object] = {"path": str(path.resolve())}
    for part in _LOCAL_PARTS:
        base = path / part
        for file in [base] if base.is_file() else sorted(p for p in base.rglob("*") if p.is_file()):
            stat = file.stat()
            stamps[str(file.relative_to(path))] = [stat.st_size, stat.st_mtime_ns]
    return Tree(
        path.resolve(),
        "local-" + digest_of(stamps),
        f"local tree {path} (llama {llama}, ggml {ggml})",
    )


def _is_complete(home: Path) -> bool:
    try:
        expected = json.loads((home / _MARK).read_text())["files"]
        return (
            isinstance(expected, int)
            and sum(len(files) for _, _, files in os.walk(home / "llama.cpp")) == expected
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def obtain_tree(places: Places, pin: Pin, env: Mapping[str, str]) -> Tree:
    """Return the tree to build: OLM_LLAMA_CPP if set, else the pinned one from the cache, fetched if it is not there.

    Raises:
        BuildError: no network, wrong hash, or a tree that is not what the pin says.
    """
    if env.get("OLM_LLAMA_CPP"):
        return _local_tree(Path(env["OLM_LLAMA_CPP"]).expanduser())
    home = places.cache / "upstream" / pin.sha256[:12]
    label = f"{pin.package} {pin.version} (llama {pin.llama_version}, ggml {pin.ggml_version})"
    tree = Tree(home / "llama.cpp", pin.sha256, label)
    with locked(
        places.lock(f"upstream-{pin.sha256[:12]}"),
        lambda: say("another build is fetching the tree; waiting"),
    ):
        if not _is_complete(home):
            _fetch(places, pin, home, env)
        found = read_versions(tree.path)
        if found != (pin.llama_version, pin.ggml_version):
            fail(
                f"the pinned tree says llama {found[0]}, ggml {found[1]}; UPSTREAM.toml says {pin.llama_version}, {pin.ggml_version}"
            )
    return tree


def _fetch(places: Places, pin: Pin, home: Path, env: Mapping[str, str]) -> None:
    kept = places.cache / "download" / f"{pin.sha256[:12]}.tar.gz"
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=home.parent) as temporary:
        work = Path(temporary)
        if not kept.is_file() or file_sha256(kept) != pin.sha256:
            with phase(f"downloading {pin.package} {pin.version} from the package index"):
                archive = download_sdist(
                    pin.package, pin.version, pin.sha256, work / "download", env
                )
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(archive, kept)
        with phase("unpacking llama.cpp"):
            fresh = work / "fresh"
            fresh.mkdir()
            unpack(kept, pin.subdir, fresh / "llama.cpp")
            n_files = sum(len(files) for _, _, files in os.walk(fresh / "llama.cpp"))
            (fresh / _MARK).write_text(json.dumps({"sha256": pin.sha256, "files": n_files}))
            fresh.chmod(0o755)
            replace_dir(fresh, home)
