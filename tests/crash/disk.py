"""A file system in memory, rebuilt from a journal, that knows what is on the disk for sure and what is only in its caches.

What POSIX promises and no more: bytes are safe when the file was synced after they were written, names when their folder
was. `after_power_cut` makes one of the trees that a power cut may leave. Permissions and times are not modelled.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

import attrs

from crash.journal import Kind, Record

__all__ = ["Disk", "Tree", "read_tree", "write_tree"]

Tree = dict[str, bytes | str | None]
"""Relative path to content; None for a folder, text for where a symlink leads."""
_PAGE: Final = 4096


def read_tree(root: Path) -> Tree:
    """Read a folder whole."""
    tree: Tree = {}
    for folder, folders, files in os.walk(root):
        for name in folders:
            tree[os.path.relpath(os.path.join(folder, name), root)] = None
        for name in files:
            path = os.path.join(folder, name)
            tree[os.path.relpath(path, root)] = _content(path)
    return tree


def _content(path: str) -> bytes | str:
    return os.readlink(path) if os.path.islink(path) else Path(path).read_bytes()


def write_tree(root: Path, tree: Tree) -> None:
    """Write a folder whole."""
    root.mkdir(parents=True)
    for path, data in tree.items():
        target = root / path
        if data is None:
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(data, str):
                target.symlink_to(data)
            else:
                target.write_bytes(data)


@attrs.define
class _Change:
    """Bytes written, or a new size when `data` is None.

    Doomed bytes were there when a sync failed: later syncs pass over them, until somebody writes the same place again.
    """

    at: int
    data: memoryview | None
    is_doomed: bool = False

    def without(self, start: int, end: float) -> Iterator[_Change]:
        """What is left of doomed bytes when this place is known again."""
        assert self.data is not None, "sizes are never doomed"
        stop = self.at + len(self.data)
        if self.at < start:
            yield _Change(self.at, self.data[: start - self.at], True)
        if end < stop:
            first = max(int(end), self.at)
            yield _Change(first, self.data[first - self.at :], True)


@attrs.define(eq=False)
class _File:
    now: bytearray
    safe: bytearray
    pending: list[_Change] = attrs.field(factory=list)

    def change(self, change: _Change) -> None:
        _apply(self.now, change)
        self.pending.append(change)

    def sync(self, *, is_ok: bool) -> None:
        if not is_ok:
            for change in self.pending:
                change.is_doomed = change.data is not None
            return
        doomed: list[_Change] = []
        for change in self.pending:
            if change.is_doomed:
                doomed.append(change)
                continue
            _apply(self.safe, change)
            end = math.inf if change.data is None else change.at + len(change.data)
            doomed = [rest for item in doomed for rest in item.without(change.at, end)]
        self.pending = doomed

    def after_cut(self, dice: random.Random) -> bytes:
        """What may be found: nothing, all or some pages of what was not synced; sizes without the bytes, too."""
        content = bytearray(self.safe)
        match dice.choice(("lost", "kept", "pages", "zeros")):
            case "kept":
                for change in self.pending:
                    _apply(content, change)
            case "pages":
                for change in self.pending:
                    for page in _pages(change):
                        if dice.random() < 0.5:
                            _apply(content, page)
            case "zeros":
                content += bytes(max(0, len(self.now) - len(content)))
        return bytes(content)


def _apply(content: bytearray, change: _Change) -> None:
    size = len(content)
    if change.data is None:
        if change.at < size:
            del content[change.at :]
        else:
            content += bytes(change.at - size)
        return
    if change.at > size:
        content += bytes(change.at - size)
    content[change.at : change.at + len(change.data)] = change.data


def _pages(change: _Change) -> Iterator[_Change]:
    if change.data is None:
        yield change
        return
    at, data = change.at, change.data
    while data:
        n = _PAGE - at % _PAGE
        yield _Change(at, data[:n])
        at, data = at + n, data[n:]


@attrs.define(eq=False)
class _Symlink:
    """Where it leads is safe with its name."""

    target: str


@attrs.define(eq=False)
class _Folder:
    entries: dict[str, _Item] = attrs.field(factory=dict)


_Item = _File | _Folder | _Symlink


def _item(content: bytes | str) -> _Item:
    if isinstance(content, str):
        return _Symlink(content)
    return _File(bytearray(content), bytearray(content))


@attrs.define
class _Naming:
    """A change of names, whole or not at all: (folder, name, what it stands for then)."""

    entries: list[tuple[_Folder, str, _Item | None]]
    is_safe: bool = False


class Disk:
    """One tree: what programs see (`tree`), and what is left of it without power (`after_power_cut`)."""

    def __init__(self, root: Path) -> None:
        """Take a folder as it is, all of it safe."""
        self._root = str(root)
        self._top = _Folder()
        self._by_inode: dict[int, _Item] = {os.stat(root).st_ino: self._top}
        self._namings: list[_Naming] = []
        self._n_ordered = 0
        self._first: dict[_Folder, dict[str, _Item]] = {}
        for folder, folders, files in os.walk(root):
            entries = self._folder(folder).entries
            for name in folders + files:
                path = os.path.join(folder, name)
                entries[name] = _Folder() if name in folders else _item(_content(path))
                self._by_inode[os.lstat(path).st_ino] = entries[name]
        self._remember(self._top)

    def _remember(self, folder: _Folder) -> None:
        self._first[folder] = dict(folder.entries)
        for item in folder.entries.values():
            if isinstance(item, _Folder):
                self._remember(item)

    def _folder(self, path: str) -> _Folder:
        folder = self._top
        for part in Path(os.path.relpath(path, self._root)).parts:
            item = folder.entries[part]
            assert isinstance(item, _Folder), path
            folder = item
        return folder

    def _place(self, path: str) -> tuple[_Folder, str]:
        path = os.path.normpath(path)
        return self._folder(os.path.dirname(path)), os.path.basename(path)

    # -- what happens ------------------------------------------------------------------------------------------------

    def apply(self, record: Record) -> None:
        """Take a change over."""
        match record.kind:
            case Kind.CREATE:
                self._add(record, _File(bytearray(), bytearray()))
            case Kind.MAKE_DIR:
                folder = _Folder()
                self._first[folder] = {}
                self._add(record, folder)
            case Kind.WRITE:
                self._file(record).change(_Change(record.offset, record.data))
            case Kind.TRUNCATE:
                self._file(record).change(_Change(record.offset, None))
            case Kind.SYNC:
                self._sync(record)
            case Kind.UNLINK | Kind.REMOVE_DIR:
                folder, name = self._place(record.first)
                self._name([(folder, name, None)])
            case Kind.RENAME:
                old, new = self._place(record.first), self._place(record.second)
                self._name([(*new, old[0].entries[old[1]]), (*old, None)])
            case Kind.LINK:
                old = self._place(record.first)
                self._name([(*self._place(record.second), old[0].entries[old[1]])])
            case Kind.SYMLINK:
                self._name([(*self._place(record.first), _Symlink(record.second))])
            case Kind.NOTE | Kind.FAULT:
                pass

    def _add(self, record: Record, item: _Item) -> None:
        self._by_inode[record.inode] = item
        self._name([(*self._place(record.first), item)])

    def _file(self, record: Record) -> _File:
        item = self._by_inode[record.inode]
        assert isinstance(item, _File), record
        return item

    def _name(self, entries: list[tuple[_Folder, str, _Item | None]]) -> None:
        _set(entries)
        self._namings.append(_Naming(entries))

    def _sync(self, record: Record) -> None:
        item = self._by_inode[record.inode]
        if isinstance(item, _File):
            item.sync(is_ok=not record.error)
        elif not record.error:
            for naming in self._namings:
                if any(folder is item for folder, _, _ in naming.entries):
                    naming.is_safe = True
        if not record.error:
            self._n_ordered = len(self._namings)

    # -- what is left ------------------------------------------------------------------------------------------------

    def tree(self) -> Tree:
        """What programs see."""
        return _tree(self._top, {}, lambda file: bytes(file.now))

    def after_power_cut(
        self, dice: random.Random, names: Literal["ordered", "any"] | None = None
    ) -> Tree:
        """What may be left when the power goes now.

        Args:
            names: `ordered`: names change in order, and every sync makes all until then safe, as file systems with a
                journal do it; `any`: a change is safe when its folder was synced, else it is there or not by itself.
        """
        names = names or dice.choice(("ordered", "any"))
        kept_frac = dice.choice((0.0, 0.5, 1.0))
        n_kept = self._n_ordered + int(kept_frac * (len(self._namings) - self._n_ordered))
        left = {folder: dict(entries) for folder, entries in self._first.items()}
        for number, naming in enumerate(self._namings):
            if names == "ordered":
                is_kept = number < n_kept
            else:
                is_kept = naming.is_safe or dice.random() < kept_frac
            if is_kept:
                for folder, name, item in naming.entries:
                    if item is None:
                        left[folder].pop(name, None)
                    else:
                        left[folder][name] = item
        return _tree(self._top, left, lambda file: file.after_cut(dice))


def _set(entries: list[tuple[_Folder, str, _Item | None]]) -> None:
    for folder, name, item in entries:
        if item is None:
            del folder.entries[name]
        else:
            folder.entries[name] = item


def _tree(
    top: _Folder,
    left: dict[_Folder, dict[str, _Item]],
    content: Callable[[_File], bytes],
) -> Tree:
    tree: Tree = {}
    waiting = [("", top)]
    while waiting:
        prefix, folder = waiting.pop()
        for name, item in left.get(folder, folder.entries).items():
            path = f"{prefix}{name}"
            if isinstance(item, _Folder):
                tree[path] = None
                waiting.append((f"{path}/", item))
            else:
                tree[path] = item.target if isinstance(item, _Symlink) else content(item)
    return tree
