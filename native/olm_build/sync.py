"""Moving the pin: fetch another version, say what changed, write UPSTREAM.toml."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .common import Places, fail, file_sha256
from .progress import say
from .upstream import Pin, download_sdist, obtain_tree, parse_pin, read_versions, unpack
from .variants import ALL, names_in_tree

__all__ = ["changed_headers", "pin_text", "sync"]

# What our engine is compiled against, so what a move can break.
_HEADERS = ("include/*.h", "ggml/include/*.h", "common/*.h", "tools/mtmd/*.h", "src/llama-ext.h")


def pin_text(old: str, pin: Pin) -> str:
    """Write a pin into the text of UPSTREAM.toml, keeping its comments."""
    for key, value in vars(pin).items():
        old, n = re.subn(rf'(?m)^{key}\s*=\s*".*"$', f'{key} = "{value}"', old)
        if n != 1:
            fail(f"UPSTREAM.toml has {n} lines for '{key}', wanted one")
    return old


def changed_headers(old: Path, new: Path) -> list[str]:
    """List the headers we depend on that came (+), went (-) or changed (~), by relative path."""
    trees = [
        {str(p.relative_to(tree)): file_sha256(p) for glob in _HEADERS for p in tree.glob(glob)}
        for tree in (old, new)
    ]
    before, after = trees
    lines = [f"+ {name}" for name in after.keys() - before.keys()] + [
        f"- {name}" for name in before.keys() - after.keys()
    ]
    lines += [f"~ {name}" for name in before.keys() & after.keys() if before[name] != after[name]]
    return sorted(lines, key=lambda line: line[2:])


def sync(places: Places, version: str, env: Mapping[str, str]) -> None:
    """Move the pin to `version` of the same package and print what to look at. Nothing is built.

    Raises:
        BuildError: the index has no such version, or its tree is not one we know how to build.
    """
    text = places.pin_file.read_text()
    old = parse_pin(text)
    places.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".sync-", dir=places.cache) as temporary:
        archive = download_sdist(old.package, version, None, Path(temporary) / "download", env)
        tree = Path(temporary) / "tree"
        unpack(archive, old.subdir, tree)
        llama, ggml = read_versions(tree)
        new = Pin(old.package, version, file_sha256(archive), old.subdir, llama, ggml)
        kept = places.cache / "download" / f"{new.sha256[:12]}.tar.gz"
        kept.parent.mkdir(parents=True, exist_ok=True)
        archive.replace(kept)
    env = {
        key: value for key, value in env.items() if key != "OLM_LLAMA_CPP"
    }  # pins only, no local tree
    before = obtain_tree(places, old, env)
    places.pin_file.write_text(pin_text(text, new))
    after = obtain_tree(places, new, env)
    say(
        f"{old.version} (llama {old.llama_version}, ggml {old.ggml_version}) -> {version} (llama {llama}, ggml {ggml})"
    )
    print(
        *changed_headers(before.path, after.path) or ["no header that we use has changed"], sep="\n"
    )
    known = {name for table in ALL.values() for _, name, _ in table}
    declared = names_in_tree((after.path / "ggml" / "src" / "CMakeLists.txt").read_text())
    if lost := sorted(name for name in known if name not in declared):
        say(f"these CPU variants are gone upstream; mend variants.py: {', '.join(lost)}")
