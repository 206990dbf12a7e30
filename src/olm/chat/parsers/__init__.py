"""Named parsers (spec/ollama §10.1), one file a family. `PARSERS` holds them all; how to write one: docs/chat.md."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from olm.chat.parsers.base import PARSERS, CallSyntax, ParseInput, Parser, ParserFamily

__all__ = ["PARSERS", "CallSyntax", "ParseInput", "Parser", "ParserFamily"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
