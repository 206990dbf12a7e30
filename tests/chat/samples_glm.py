"""Answers of glm-4.7, glm-ocr, laguna and poolside-v1: vectors of Ollama's `glm46_test.go`, `glm47_test.go`, `laguna_test.go`.

Where a vector depends on how its text was cut, or lost text, the value here is ours and a comment says so.
"""

from __future__ import annotations

from chat.chat_kit import Pair, Sample, make_tool
from chat.vectors import representative


def _glm(text: str, content: str = "", thinking: str = "", **more: object) -> Sample:
    expected: dict[str, object] = {"calls": [], "malformed": False, "think": False, **more}
    return Sample(parser="glm-4.7", text=text, content=content, thinking=thinking, **expected)  # type: ignore[arg-type]  # fields by name


def _call(inside: str) -> str:
    return f"<tool_call>{inside}</tool_call>"


def _args(name: str, *pairs: tuple[str, str]) -> str:
    return _call(
        name
        + "".join(f"\n<arg_key>{k}</arg_key>\n<arg_value>{v}</arg_value>" for k, v in pairs)
        + "\n"
    )


_CALC = (
    make_tool("calculate", {"x": {"type": "number"}, "y": {"type": "integer"}, "enabled": {"type": "boolean"}, "items": {"type": "array"}}),
    make_tool("TodoWrite", {"todos": {"anyOf": [{"type": "array"}, {"type": "string"}]}}),
    make_tool("write_file", {"path": {"type": "string"}, "content": {"type": "string"}}),
)  # fmt: skip
_BOTH = "Wrap each call in <tool_call> and </tool_call>; this text is part of the argument."

_THINKING = [
    _glm("   \n\t  <think>thinking</think>", "", "thinking"),
    _glm("<think>  \n  thinking content  \n  </think>regular content", "regular content", "thinking content"),
    _glm("<think></think><tool_call>  \n  test  \n  </tool_call>", calls=[("test", {})]),
    _glm("<think>hello world</think>content", "content", "hello world"),
    _glm("<think>thinking</think>content\n  \t  " + _call("test") + "\n\t  after", "contentafter", "thinking", calls=[("test", {})]),
    _glm("<think>content</thought more", "", "content</thought more"),
    _glm("  <thinking is fun", "  <thinking is fun"),
    _glm("<think></think>content\n<tool fakeout", "content\n<tool fakeout"),
    _glm("<think>think</think>" + _call("first") + "between" + _call("second") + "end", "betweenend", "think", calls=[("first", {}), ("second", {})]),
    _glm("just content here", "just content here"),
    _glm("  \n  content with leading whitespace", "  \n  content with leading whitespace"),
    _glm("<think>thinking</think>  \n\t  content", "content", "thinking"),
    # The prompt has opened the thinking.
    _glm("plan</think>Answer" + _call("now"), "Answer", "plan", think=None, calls=[("now", {})]),
    _glm("</think>Plain answer", "Plain answer", think=True),
    _glm("Plain answer", "Plain answer"),
    _glm("hm</think>x", "x", "hm", think=True, prompt="…<|assistant|><think>"),
    Sample(parser="glm-ocr", text="<think>hm</think>A " + _call("now"), content="A", thinking="hm", calls=[("now", {})]),
]  # fmt: skip

