"""Installing a build into the source tree: `lib/` swapped as a whole, the extension by rename, plug-ins kept."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from . import extension
from .common import Places, digest_of, locked, replace_dir
from .plan import BACKENDS, Build, compile_flags, has_engine
from .progress import say

__all__ = ["install", "installed_info"]


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


def _waiting() -> None:
    say("another build installs into this checkout; waiting for it")


def install(build: Build, libs: Path, ours: Path, plugins: Mapping[str, Path]) -> bool:
    """Put everything into src/olm/native: `lib/` is swapped as a whole, the extension by rename.

    Returns:
        False if the very same build was installed already and is intact.
    """
    places = build.places
    with locked(places.lock("install-" + digest_of({"lib": str(places.lib)})), _waiting):
        kept = _kept_plugins(build)
        sources = {
            "libs": libs.name,
            "ours": ours.name,
            "plugins": sorted({*plugins, *kept}),
            "tree": build.tree.identity,
        }
        files = [
            path
            for directory in (libs, ours, *plugins.values())
            for path in directory.iterdir()
            if path.name not in ("entry.json", "licenses")
        ]
        have = installed_info(places)
        is_same = {key: have.get(key) for key in sources} == sources
        if is_same and all(_is_copy(path, _target(places, path)) for path in files):
            return False
        fresh = places.lib.with_name(f".lib.new-{os.getpid()}")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        try:
            _fill(fresh, [*files, *_plugin_files(places, kept)], libs / "licenses")
            (fresh / "build.json").write_text(json.dumps(_facts(build, sources), indent=1) + "\n")
            replace_dir(fresh, places.lib)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        _put_extension(ours, places.package)
    return True


def _fill(fresh: Path, files: Iterable[Path], licences: Path) -> None:
    for path in files:
        if path.name != extension.extension_name():
            shutil.copy2(path, fresh / path.name)
    shutil.copytree(licences, fresh / "licenses")


def _facts(build: Build, sources: Mapping[str, object]) -> dict[str, object]:
    return {
        **sources,
        "pin": vars(build.pin),
        "variants": list(build.variants),
        "compiler": build.tools.compiler_id,
        "flags": compile_flags(build.env),
        "extension": has_engine(build.places.native),
        "built_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def _put_extension(ours: Path, package: Path) -> None:
    target = package / extension.extension_name()
    if not (ours / target.name).is_file():
        target.unlink(missing_ok=True)
        return
    temporary = target.with_name(f".{target.name}.new-{os.getpid()}")
    shutil.copy2(ours / target.name, temporary)
    temporary.replace(target)


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
