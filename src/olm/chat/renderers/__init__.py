"""Named renderers (spec/ollama §10.3), one file a family. `RENDERERS` holds them all; how to write one: docs/chat.md."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from olm.chat.renderers.base import RENDERERS, Renderer, RenderInput

__all__ = ["RENDERERS", "RenderInput", "Renderer"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
