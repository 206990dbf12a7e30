"""The wheel: which files go in, and the tag that says where it runs."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from .build import build
from .common import BuildError, Places, cache_root
from .extension import ABI_VERSION, extension_name
from .plan import options_from

__all__ = ["hook_build", "wheel_tag"]


def wheel_tag(platform: str) -> str:
    """Make the tag of a wheel for a platform in sysconfig's words: the limited API, so one wheel for all later Pythons."""
    minor = ABI_VERSION >> 16 & 0xFF
    return f"cp3{minor}-abi3-{platform.replace('-', '_').replace('.', '_')}"


def hook_build(root: Path, env: Mapping[str, str], build_data: MutableMapping[str, object]) -> None:
    """Build, install into the source tree, and tell hatchling about it.

    OLM_WHEEL_PLATFORM names another platform tag, for wheels built in a manylinux image.

    Raises:
        SystemExit: the build failed; its message says why. A traceback of the build front end would only hide it.
    """
    try:
        build(Places(root, cache_root(env)), options_from(env), env)
    except BuildError as exc:
        sys.exit(f"build_native: error: {exc}")
    build_data["pure_python"] = False
    build_data["tag"] = wheel_tag(env.get("OLM_WHEEL_PLATFORM") or sysconfig.get_platform())
    # The libraries are git-ignored; artifacts are taken all the same.
    artifacts = build_data.setdefault("artifacts", [])
    assert isinstance(artifacts, list), "hatchling's build_data"
    artifacts += ["/src/olm/native/lib/", f"/src/olm/native/{extension_name()}"]
