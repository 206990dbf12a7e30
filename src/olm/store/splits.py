"""Split GGUF models: which files belong together, what the whole is, and how the engine finds its parts in the store.

llama.cpp looks for the parts beside the first one, by name: `<prefix>-00001-of-00003.gguf`. Blobs have no such names, so a
model whose parts stay apart gets a folder of links with them, `olm-splits/<hex of the first>/`. It can be deleted; it is made
again when it is needed. Merging is `olm.gguf.merge`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import attrs
import msgspec

from olm.errors import InvalidRequest
from olm.gguf import ModelFacts
from olm.store.disk import disk_errors
from olm.store.names import Digest
from olm.units import human_number

__all__ = [
    "FOLDER",
    "Source",
    "SplitSet",
    "group_splits",
    "sweep_views",
    "view",
    "view_paths",
    "whole_facts",
]

FOLDER: Final = "olm-splits"
_NAME: Final = re.compile(r"(.*)-\d{5}-of-\d{5}\.gguf", re.DOTALL | re.IGNORECASE)
_MAX_PARTS: Final = 1024


@attrs.frozen
class Source:
    """A GGUF file that a model is made of, in the store by now.

    Attributes:
        name: as the request calls it.
        size: bytes.
        is_linked: the user wants it to stay where it is.
    """

    name: str
    digest: Digest
    size: int
    facts: ModelFacts
    is_linked: bool = False


@attrs.frozen
class SplitSet:
    """The parts of one split GGUF, all of them and in order."""

    parts: tuple[Source, ...]

    @property
    def facts(self) -> ModelFacts:
        """Of the whole."""
        return whole_facts([part.facts for part in self.parts])

    @property
    def stays_split(self) -> bool:
        """Whether the parts are kept apart: a model whose files are run in place cannot be merged without a copy."""
        return self.facts.kind == "model" and all(part.is_linked for part in self.parts)


def group_splits(files: Sequence[Source]) -> list[Source | SplitSet]:
    """Find the sets of split files, in the place of their first part; other files stay as they are.

    Raises:
        InvalidRequest: `invalid split GGUF: …` for a set with missing or double parts.
    """
    sets: dict[tuple[str, int], list[Source]] = {}
    slots: list[Source | tuple[str, int]] = []
    for file in files:
        if file.facts.n_splits <= 1:
            slots.append(file)
            continue
        match = _NAME.fullmatch(file.name)
        key = (match[1] if match else "", file.facts.n_splits)
        if key not in sets:
            slots.append(key)
        sets.setdefault(key, []).append(file)
    return [slot if isinstance(slot, Source) else _checked(sets[slot]) for slot in slots]


def _checked(files: Sequence[Source]) -> SplitSet:
    parts = {file.facts.split_no: file for file in files}
    name, count = files[0].name, files[0].facts.n_splits
    if count > _MAX_PARTS:
        raise InvalidRequest(f"invalid split GGUF: {name}: {count} parts, more than {_MAX_PARTS}")
    if len(parts) < len(files):
        raise InvalidRequest(f"invalid split GGUF: {name}: a part of it is there twice")
    missing = [str(no + 1) for no in range(count) if no not in parts]
    if missing or len(parts) != count:
        what = ", ".join(missing[:8]) + (", …" if len(missing) > 8 else "")
        raise InvalidRequest(f"invalid split GGUF: {name}: of {count} parts, missing: {what}")
    return SplitSet(tuple(parts[no] for no in range(count)))


def whole_facts(parts: Sequence[ModelFacts]) -> ModelFacts:
    """The facts of a split model: its keys are in the first part, its tensors in all."""
    n_parameters = sum(part.parameter_count for part in parts)
    return msgspec.structs.replace(
        parts[0], parameter_count=n_parameters, parameter_size=human_number(n_parameters)
    )


def view(blobs: Path, parts: Sequence[Digest]) -> Path:
    """Make the folder in which the engine finds the parts, unless it is there; returns the path of the first.

    Args:
        blobs: the store's folder of blobs.

    Raises:
        DiskFull, StoreError.
    """
    folder = blobs.parent / FOLDER / parts[0].hex
    with disk_errors("write to the model store"):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        for no, digest in enumerate(parts, 1):
            link = folder / _part_name(no, len(parts))
            target = f"../../{blobs.name}/{digest.file_name}"
            if not (link.is_symlink() and os.readlink(link) == target):
                link.unlink(missing_ok=True)
                link.symlink_to(target)
    return folder / _part_name(1, len(parts))


def view_paths(weights: Path, n_parts: int) -> list[Path]:
    """All files of a model, given the path that `view` returned; of a model that is not split that one alone."""
    if n_parts <= 1:
        return [weights]
    return [weights.with_name(_part_name(no, n_parts)) for no in range(1, n_parts + 1)]


def _part_name(no: int, n_parts: int) -> str:
    return f"model-{no:05d}-of-{n_parts:05d}.gguf"


def sweep_views(blobs: Path) -> None:
    """Remove the folders of models that are gone. Raises StoreError."""
    root = blobs.parent / FOLDER
    with disk_errors("tidy the model store"):
        folders: Iterable[Path] = list(root.iterdir()) if root.is_dir() else ()
        for folder in folders:
            if not os.path.lexists(blobs / f"sha256-{folder.name}"):
                shutil.rmtree(folder, ignore_errors=True)