_PARIS = ("get-weather", {"city": "Paris"})
_BOTH_PARIS = ("get-weather", {"city": "Paris", "unit": "celsius"})
_CALLS = [
    _glm(_args("get-current-weather", ("location", "New York, NY"), ("unit", "celsius")), calls=[("get-current-weather", {"location": "New York, NY", "unit": "celsius"})]),
    _glm(
        _args("calculate", ("x", "3.14"), ("y", "42"), ("enabled", "true"), ("items", '["a", "b", "c"]')),
        tools=_CALC,
        calls=[("calculate", {"x": 3.14, "y": 42, "enabled": True, "items": ["a", "b", "c"]})],
    ),
    _glm(_args("  get-weather", ("city", "Paris")), calls=[_PARIS]),
    _glm(_args("exec", ("command", 'ls && echo "done"'), ("message", "a < b and c > d")), calls=[("exec", {"command": 'ls && echo "done"', "message": "a < b and c > d"})]),
    _glm(_args("获取天气", ("城市", "北京"), ("message", "Hello! 你好! 🌟")), calls=[("获取天气", {"城市": "北京", "message": "Hello! 你好! 🌟"})]),
    _glm(_args("test", ("param1", "")), calls=[("test", {"param1": ""})]),
    _glm(_args("test", ("param<1>", "v1"), ("a&b", "v2"), ("x>y", "v3")), calls=[("test", {"param<1>": "v1", "a&b": "v2", "x>y": "v3"})]),
    _glm(_args("test", ("param", "<>&<>& &&&& &lt;&amp; <![CDATA[no]]>")), calls=[("test", {"param": "<>&<>& &&&& &lt;&amp; <![CDATA[no]]>"})]),
    _glm(_args("test", ("m", "line1\n\tindented\nline3"), ("q", "She said \"Hello's\"")), calls=[("test", {"m": "line1\n\tindented\nline3", "q": "She said \"Hello's\""})]),
    _glm(_args("test", ("param", "first"), ("other", "middle"), ("param", "second")), calls=[("test", {"param": "second", "other": "middle"})]),
    _glm(_args("TodoWrite", ("todos", '[{"content": "task 1", "id": "1"}]')), tools=_CALC, calls=[("TodoWrite", {"todos": [{"content": "task 1", "id": "1"}]})]),
    _glm(_args("TodoWrite", ("todos", "Error: could not load todos")), tools=_CALC, calls=[("TodoWrite", {"todos": "Error: could not load todos"})]),
    _glm(_call("f<arg_key>a</arg_key><arg_key>b</arg_key><arg_value>1</arg_value><arg_value>2</arg_value>"), calls=[("f", {"a": "1", "b": "2"})]),
    _glm(_args("write_file", ("path", "a.md"), ("content", _BOTH)), tools=_CALC, calls=[("write_file", {"path": "a.md", "content": _BOTH})]),
    # What models forget.
    _glm(_call("get-weather\n<arg_key>city</arg_key>\n<arg_value>Paris"), calls=[_PARIS]),
    _glm(_call("get-weather\n<arg_key>city</arg_key>\n<arg_value>Paris<arg_key>unit</arg_key>\n<arg_value>celsius</arg_value>"), calls=[_BOTH_PARIS]),
    _glm(_call("get-weather\n<arg_key>city</arg_key>\n<arg_value>Paris<arg_key>unit</arg_key>\n<arg_value>celsius") + "So.", "So.", calls=[_BOTH_PARIS]),
    _glm(_call("get-weather<arg_key>city</arg_key><arg_value>Paris") * 2, calls=[_PARIS, _PARIS]),
    _glm(_call("get-weather city</arg_key><arg_value>Paris</arg_value>"), calls=[_PARIS]),
    _glm(_call("get-weather<arg_key>city<arg_value>Paris</arg_value>unit</arg_key>celsius</arg_value>"), calls=[_BOTH_PARIS]),
    _glm("<tool_call>get-weather<arg_key>city</arg_key><arg_value>Paris</arg_value>\n", calls=[_PARIS]),
    _glm(_call('{"name": "get-weather", "arguments": {"city": "Paris"}}'), calls=[_PARIS]),
    # Ollama gives the text back without its markers, or ends the stream with an error.
    _glm("<tool_call>get-weather\n<arg_key>city</arg_key>\n<arg_value>Par", "<tool_call>get-weather\n<arg_key>city</arg_key>\n<arg_value>Par", malformed=True),
    _glm(_call("get-weather<arg_key>city</arg_key><arg_key>extra</arg_key><arg_value>Paris</arg_value>"), _call("get-weather<arg_key>city</arg_key><arg_key>extra</arg_key><arg_value>Paris</arg_value>"), malformed=True),
    _glm(_call("") + _args("get-weather", ("city", "Paris")), _call(""), malformed=True, calls=[_PARIS]),
    _glm(_call("content</tool fakeout"), _call("content</tool fakeout"), malformed=True),
    _glm(_call("f<arg_key>a</arg_key>") + "x", _call("f<arg_key>a</arg_key>") + "x", malformed=True),
]  # fmt: skip

_TOOLS = (
    make_tool("get_weather", {"location": {"type": "string"}, "days": {"type": "integer"}}),
    make_tool("read", {"path": {"type": "string"}}),
    make_tool("skill", {"name": {"type": "string"}}),
    make_tool("bash", {"command": {"type": "string"}}),
)


def _laguna(text: str, content: str = "", thinking: str = "", **more: object) -> Sample:
    expected: dict[str, object] = {
        "calls": [],
        "malformed": False,
        "tools": _TOOLS,
        "parser": "laguna",
        **more,
    }
    return Sample(text=text, content=content, thinking=thinking, **expected)  # type: ignore[arg-type]  # fields by name


