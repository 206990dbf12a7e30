"""Chat templates, from each of the places where checkpoints keep them.

What is in them is `olm.chat`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final

from olm.convert.tokenizers.files import TokenizerFiles, table
from olm.errors import CheckpointError

__all__ = ["chat_templates"]

_DEFAULT: Final = "default"
_MORE: Final = "additional_chat_templates"  # a folder of files, `<name>.jinja`


def chat_templates(files: TokenizerFiles) -> tuple[str, Mapping[str, str]]:
    """The default template, "" for none, and the others by name.

    One in tokenizer_config.json comes before chat_template.jinja, and that before chat_template.json (Ollama's order).

    Raises:
        CheckpointError: a template is neither text nor a list of named texts.
    """
    found: dict[str, str] = {}
    for name in files.names:
        path = PurePosixPath(name)
        if path.parts[0] == _MORE and path.suffix == ".jinja":
            found[path.stem] = files.text(name) or ""
    found |= _of_value(files.json("chat_template.json"), "chat_template.json")
    jinja = files.text("chat_template.jinja")
    if jinja is not None:
        found[_DEFAULT] = jinja
    found |= _of_value(dict(files.settings.values), files.settings.where)
    return found.pop(_DEFAULT, ""), found


def _of_value(file: object, where: str) -> Mapping[str, str]:
    """The `chat_template` of a JSON file: a text, or a list of `{"name", "template"}`."""
    value = table(file, where).get("chat_template")
    where = f"{where}: chat_template"
    if value is None:
        return {}
    if isinstance(value, str):
        return {_DEFAULT: value}
    if isinstance(value, Mapping):
        value = [{"name": name, "template": text} for name, text in value.items()]
    if not isinstance(value, list):
        raise CheckpointError(f"{where}: wanted text or a list, found {type(value).__name__}")
    entries = [table(entry, where) for entry in value]
    return {entry.text("name"): entry.text("template") for entry in entries}
