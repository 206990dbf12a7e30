"""The shape of the code base, held by tests: layers point down, heavy imports stay where they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src"
MODULES = sorted(SRC.glob("olm/**/*.py"))

# Lower numbers must not import higher ones. The longest matching prefix counts.
LAYERS = {
    "olm": 0,
    "olm.errors": 0,
    "olm.units": 0,
    "olm.config": 0,
    "olm.log": 0,
    "olm.systemd": 0,
    "olm.data": 0,
    "olm.actors.runtime": 1,
    "olm.chat": 1,
    "olm.template": 1,
    "olm.modelfile": 1,
    "olm.gguf": 2,
    "olm.native": 2,
    "olm.registry": 2,
    "olm.convert": 2,
    "olm.store": 2,
    "olm.actors": 3,
    "olm.api": 4,
    "olm.actors.server": 5,  # the tree ends in the HTTP server, so these two know both sides
    "olm.actors.tree": 5,
    "olm.embed": 6,
    "olm.cli": 7,
    "olm.__main__": 8,
}
NATIVE_ONLY = {
    "olm.native.lib",
    "olm.native.handles",
    "olm.native.engine",
    "olm.native.chat",
    "olm.native.worker",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module: str) -> int:
    while module not in LAYERS:
        module = module.rpartition(".")[0]
    return LAYERS[module]


def imports_of(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_down(path: Path) -> None:
    """A module imports nothing of a higher layer, not even inside a function (entry points of the CLI aside)."""
    mine = module_name(path)
    upward = {
        name
        for name in imports_of(path)
        if name.startswith("olm.") and _is_module(name) and layer_of(name) > layer_of(mine)
    }

    assert upward == set()


def _is_module(name: str) -> bool:
    return (SRC / Path(*name.split("."))).with_suffix(".py").exists() or (
        SRC / Path(*name.split("."))
    ).is_dir()


@pytest.mark.parametrize("path", sorted(SRC.glob("olm/actors/runtime/**/*.py")), ids=module_name)
def test_runtime_is_a_library_of_its_own(path: Path) -> None:
    """The actor runtime imports nothing of olm but itself and the errors."""
    foreign = {
        name
        for name in imports_of(path)
        if name.startswith("olm.") and not name.startswith(("olm.actors.runtime", "olm.errors"))
    }

    assert foreign == set()


def test_only_lib_imports_the_extension() -> None:
    """The cffi extension has one importer, where its errors are mapped."""
    importers = {
        module_name(p)
        for p in MODULES
        if any(n.startswith("olm.native._olm") for n in imports_of(p))
    }

    assert importers <= {"olm.native.lib"}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_every_module_says_what_it_is_and_what_it_exports(path: Path) -> None:
    """A module opens with a docstring and, if it defines anything, names its public face in `__all__`."""
    tree = ast.parse(path.read_text())
    defines = any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        for node in tree.body
    )
    names = {
        t.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for t in node.targets
        if isinstance(t, ast.Name)
    }

    assert ast.get_docstring(tree), "no module docstring"
    assert "__all__" in names or not defines


def loaded_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )


@pytest.mark.slow
def test_daemon_never_loads_the_engine_or_numpy() -> None:
    """The daemon's process holds no C engine: a crash in C ends one worker only, and idle memory stays small."""
    loaded = loaded_after("import olm.actors.tree, olm.embed, olm.api.app")

    assert loaded & (NATIVE_ONLY | {"numpy", "prometheus_client", "olm.native._olm"}) == set()


@pytest.mark.slow
def test_command_line_stays_light() -> None:
    """`olm --version` and the client commands import no trio, no web framework, no numpy."""
    loaded = loaded_after("import olm.cli.main, olm.cli.client")

    assert (
        loaded & {"trio", "quart", "quart_trio", "hypercorn", "numpy", "msgspec", "asyncio"}
        == set()
    )
