"""The tree of manifests, `<host>/<namespace>/<model>/<tag>`, with its folders' listings kept in memory.

A folder is listed again only when its times say that something in it came or went, so a name is looked up by asking
after the folders on its way, whatever its case and however many models there are; no file is opened here. Others may
change the folders at any time: Ollama does, and so may the user.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import attrs

from olm.errors import CorruptStore, InvalidName
from olm.store.disk import disk_errors
from olm.store.manifests import ManifestFile, ManifestStore
from olm.store.names import ModelName

__all__ = ["RACY_NS", "ManifestTree"]

RACY_NS: Final = 2_000_000_000
"""What changed so lately may change again without a new time. (exFAT counts in two seconds, ext4 in up to ten ms.)"""

_MODEL_DEPTH: Final = 3
_Stamp = tuple[int, int, int]


@attrs.frozen
class _Listing:
    """A folder as it was.

    Attributes:
        stamp: what `stat` said before it was listed; is_settled: a later change will change that.
        folders: names by their lower case, above the tags.
        tags: names of models by the file's, in the folder of a model.
        odd: what keeps us from knowing all of its models; empty for nothing.
    """

    stamp: _Stamp
    is_settled: bool
    folders: Mapping[str, Sequence[str]]
    tags: Mapping[str, ModelName]
    odd: str = ""


class ManifestTree:
    """The manifests of one store. Not thread safe."""

    def __init__(
        self, manifests: ManifestStore, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._manifests = manifests
        self._root = str(manifests.folder)
        self._clock_ns = clock_ns
        self._listings: dict[str, _Listing] = {}

    def walk(self, *, strict: bool = False) -> Iterator[ManifestFile]:
        """Every manifest, in no order. What is no name of a model is passed over, and links are.

        Args:
            strict: raise CorruptStore for links and for folders that cannot be read: there may be models behind them.

        Raises:
            StoreError: the disk failed.
        """
        with disk_errors("read the model store"):
            for path, listing in self._models():
                if strict and listing.odd:
                    raise CorruptStore(listing.odd)
                for tag, name in listing.tags.items():
                    file = ManifestFile.look(name, f"{path}/{tag}")
                    if file is not None:
                        yield file

    def names(self) -> list[ModelName]:
        """The names of all manifests, readable or not. Raises StoreError."""
        with disk_errors("read the model store"):
            return [name for _, listing in self._models() for name in listing.tags.values()]

    def find(self, name: ModelName) -> ManifestFile | None:
        """Look one manifest up, ignoring case; of several the one that is spelled most like `name`. Raises StoreError."""
        exact = self._manifests.find(name)
        if exact is not None:
            return exact
        wanted = name.parts
        with disk_errors("read the model store"):
            found = [file for path, n in self._same(name) if (file := ManifestFile.look(n, path))]
        return min(
            found,
            key=lambda file: (_distance(file.name.parts, wanted), str(file.name)),
            default=None,
        )

    def _same(self, name: ModelName) -> Iterator[tuple[str, ModelName]]:
        """Path and name of each manifest that is called so but for case."""
        *folders, tag = name.folded
        paths = [self._root]
        for depth, part in enumerate(folders):
            listings = [(path, self._listing(path, depth)) for path in paths]
            paths = [
                f"{path}/{child}"
                for path, listing in listings
                if listing is not None
                for child in listing.folders.get(part, ())
            ]
        for path in paths:
            listing = self._listing(path, _MODEL_DEPTH)
            for file, found in listing.tags.items() if listing is not None else ():
                if file.lower() == tag:
                    yield f"{path}/{file}", found

    def _models(self) -> Iterator[tuple[str, _Listing]]:
        """Path and listing of every folder there is; forgets those that are gone."""
        seen: dict[str, _Listing] = {}
        waiting = [(self._root, 0)]
        while waiting:
            path, depth = waiting.pop()
            listing = self._listing(path, depth)
            if listing is None:
                continue
            seen[path] = listing
            waiting += [
                (f"{path}/{f}", depth + 1) for same in listing.folders.values() for f in same
            ]
            yield path, listing
        self._listings = seen

    def _listing(self, path: str, depth: int) -> _Listing | None:
        """A folder's listing, from memory if the folder stands still; None when it is not there. Raises OSError."""
        try:
            # The root may be a link, as blobs may lie elsewhere; what is below it may not.
            status = os.stat(path) if depth == 0 else os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISDIR(status.st_mode):
            return None
        stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        kept = self._listings.get(path)
        if kept is not None and kept.is_settled and kept.stamp == stamp:
            return kept
        is_settled = self._clock_ns() - status.st_ctime_ns > RACY_NS
        found = self._listings[path] = self._read(path, depth, stamp, is_settled=is_settled)
        return found

    def _read(self, path: str, depth: int, stamp: _Stamp, *, is_settled: bool) -> _Listing:
        folders: dict[str, list[str]] = {}
        tags: dict[str, ModelName] = {}
        odd = ""
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        odd = f"{entry.path} is a link, which is not followed"
                    elif depth < _MODEL_DEPTH and entry.is_dir(follow_symlinks=False):
                        folders.setdefault(entry.name.lower(), []).append(entry.name)
                    elif depth == _MODEL_DEPTH and entry.is_file(follow_symlinks=False):
                        name = _name_of(path, entry.name)
                        if name is not None:
                            tags[entry.name] = name
        except FileNotFoundError:
            pass  # removed meanwhile
        except PermissionError:
            odd = f"the folder {path} cannot be read: permission denied"
        return _Listing(stamp, is_settled, folders, tags, odd)


def _name_of(folder: str, tag: str) -> ModelName | None:
    host, namespace, model = folder.rsplit("/", _MODEL_DEPTH)[1:]
    try:
        return ModelName(host, namespace, model, tag)
    except InvalidName:
        return None


def _distance(parts: Sequence[str], wanted: Sequence[str]) -> int:
    return sum(part != other for part, other in zip(parts, wanted, strict=True))
