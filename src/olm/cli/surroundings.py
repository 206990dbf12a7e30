"""What `doctor` looks at besides the store's contents: server, settings, the store's folder, the key, the engine.

Each look is one `Check`. They read and ask; nothing is changed or made.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

from olm.cli.client import Client, ServerUnreachable
from olm.config import VARIABLES, Settings, read_settings
from olm.errors import OlmError
from olm.units import human_bytes

__all__ = ["Check", "look_around", "store_settings"]

_KEY_FILE: Final = "id_ed25519"
_LITTLE_BYTES: Final = 2_000_000_000
"""Free space below which a small model of today cannot be pulled."""
_OTHERS: Final = frozenset({"OLM_TLS_CA", "OLM_BUILD_CACHE", "OLM_CACHE"})
"""Variables that no server reads, and that are none of `olm.config`."""


class Check(NamedTuple):
    """One thing that was looked at. `note` is worth knowing, `wrong` keeps something from working."""

    name: str
    state: Literal["ok", "note", "wrong"]
    text: str


def look_around(client: Client, environ: Mapping[str, str] = os.environ) -> list[Check]:
    """Look at everything. With a server on another machine, only at what is this client's business."""
    checks = [_server(client), *_variables(environ)]
    if not client.is_local:
        return checks
    settings = store_settings(environ)
    return [*checks, _store(settings.models), _key(settings.home), _engine(environ)]


def store_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings as far as they say where olm's files are, which nothing wrong with the others may hide."""
    names = ("OLM_HOME", "OLM_MODELS", "OLLAMA_MODELS")
    return read_settings({name: environ[name] for name in names if name in environ})


def _server(client: Client) -> Check:
    try:
        version = client.server_version()
    except ServerUnreachable as exc:
        return Check("server", "note", f"at {client.where}: {exc}")
    except OlmError as exc:
        return Check("server", "wrong", f"at {client.where}: {exc}")
    return Check("server", "ok", f"version {version} at {client.where}")


def _variables(environ: Mapping[str, str]) -> Iterator[Check]:
    """Each variable alone, so that all that cannot be read are named and not the first only."""
    known = {f"OLM_{variable.name}" for variable in VARIABLES}
    wrong = []
    for variable in VARIABLES:
        names = (f"OLM_{variable.name}", f"OLLAMA_{variable.name}")
        alone = {name: environ[name] for name in names if name in environ}
        try:
            read_settings(alone)
        except OlmError as exc:
            wrong.append(Check("settings", "wrong", str(exc)))
    yield from wrong
    unknown = sorted(
        name for name in environ if name.startswith("OLM_") and name not in known | _OTHERS
    )
    if unknown:
        yield Check("settings", "note", f"olm does not know {', '.join(unknown)}")
    n_set = sum(name in environ for name in known)
    if not wrong:
        yield Check("settings", "ok", f"{n_set} of olm's variables are set")


def _store(root: Path) -> Check:
    """The folder, by what the user who asks may do there."""
    if not root.exists():
        parent = next(folder for folder in root.absolute().parents if folder.exists())
        if not os.access(parent, os.W_OK | os.X_OK):
            return Check("folder", "wrong", f"{root} is not there, and {parent} cannot be written")
        return Check("folder", "note", f"{root} is not there yet; a server makes it")
    if not root.is_dir():
        return Check("folder", "wrong", f"{root} is no folder")
    try:
        room = os.statvfs(root)
    except OSError as exc:
        return Check("folder", "wrong", f"{root}: {os.strerror(exc.errno or 0).lower()}")
    free_bytes = room.f_bavail * room.f_frsize
    facts = f"{root} on {_file_system(root)}, {human_bytes(free_bytes)} free"
    folders = [root / name for name in ("", "blobs", "manifests") if (root / name).is_dir()]
    closed = [folder for folder in folders if not os.access(folder, os.W_OK | os.X_OK)]
    if room.f_flag & os.ST_RDONLY or closed:
        which = closed[0] if closed else root
        return Check(
            "folder",
            "wrong",
            f"{facts}; {which} cannot be written, so nothing can be pulled or made",
        )
    if free_bytes < _LITTLE_BYTES:
        return Check("folder", "note", f"{facts}: little room for a model")
    return Check("folder", "ok", facts)


def _file_system(path: Path) -> str:
    """The type of the file system a path is on, by the longest mount point above it."""
    real = os.path.realpath(path)
    best, kind = "", "an unknown file system"
    try:
        mounts = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return kind
    for line in mounts:
        _, point, name, *_ = (*line.split(" "), "", "", "")
        point = point.replace("\\040", " ")
        is_above = real == point or real.startswith(point.rstrip("/") + "/")
        if is_above and len(point) >= len(best):
            best, kind = point, name
    return kind


def _key(home: Path) -> Check:
    path = home / _KEY_FILE
    if not path.exists():
        return Check("key", "ok", f"{path} is made when a registry asks for it")
    from olm.registry.auth import Identity

    try:
        Identity.load(home)
        mode = stat.S_IMODE(path.stat().st_mode)
    except (OlmError, OSError) as exc:
        return Check("key", "wrong", str(exc))
    if mode & 0o077:
        return Check("key", "note", f"others may read {path} (mode {mode:o}); 'chmod 600' it")
    return Check("key", "ok", str(path))


def _engine(environ: Mapping[str, str]) -> Check:
    from olm.native.devices import choose_cpu_variant, plugin_paths

    try:
        variant = choose_cpu_variant(env=environ)
    except OlmError as exc:
        return Check("engine", "wrong", str(exc))
    plugins = ", ".join(path.name for path in plugin_paths()) or "no GPU plug-in"
    return Check("engine", "ok", f"CPU variant {variant.name}, {plugins}")
