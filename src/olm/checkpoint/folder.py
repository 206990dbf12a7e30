"""Open a checkpoint: choose its weights, read their headers, and lend the files beside them.

Which files are the weights is `shards`' business, what is in them that of the formats' readers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, Self

from olm.checkpoint.files import Files, files_of_folder
from olm.checkpoint.jsons import parse_json
from olm.checkpoint.mapped import MappedFile, Residency
from olm.checkpoint.safetensors import read_safetensors
from olm.checkpoint.shards import check_index, choose_weights, read_index
from olm.checkpoint.torch_file import read_torch
from olm.checkpoint.types import Source
from olm.errors import CheckpointError

__all__ = ["OpenCheckpoint", "open_checkpoint", "open_files"]

_MAX_TEXT_BYTES: Final = 128 << 20  # the largest tokenizer.json of 2026 has 34 MiB
_CONFIG: Final = "config.json"
_POINTER: Final = b"version https://git-lfs"


def open_checkpoint(folder: Path) -> OpenCheckpoint:
    """Open a folder of weights, as `git clone` or the hub's cache leave it. Blocking.

    Raises:
        CheckpointError: names the file, and the tensor where there is one. Nothing stays open.
    """
    return OpenCheckpoint(files_of_folder(folder))


def open_files(paths: Mapping[str, Path], folder: Path = Path()) -> OpenCheckpoint:
    """Open files that lie anywhere under the names they would have in a folder, as blobs do. Blocking.

    Args:
        paths: relative name -> a regular file, not a link.
        folder: what messages call the folder.

    Raises:
        CheckpointError: as `open_checkpoint`.
    """
    return OpenCheckpoint(Files(folder, dict(sorted(paths.items()))))


class OpenCheckpoint:
    """A `Checkpoint`; a context manager that closes it. Its readers may be used by many threads at a time."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._mapped: list[MappedFile] = []
        self._parts: list[OpenCheckpoint] = []
        self._tensors: dict[str, Source] = {}
        self._config: Mapping[str, object] | None = None
        try:
            self._open_weights()
            self._config = self._read_config()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self._files.folder

    @property
    def names(self) -> Sequence[str]:
        """The relative names of all its files, sorted."""
        return list(self._files.paths)

    @property
    def config(self) -> Mapping[str, object]:
        """`config.json`; NaN and infinities are let pass. Raises CheckpointError when there is none."""
        if self._config is None:
            raise CheckpointError(f"{_CONFIG}: is missing")
        return self._config

    @property
    def tensors(self) -> Mapping[str, Source]:
        """All tensors by name, in the order of files and offsets."""
        return MappingProxyType(self._tensors)

    def read(self, name: str) -> bytes | None:
        """Read another file of the folder, of 128 MiB at most; None when it is not there.

        Raises:
            CheckpointError: it is too large, no regular file, or cannot be read.
        """
        return self._files.read(name, _MAX_TEXT_BYTES)

    def json(self, name: str) -> object | None:
        """Another JSON file of the folder; None when it is not there. Raises CheckpointError for one that is damaged."""
        data = self.read(name)
        return None if data is None else parse_json(data, name)

    def text(self, name: str) -> str | None:
        """A text file of the folder; None when it is not there. Raises CheckpointError for what is not UTF-8."""
        data = self.read(name)
        try:
            return None if data is None else data.decode("utf-8-sig")
        except UnicodeDecodeError as exc:
            raise CheckpointError(f"{name}: is not text in UTF-8") from exc

    def part(self, name: str) -> OpenCheckpoint:
        """Open a folder one level down as a checkpoint, like `2_Dense` of sentence-transformers; closed with this one.

        Raises:
            CheckpointError: as `open_checkpoint`, also when there is no such folder.
        """
        prefix = f"{name}/"
        paths = {
            path.removeprefix(prefix): where
            for path, where in self._files.paths.items()
            if path.startswith(prefix)
        }
        if not paths:
            raise CheckpointError(f"{name}: is missing")
        part = OpenCheckpoint(Files(self.folder / name, paths))
        self._parts.append(part)
        return part

    def close(self) -> None:
        """Let files and mappings go. Views that are still held stay valid."""
        for part in self._parts:
            part.close()
        for mapped in self._mapped:
            mapped.close()

    def _read_config(self) -> Mapping[str, object] | None:
        value = self.json(_CONFIG)
        if value is not None and not isinstance(value, dict):
            raise CheckpointError(f"{_CONFIG}: is not a JSON object")
        return value

    def _open_weights(self) -> None:
        choice = choose_weights(self._files.paths)
        files, weights = choice.files, {}
        if choice.index is not None:
            weights = dict(read_index(self.json(choice.index), choice.index, self._files.paths))
            files = sorted(set(weights.values()))
        read: Callable[[MappedFile], Sequence[Source]] = (
            read_safetensors if choice.is_safetensors else read_torch
        )
        residency = Residency()
        found: dict[str, str] = {}
        for name in files:
            mapped = MappedFile(self._files.open(name), self.folder / name, residency)
            self._mapped.append(mapped)
            if mapped.bytes_at(0, min(mapped.size_bytes, len(_POINTER))) == _POINTER:
                raise CheckpointError(
                    f"{name}: is a git-lfs pointer, not weights; run `git lfs pull`"
                )
            for tensor in read(mapped):
                if tensor.name in found:
                    raise CheckpointError(
                        f"{name}: tensor {tensor.name!r} is in {found[tensor.name]} too"
                    )
                found[tensor.name] = name
                self._tensors[tensor.name] = tensor
        if choice.index is not None:
            check_index(weights, choice.index, found)
        if not self._tensors:
            raise CheckpointError(f"{', '.join(files[:3])}: no tensors in it")