_LAGUNA_PARIS = ("get_weather", {"location": "Paris"})
_PARIS_JSON = '{"name":"get_weather","arguments":{"location":"Paris"}}'
_PARIS_CALL = _args("get_weather", ("location", "Paris"))
_READ = ("read", {"path": "/go.mod"})
_READ_USER = "<user>read\n<arg_key>path</arg_key>\n<arg_value>/go.mod</arg_value>\n</user>"
_LAGUNA = [
    *(
        _laguna(_call(f"{alias}{{}}"), calls=[(name, {})], tools=(make_tool(name, {}),))
        for alias, name in (("write_file", "write"), ("edit_file", "edit"), ("web_fetch", "webfetch"))
    ),
    _laguna(_call("web_fetch{}"), calls=[("web_fetch", {})]),
    _laguna(_args("get_weather", ("location", "Paris"), ("days", "3")), calls=[("get_weather", {"location": "Paris", "days": 3})]),
    _laguna(_call("\n" + _PARIS_JSON + "\n"), calls=[_LAGUNA_PARIS]),
    _laguna(_PARIS_JSON, calls=[_LAGUNA_PARIS]),
    _laguna("Let me call the weather tool.\n" + _PARIS_JSON, "Let me call the weather tool.", calls=[_LAGUNA_PARIS]),
    _laguna(_call('get_weather\n{"location":"Paris"}'), calls=[_LAGUNA_PARIS]),
    _laguna(_call('\n{"name":"read_file","arguments":{"path":"/go.mod"}}\n'), calls=[_READ]),
    _laguna(_args("read_file", ("path", "/go.mod")), calls=[_READ]),
    _laguna('<tool_call>skill\n{"name":"git"}\n<tool_call>skill\n{"name":"git"}</tool_call>', calls=[("skill", {"name": "git"})]),
    _laguna("<think>Need current weather.</think>\n" + _PARIS_CALL, "", "Need current weather.", think=True, calls=[_LAGUNA_PARIS]),
    _laguna(_READ_USER, calls=[_READ]),
    _laguna("I'll read the file for you.\n" + _READ_USER + "\nDone.", "I'll read the file for you.Done.", calls=[_READ]),
    _laguna('I\'ll run it.<user>\n{"name":"bash","arguments":{"command":"git diff"}}\n</user>', "I'll run it.", calls=[("bash", {"command": "git diff"})]),
    _laguna("<user>hello</user>", "<user>hello</user>"),
    _laguna("<user>< x", "<user>< x"),
    _laguna(_PARIS_JSON + "}] x", "}] x", calls=[_LAGUNA_PARIS]),
    _laguna('a <user> or {x} {"name": "Bob"} b', 'a <user> or {x} {"name": "Bob"} b'),
    _laguna("<think>Need to reason.</think>\nDirect answer.", "Direct answer."),
    _laguna("<think>Need to reason.</think>\n" + _PARIS_CALL, calls=[_LAGUNA_PARIS]),
    _laguna("<think>Hidden?</think>\nDirect answer.", "Direct answer.", think=False),
    _laguna("</think>\nTokyo\n", "Tokyo", think=False),
    _laguna("</think>\nTokyo\n", "Tokyo", think=True),
    _laguna("</think>\nTokyo\n", "Tokyo"),
    _laguna("Direct answer.", "", "Direct answer.", think=True),
    _laguna(" 42.", "42.", think=True, prefill="The answer is"),
    _laguna(_PARIS_CALL, think=True, prefill="", calls=[_LAGUNA_PARIS]),
    _laguna("Hello there.\n\n", "Hello there.", think=False),
    _laguna("\nHello! How can I help?", "Hello! How can I help?", think=False),
    _laguna("\nReasoning here.\n</think>\nThe answer.", "The answer.", "Reasoning here.", think=True),
    _laguna("<think>Need lookup" + _PARIS_CALL, "", "Need lookup", think=True, calls=[_LAGUNA_PARIS]),
    _laguna("So:<think>\nmore</think> yes", "So:yes", "more", think=True, prefill="x"),
    _laguna(_call("{bad}"), _call("{bad}"), malformed=True),
    _laguna(" 42.", "", "42.", think=True, prefill="The answer is", parser="poolside-v1"),
    _laguna("x" + _PARIS_CALL, "x", parser="poolside-v1", calls=[_LAGUNA_PARIS]),
]  # fmt: skip

VECTORS = [*_THINKING, *_CALLS, *_LAGUNA]
SAMPLES = representative(VECTORS)
PAIRS = [
    Pair(renderer="glm-4.7", parser="glm-4.7", opening="<|assistant|><think>", closing="<|observation|>", keeps_thinking=True),
    Pair(renderer="glm-ocr", parser="glm-ocr", opening="<|assistant|>\n", closing="<|observation|>", keeps_thinking=True),
    Pair(renderer="laguna", parser="laguna", opening="<assistant>\n", closing="</assistant>", think=True, keeps_thinking=True),
    Pair(renderer="laguna", parser="laguna", opening="<assistant>\n</think>", closing="</assistant>"),
    Pair(renderer="poolside-v1", parser="poolside-v1", opening="<assistant>", closing="</assistant>", think=True, keeps_thinking=True),
    Pair(renderer="poolside-v1", parser="poolside-v1", opening="<assistant></think>", closing="</assistant>"),
]  # fmt: skip
