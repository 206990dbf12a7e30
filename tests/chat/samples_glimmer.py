"""Answers of Muse Glimmer: vectors of Ollama's `model/parsers/glimmer_test.go`, and our own."""

from __future__ import annotations

from chat.chat_kit import Pair, Sample, make_tool

_STRING = {"type": "string"}
_WEATHER = make_tool("get_weather", {"city": _STRING})
_READ = make_tool("read", {"path": _STRING})
_BASH = make_tool("muse.bash", {"command": _STRING})
_RUN = make_tool(
    "tools.run",
    {
        "text": _STRING,
        "count": {"type": "integer"},
        "enabled": {"type": "boolean"},
        "items": {"type": "array"},
        "config": {"type": "object"},
        "choice": {"anyOf": [{"type": "null"}, _STRING]},
    },
)


def _atem(name: str, **parameters: str) -> str:
    written = "".join(
        f'<atem:parameter name="{key}">{value}</atem:parameter>\n'
        for key, value in parameters.items()
    )
    return f'<atem:function_calls>\n<atem:invoke name="{name}">\n{written}</atem:invoke>\n</atem:function_calls>'


def _glimmer(text: str, content: str = "", thinking: str = "", **more: object) -> Sample:
    expected: dict[str, object] = {
        "calls": [],
        "malformed": False,
        "tools": (_WEATHER, _READ, _BASH, _RUN),
        "prompt": "<|start|>assistant",
        **more,
    }
    return Sample(parser="glimmer", text=text, content=content, thinking=thinking, **expected)  # type: ignore[arg-type]  # fields by name


_SF = ("get_weather", {"city": "SF"})
_SF_ATEM = _atem("get_weather", city="SF")
_PWD = ("muse.bash", {"command": "pwd && ls -la"})
_PWD_ATEM = _atem("muse.bash", command="pwd && ls -la")
_LITERAL = "literal <|eot|> and <|start|>assistant to=user<|message|> text"
_ALL = _atem("tools.run", text=" keep  spaces ", count="3", enabled="true", items='["one", "two"]', config='{"mode":"fast"}', choice="null")  # fmt: skip
_ALL_VALUES = {"text": " keep  spaces ", "count": 3, "enabled": True, "items": ["one", "two"], "config": {"mode": "fast"}, "choice": None}  # fmt: skip

_MESSAGES = [
    _glimmer(" to=user<|message|>Hello", "Hello"),
    _glimmer("<|message|>Hello<|eot|>", "Hello"),
    _glimmer(" to=self<|message|>Check the facts.", "", "Check the facts."),
    _glimmer(" to=self<|message|>Check the facts.<|eom|><|start|>assistant to=user<|message|>Answer<|eot|>", "Answer", "Check the facts.", think="low"),
    _glimmer(" to=self<|message|>Check the facts.<|eom|><|start|>assistant to=user<|message|>Answer<|eot|>", "Answer", think=False),
    _glimmer(" to=user<|message|>Use `<|start|>` here.", "Use `<|start|>` here.", tools=()),
    _glimmer(" to=self<|message|>Use `<|start|>assistant to=nobody<|message|>` here.", "", "Use `<|start|>assistant to=nobody<|message|>` here."),
    _glimmer(" to=user<|message|>It ends in <|start|>assistant to=u", "It ends in <|start|>assistant to=u"),
    _glimmer(" to=not_a_tool<|message|>" + _atem("not_a_tool"), _atem("not_a_tool")),
    _glimmer("No header at all.", "No header at all."),
    _glimmer("No header at all. " * 40, "No header at all. " * 40),
]  # fmt: skip

_CALLS = [
    _glimmer(f" to=get_weather<|message|>{_SF_ATEM}<|eot|>", calls=[_SF]),
    _glimmer(f" to=get_weather<|message|>{_SF_ATEM}", calls=[_SF]),
    _glimmer(f" to=tools.run<|message|>{_ALL}", calls=[("tools.run", _ALL_VALUES)]),
    _glimmer(f" to=read<|message|>{_atem('read', path=_LITERAL)}<|eot|>", calls=[("read", {"path": _LITERAL})]),
    _glimmer(f" to=self<|message|>Think<|eom|><|start|>assistant to=get_weather<|message|>{_SF_ATEM}<|eom|><|start|>assistant to=read<|message|>{_atem('read')}<|eot|>", "", "Think", calls=[_SF, ("read", {})]),
    # A new header where the message has no end.
    _glimmer(f" to=self<|message|>Think<|start|>assistant to=get_weather<|message|>{_SF_ATEM}<|start|>assistant to=user<|message|>Done<|eot|>", "Done", "Think", calls=[_SF]),
    # Headers and names that models get wrong.
    _glimmer(f" to=read<|message|>{_atem('read<|message|>', path='go.mod')}<|eot|>", calls=[("read", {"path": "go.mod"})]),
    *(
        _glimmer(f" to={recipient}<|message|>{_atem(name, path='go.mod')}<|eot|>", calls=[("read", {"path": "go.mod"})])
        for recipient, name in (("read", "read.read"), ("read.read", "read.read"), ("read.read", "read"))
    ),
    *(
        _glimmer(f"{header}<|message|>{_PWD_ATEM}{end}", calls=[_PWD])
        for header in (" to=muse", "", " to=user", " to=atem:function_calls")
        for end in ("<|eom|>", "\n<|eot|>", "")
    ),
    _glimmer(f" to=self<|message|>let me look<|eom|><|start|>assistant<|message|>{_PWD_ATEM}<|eom|>", "", "let me look", calls=[_PWD]),
    _glimmer(f"<|message|>{_PWD_ATEM}<|start|>assistant to=user<|message|>Done<|eot|>", "Done", calls=[_PWD]),
]  # fmt: skip

_NO_CALLS = [
    _glimmer(" to=user<|message|>" + _atem("other.run") + "<|eot|>", _atem("other.run")),
    _glimmer(" to=user<|message|>Running:\n" + _PWD_ATEM + "<|eot|>", "Running:\n" + _PWD_ATEM),
    _glimmer(" to=user<|message|>" + _PWD_ATEM + "\nDone.<|eot|>", _PWD_ATEM + "\nDone."),
    _glimmer(" to=user<|message|>" + _PWD_ATEM + "<|eot|>", _PWD_ATEM, tools=()),
    # Ollama answers these with an error; the text of the call comes back.
    _glimmer(" to=get_weather<|message|>" + _atem("read") + "<|eot|>", " to=get_weather<|message|>" + _atem("read") + "<|eot|>", malformed=True),
    _glimmer(' to=get_weather<|message|>{"city":"SF"}', ' to=get_weather<|message|>{"city":"SF"}', malformed=True),
    _glimmer(" to=get_weather<|message|>{}<|eom|><|start|>assistant to=user<|message|>Oh.", " to=get_weather<|message|>{}<|eom|>Oh.", malformed=True),
    _glimmer(" to=get_weather<|message|>" + _SF_ATEM[:-40], " to=get_weather<|message|>" + _SF_ATEM[:-40], malformed=True),
]  # fmt: skip

SAMPLES = [*_MESSAGES, *_CALLS, *_NO_CALLS]

PAIRS = [
    Pair(renderer="glimmer", parser="glimmer", opening="<|start|>assistant", closing="<|eot|>", keeps_thinking=True, keeps_content=False),
]  # fmt: skip
