"""The commands of `build_native.py`: build, sync, clean, peer, probe, info."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .build import build
from .common import BuildError, Places, cache_root
from .extension import extension_name
from .install import installed_info
from .peer import build_peer
from .plan import BACKENDS, options_from
from .progress import say
from .sync import sync
from .toolchain import default_jobs, find_toolchain
from .upstream import parse_pin
from .variants import cpu_flags, machine_arch, variants_for

__all__ = ["ROOT", "main", "with_command"]

ROOT = Path(__file__).resolve().parents[2]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="build_native.py", description="Build olm's native engine. docs/native.md explains."
    )
    commands = parser.add_subparsers(dest="command")
    every = {}
    for name, text in (
        ("build", "build what is missing and install it into src/olm/native (the default)"),
        (
            "peer",
            "build llama.cpp's own server, bench and quantize of the same tree, to measure against",
        ),
    ):
        command = every[name] = commands.add_parser(name, help=text)
        command.add_argument(
            "--all-variants", action="store_true", help="all CPU variants, not only this machine's"
        )
        command.add_argument("--jobs", "-j", type=_positive, help="compilers at once")
    every["build"].add_argument(
        "--backend",
        action="append",
        default=[],
        choices=list(BACKENDS),
        help="also build this GPU plug-in",
    )
    every["peer"].add_argument("--print-dir", action="store_true", help="print the directory only")
    commands.add_parser("sync", help="move the pin to another version").add_argument("version")
    clean = commands.add_parser("clean", help="remove what was installed into the source tree")
    clean.add_argument(
        "--cache",
        action="store_true",
        help="the shared cache as well: results, build directories, trees",
    )
    commands.add_parser("probe", help="run every CPU variant's self-test and print the choice")
    commands.add_parser("info", help="print what would be built, and what is installed")
    return parser


def _info(places: Places, env: Mapping[str, str]) -> None:
    pin, arch, flags = parse_pin(places.pin_file.read_text()), machine_arch(), cpu_flags()
    facts = {
        "pin": vars(pin),
        "cache": str(places.cache),
        "arch": arch,
        "native_variants": variants_for(arch, flags, all_variants=False),
        "all_variants": variants_for(arch, flags, all_variants=True),
        "tools": vars(find_toolchain(places, env)),
        "jobs": default_jobs(),
        "installed": installed_info(places),
    }
    print(json.dumps(facts, indent=1))


def _clean(places: Places, *, cache: bool) -> None:
    shutil.rmtree(places.lib, ignore_errors=True)
    (places.package / extension_name()).unlink(missing_ok=True)
    if cache:
        for part in ("build", "download", "logs", "store", "tools", "upstream"):
            shutil.rmtree(places.cache / part, ignore_errors=True)


def _probe(places: Places) -> None:
    sys.path.insert(0, str(places.root / "src"))
    try:
        import olm.native.devices as devices
    except ImportError as exc:
        raise BuildError(f"the probe needs olm's own dependencies in this Python: {exc}") from exc
    print(devices.describe(places.lib))


def _run(arguments: argparse.Namespace, places: Places, env: Mapping[str, str]) -> None:
    command = arguments.command or "build"
    if command in ("build", "peer"):
        options = options_from(
            env,
            all_variants=getattr(arguments, "all_variants", False),
            backends=getattr(arguments, "backend", []),
            jobs=getattr(arguments, "jobs", None),
        )
        if command == "peer":
            directory = build_peer(places, options, env)
            names = [directory] if arguments.print_dir else sorted(directory.glob("llama-*"))
            print(*names, sep="\n")
        else:
            build(places, options, env)
    elif command == "sync":
        sync(places, arguments.version, env)
    elif command == "clean":
        _clean(places, cache=arguments.cache)
    elif command == "probe":
        _probe(places)
    else:
        _info(places, env)


def with_command(argv: Sequence[str]) -> list[str]:
    """Put `build` in front where no command is named, so that its options work without it."""
    named = not argv or argv[0] in ("-h", "--help") or not argv[0].startswith("-")
    return [*argv] if named else ["build", *argv]


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit status."""
    arguments = _parser().parse_args(with_command(argv))
    start = time.monotonic()
    try:
        _run(arguments, Places(ROOT, cache_root(os.environ)), os.environ)
    except BuildError as exc:
        print(f"build_native: error: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if arguments.command in (None, "build", "peer"):
        say(f"done in {time.monotonic() - start:.1f} s")
    return 0
