"""The files of a checkpoint by their relative names: out of a folder, or out of a list of names and paths.

Nothing but regular files is opened, and nothing outside the folder. What the files hold is read elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

import attrs

from olm.checkpoint.mapped import open_regular
from olm.errors import CheckpointError

__all__ = ["Files", "files_of_folder"]

_MAX_FILES: Final = 10_000
_MAX_DEPTH: Final = 2  # `1_Pooling/config.json`; deeper lie caches and other formats


@attrs.frozen
class Files:
    """What there is to read.

    Attributes:
        folder: where it is, or is said to be.
        paths: where the file of each relative name is, `1_Pooling/config.json`. The paths are trusted: see the makers.
    """

    folder: Path
    paths: Mapping[str, Path]

    def open(self, name: str) -> int:
        """Open one. Raises CheckpointError when it is missing, cannot be read, or is not a regular file."""
        path = self.paths.get(name)
        if path is None:
            raise CheckpointError(f"{name}: is missing")
        if path.is_symlink():  # one that was followed is not in the list: see `_list`
            raise _insecure(name, path)
        return open_regular(path, name)

    def read(self, name: str, limit_bytes: int) -> bytes | None:
        """Read a whole file; None when it is not there.

        Raises:
            CheckpointError: it is larger than `limit_bytes`, or cannot be read.
        """
        if name not in self.paths:
            return None
        with open(self.open(name), "rb") as file:
            if os.fstat(file.fileno()).st_size > limit_bytes:
                raise CheckpointError(f"{name}: is larger than {limit_bytes >> 20} MiB")
            try:
                return file.read(limit_bytes)
            except OSError as exc:
                raise CheckpointError(f"{name}: cannot be read: {exc.strerror}") from exc


def files_of_folder(folder: Path) -> Files:
    """List a folder's files, and those one level down. Hidden ones are left out.

    A symbolic link counts if it ends inside the folder, or, in a snapshot of the Hugging Face cache, where the
    cache keeps that model's files (`models--x/snapshots/<revision>/f` -> `models--x/blobs/<hash>`). Another link to a
    file is an error once the file is wanted.

    Raises:
        CheckpointError: no folder, a link to a folder elsewhere, or too many files.
    """
    try:
        real = folder.resolve(strict=True)
        paths: dict[str, Path] = {}
        _list(real, "", _boundary(real), paths)
    except OSError as exc:
        raise CheckpointError(f"{folder}: cannot be listed: {exc.strerror}") from exc
    return Files(folder, dict(sorted(paths.items())))


def _boundary(folder: Path) -> Path:
    model = folder.parent.parent
    is_snapshot = folder.parent.name == "snapshots" and model.name.startswith("models--")
    return model if is_snapshot else folder


def _list(folder: Path, prefix: str, boundary: Path, paths: dict[str, Path]) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = str(PurePosixPath(prefix, entry.name))
            if entry.name.startswith(".") or not name.isprintable():
                continue
            path = Path(entry.path)
            if entry.is_symlink():
                path = _followed(path, boundary)
                if path.is_symlink() and path.is_dir():
                    raise _insecure(name, path)
            if path.is_dir():
                if len(PurePosixPath(name).parts) < _MAX_DEPTH:
                    _list(path, name, boundary, paths)
            else:  # FIFOs and devices too, refused when they are wanted
                paths[name] = path
            if len(paths) > _MAX_FILES:
                raise CheckpointError(f"{boundary.name}: has more than {_MAX_FILES} files")


def _followed(link: Path, boundary: Path) -> Path:
    """Where a link ends; the link itself if that is outside or nowhere."""
    try:
        path = link.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a loop, up to Python 3.12
        return link
    return path if path.is_relative_to(boundary) else link


def _insecure(name: str, link: Path) -> CheckpointError:
    if not link.exists():
        return CheckpointError(f"{name}: is a symbolic link to nothing")
    return CheckpointError(
        f"{name}: insecure path: a symbolic link that leads out of the folder; copy the files together"
    )
