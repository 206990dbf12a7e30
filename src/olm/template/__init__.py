"""Go's text/template language in Python, whole, for models whose prompt is a Go template.

`parse` a text once and `execute` the `Template` on values as often as needed; `values` says which Python values stand for
which Go values, `ollama` holds the functions that Ollama adds, `nodes` the syntax tree. A template may be hostile: it is
bounded in size, depth, steps, time and output, and never reaches a Python attribute. Behaviour is that of Go 1.26.

What Ollama does with templates (chats, tags, the built-in ones) is not part of the language.
"""

from olm.template.running import Limits
from olm.template.template import Template, parse
from olm.template.values import INVALID, Function, FunctionError, GoList, GoMap, GoStruct, GoType

__all__ = [
    "INVALID",
    "Function",
    "FunctionError",
    "GoList",
    "GoMap",
    "GoStruct",
    "GoType",
    "Limits",
    "Template",
    "parse",
]
