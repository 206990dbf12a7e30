"""The help texts of the session, one for each topic. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from olm.cli.repl.commands import Topic

__all__ = ["HELP"]

HELP: Final[Mapping[Topic, str]] = {
    "general": '''\
Available Commands:
  /set            Change this session
  /show           Show what is known about the model
  /load <model>   Talk with another model
  /save <model>   Save this session as a model
  /list           List models
  /clear          Forget the conversation
  /bye            Leave
  /?, /help       This help; also /? set, /? show
  /? shortcuts    Keys

Use """ to begin and to end a message of several lines.
''',
    "set": """\
Available Commands:
  /set parameter ...     Set a parameter of the model
  /set system <text>     Set the system message
  /set history           Keep what is typed in the history file
  /set nohistory         Don't
  /set wordwrap          Wrap lines at words
  /set nowordwrap        Don't
  /set format json       Answers in JSON
  /set noformat          Answers in free text
  /set verbose           Show timings after each answer
  /set quiet             Don't
  /set think [level]     Let the model reason first: high, medium, low, max
  /set nothink           Don't
""",
    "show": """\
Available Commands:
  /show info         Architecture, size, parameters
  /show license      License
  /show modelfile    Modelfile
  /show parameters   Parameters of the model and of this session
  /show system       System message
  /show template     Prompt template
""",
    "parameters": """\
Available Parameters:
  /set parameter seed <int>             Random number seed
  /set parameter num_predict <int>      Most tokens of an answer
  /set parameter top_k <int>            Choose among this many tokens
  /set parameter top_p <float>          Choose among tokens up to this probability together
  /set parameter min_p <float>          Least probability, relative to the best token
  /set parameter num_ctx <int>          Size of the context in tokens
  /set parameter temperature <float>    How freely to choose
  /set parameter repeat_penalty <float> How strongly to avoid repetitions
  /set parameter repeat_last_n <int>    How far back to look for repetitions
  /set parameter num_gpu <int>          Layers on the GPU
  /set parameter stop <text> <text> ... Texts that end an answer
""",
    "shortcuts": """\
Available keyboard shortcuts:
  Ctrl + a / e        To the beginning / the end of the line
  Ctrl + b / f        One character back / forward
   Alt + b / f        One word back / forward
  Ctrl + k / u        Delete to the end / the beginning of the line
  Ctrl + w            Delete the word before the cursor
   Alt + backspace    Delete the word before the cursor
  Ctrl + p / n        Previous / next line of the history; the arrow keys too
  Ctrl + l            Clear the screen
  Ctrl + c            Stop the answer
  Ctrl + d            Leave (/bye)
""",
}
