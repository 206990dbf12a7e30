"""What FROM, ADAPTER and DRAFT name: files, the folder of a checkpoint, or a model. Decided where the files are (spec §5.4).

Nothing is uploaded here. A checkpoint is opened, so that what is wrong with its files is known before gigabytes travel; what
can be made of it is the server's to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

import attrs

from olm.errors import CheckpointError, InvalidRequest

__all__ = ["Sources", "check_regular", "find_sources", "named_files"]

_MAGIC: Final = b"GGUF"
_PATH_STARTS: Final = ("/", "./", "../", "~")
_WEIGHTS: Final = (".safetensors", ".bin", ".pth", ".pt")
# Weights that go before GGUF files in the same folder; a `.bin` of any other name goes after them (spec §5.4).
_FIRST: Final = ("*.safetensors", "pytorch_model*.bin", "*.pth")
_BESIDE: Final = (".json", ".jinja", ".model", ".tiktoken", ".txt", "README.md")
_MAX_BESIDE_BYTES: Final = 128 << 20
# Folders of sentence-transformers' modules, `2_Dense`; other folders hold the same weights for other engines.
_MODULE: Final = re.compile(r"\d+_\w+")


@attrs.frozen
class Sources:
    """What the values of FROM (or ADAPTER, or DRAFT) turned out to be.

    Attributes:
        files: all files to be sent.
        model: the model's name, if one was given.
        weights: those of `files` that are weights of a checkpoint, which can also be read where they are.
        folders: where the checkpoints are.
    """

    files: tuple[Path, ...] = ()
    model: str = ""
    weights: frozenset[Path] = frozenset()
    folders: tuple[Path, ...] = ()


def find_sources(values: Sequence[str], folder: Path) -> Sources:
    """Tell paths from model names.

    Args:
        values: as written in the Modelfile; `~`, absolute, or relative to `folder`, where the Modelfile is.

    Raises:
        InvalidRequest: a path that does not exist, a folder without weights, two model names.
        CheckpointError: a checkpoint with something wrong in its files; names file and tensor.
    """
    files: list[Path] = []
    weights: set[Path] = set()
    folders: list[Path] = []
    model = ""
    for value in values:
        path = folder / Path(value).expanduser()
        if path.exists():
            found = _in_folder(path) if path.is_dir() else _beside(path)
            files += found.files
            weights |= found.weights
            folders += found.folders
        elif value.startswith(_PATH_STARTS) or value.lower().endswith((".gguf", ".safetensors")):
            raise InvalidRequest(f"no such file: {path}")
        elif model:
            raise InvalidRequest(f"two base models, {model} and {value}; only one can be FROM")
        else:
            model = value
    return Sources(
        tuple(dict.fromkeys(files)), model, frozenset(weights), tuple(dict.fromkeys(folders))
    )


def named_files(paths: Sequence[Path], *, with_folder: bool = False) -> list[tuple[str, Path]]:
    """Files with their names relative to the folder they share; `with_folder`: that folder's own name before them."""
    if not paths:
        return []
    parents = [path.parent.parts for path in paths]
    shared = 0
    for parts in zip(*parents, strict=False):
        if len(set(parts)) > 1:
            break
        shared += 1
    if with_folder and shared > 1:
        shared -= 1
    return [(PurePosixPath(*path.parts[shared:]).as_posix(), path) for path in paths]


def _in_folder(folder: Path) -> Sources:
    is_first = any(next(folder.glob(pattern), None) for pattern in _FIRST)
    ggufs = [] if is_first else sorted(folder.glob("*.gguf"))
    if ggufs:
        root = folder.resolve()
        for path in ggufs:
            if not path.resolve().is_relative_to(root):
                raise InvalidRequest(f"insecure path: {path}")
            _check_gguf(path)
        return Sources(tuple(ggufs))
    if is_first or next(folder.glob("*.bin"), None):
        return _checkpoint(folder)
    raise InvalidRequest("no Modelfile or safetensors files found")


def _beside(path: Path) -> Sources:
    """A single file: a GGUF, or weights, to which belongs what lies beside them."""
    if path.suffix.lower() in _WEIGHTS and not _is_gguf(path):
        return _checkpoint(path.parent, only=path.name)
    _check_gguf(path)
    return Sources((path,))


def check_regular(path: Path) -> None:
    """Refuse what is no file of a disk: a pipe in a folder would be waited for without end. Raises InvalidRequest."""
    if path.exists() and not path.is_file():
        raise InvalidRequest(f"cannot read {path}: it is not a regular file")


def _is_gguf(path: Path) -> bool:
    check_regular(path)
    with _reading(path), path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _check_gguf(path: Path) -> None:
    """Refuse here, before gigabytes travel, what the server would refuse after."""
    if not _is_gguf(path):
        raise InvalidRequest(f"supplied file was not in GGUF format: {path}")


def _checkpoint(folder: Path, only: str = "") -> Sources:
    """The files of a checkpoint that a conversion needs; they are opened, and so checked. `only`: the one file of weights."""
    from olm.checkpoint.files import files_of_folder
    from olm.checkpoint.folder import open_files

    listed = files_of_folder(folder).paths
    weights = [only] if only else _weights(listed)
    names = [*weights, *(name for name, path in listed.items() if _is_beside(name, path))]
    for name in names:
        path = listed.get(name)
        if path is None or path.is_symlink():
            raise InvalidRequest(_insecure(folder / name))
    try:
        with open_files({name: listed[name] for name in names}, folder):
            pass
    except CheckpointError as exc:
        raise CheckpointError(f"{folder}: {exc.message}") from exc
    return Sources(
        tuple(folder / name for name in names),
        weights=frozenset(folder / n for n in weights),
        folders=(folder,),
    )


def _weights(listed: Mapping[str, Path]) -> list[str]:
    """The weights in a folder that count: those an index names, or one set, and those of sentence-transformers' modules."""
    found = _chosen(listed, "")
    modules = {name.partition("/")[0] for name in listed if "/" in name}
    for module in sorted(filter(_MODULE.fullmatch, modules)):
        inside = {
            name.removeprefix(f"{module}/"): path
            for name, path in listed.items()
            if name.startswith(f"{module}/")
        }
        if any(name.lower().endswith(_WEIGHTS) for name in inside):
            found += _chosen(inside, f"{module}/")
    return found


def _chosen(listed: Mapping[str, Path], prefix: str) -> list[str]:
    from olm.checkpoint.jsons import parse_json
    from olm.checkpoint.shards import choose_weights, read_index

    choice = choose_weights(listed)
    files = list(choice.files)
    if choice.index is not None:
        with _reading(listed[choice.index]):
            value = parse_json(listed[choice.index].read_bytes(), choice.index)
        files = sorted(set(read_index(value, choice.index, listed).values()))
    return [prefix + name for name in files]


def _is_beside(name: str, path: Path) -> bool:
    """Whether a file may be of use to a conversion: settings, tokenizers, templates. The converter knows which are."""
    is_nested = "/" in name
    if not (name.endswith(".json") or (not is_nested and name.endswith(_BESIDE))):
        return False
    check_regular(path)
    with _reading(path):
        return path.is_symlink() or path.stat().st_size <= _MAX_BESIDE_BYTES


def _insecure(path: Path) -> str:
    hint = ""
    if "snapshots" in path.parts and any(part.startswith("models--") for part in path.parts):
        hint = "; download it with --local-dir to have plain files"
    return f"insecure path: {path}{hint}"


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise InvalidRequest(f"cannot read {path}: {exc.strerror}") from exc
