"""Answers of deepseek3, cogito and ministral: vectors of Ollama's `model/parsers/{deepseek3,cogito,ministral}_test.go`.

Where a vector depends on how its text was cut, or lost text, the value here is ours and a comment says so.
"""

from __future__ import annotations

from chat.chat_kit import TOOLS, Pair, Sample, make_tool
from chat.vectors import representative

_CALLS, _CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL, _CALL_END, _SEP = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
_OUTPUT, _OUTPUT_END = "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"


def _deepseek_call(name: str, arguments: str) -> str:
    return f"{_CALL}{name}{_SEP}{arguments}{_CALL_END}"


def _cogito_call(name: str, arguments: str) -> str:
    return f"{_CALL}function{_SEP}{name}\n```json\n{arguments}\n```{_CALL_END}"


def _calls(*calls: str) -> str:
    return _CALLS + "".join(calls) + _CALLS_END


def _deepseek(text: str, content: str = "", thinking: str = "", **more: object) -> Sample:
    is_thinking = bool(thinking) or text.startswith("</think>")
    expected: dict[str, object] = {"calls": [], "malformed": False, **more}
    return Sample(
        parser="deepseek3",
        text=text,
        content=content,
        thinking=thinking,
        think=is_thinking,
        **expected,
    )  # type: ignore[arg-type]  # fields by name


def _cogito(text: str, content: str = "", thinking: str = "", **more: object) -> Sample:
    expected: dict[str, object] = {"calls": [], "malformed": False, "tools": (), **more}
    return Sample(
        parser="cogito",
        text=text,
        content=content,
        thinking=thinking,
        think=bool(thinking),
        **expected,
    )  # type: ignore[arg-type]  # fields by name


_PARIS = ("get_weather", {"location": "Paris"})
_LONDON = ("get_weather", {"location": "London"})

_DEEPSEEK = [
    _deepseek("Hello, how are you?", "Hello, how are you?"),
    _deepseek("I need to think about this...</think>The answer is 42.", "The answer is 42.", "I need to think about this..."),
    _deepseek("Let me think:\n- Point 1\n- Point 2</think>\n\nHere's my answer.", "Here's my answer.", "Let me think:\n- Point 1\n- Point 2"),
    _deepseek("I'll check the weather." + _calls(_deepseek_call("get_weather", '{"location":"Paris"}')), "I'll check the weather.", calls=[_PARIS]),
    _deepseek(
        "Getting weather for both cities."
        + _calls(_deepseek_call("get_weather", '{"location":"Paris"}'), _deepseek_call("get_weather", '{"location":"London"}')),
        "Getting weather for both cities.",
        calls=[_PARIS, _LONDON],
    ),
    _deepseek(f"Here's the weather: {_OUTPUT}Temperature: 22°C, Sunny{_OUTPUT_END} Hope that helps!", "Here's the weather: Temperature: 22°C, Sunny Hope that helps!"),
    _deepseek(
        "Processing data." + _calls(_deepseek_call("process_data", '{"items":["item1","item2"],"config":{"enabled":true,"threshold":0.95}}')),
        "Processing data.",
        calls=[("process_data", {"items": ["item1", "item2"], "config": {"enabled": True, "threshold": 0.95}})],
    ),
    _deepseek(
        "Let me check the weather...</think>I'll get that for you." + _calls(_deepseek_call("get_weather", '{"location":"Paris"}')),
        "I'll get that for you.",
        "Let me check the weather...",
        calls=[_PARIS],
    ),
    _deepseek(""),
    _deepseek("Just thinking content</think>", "", "Just thinking content"),
    _deepseek(f"Results: {_OUTPUT}Paris: 22°C{_OUTPUT_END} and {_OUTPUT}London: 18°C{_OUTPUT_END}", "Results: Paris: 22°C and London: 18°C"),
    _deepseek("مرحبا بالعالم! 你好世界! 🌍", "مرحبا بالعالم! 你好世界! 🌍"),
    _deepseek("I'll help you." + _calls(_deepseek_call("get_weather", '{"location":"Tokyo"}')) + "完成 ✅", "I'll help you.完成 ✅", calls=[("get_weather", {"location": "Tokyo"})]),
    _deepseek("Content before " + _calls(_deepseek_call("test", "{}")) + " after", "Content before  after", calls=[("test", {})]),
    _deepseek("Line 1\n\nLine 3\t\tTabbed content", "Line 1\n\nLine 3\t\tTabbed content"),
    _deepseek("我在思考这个问题...</think>答案是42。", "答案是42。", "我在思考这个问题..."),
    _deepseek(
        "Processing data." + _calls(_deepseek_call("execute_command", '{"command":"ls && echo \\"done\\"","path":"/home/user"}')),
        "Processing data.",
        calls=[("execute_command", {"command": 'ls && echo "done"', "path": "/home/user"})],
    ),
    _deepseek("Pinging." + _calls(_deepseek_call("ping", "{}")), "Pinging.", calls=[("ping", {})]),
    _deepseek(_calls(_deepseek_call("获取天气", ' {"城市":"北京"} ')), calls=[("获取天气", {"城市": "北京"})]),
    _deepseek(f"Checking status: {_OUTPUT}{_OUTPUT_END} No output received.", "Checking status:  No output received."),
    _deepseek(f"Output:\n{_OUTPUT}Line 1\nLine 2{_OUTPUT_END}\nDone.", "Output:\nLine 1\nLine 2\nDone."),
    _deepseek("</think>Just content", "Just content"),
    _deepseek("First thought</think>Second thought</think>Final content", "Second thought</think>Final content", "First thought"),
    _deepseek("Some content</think>More content", "Some content</think>More content"),
    _deepseek("Content with partial <｜tool▁calls▁", "Content with partial <｜tool▁calls▁"),
    # Ollama loses the partial tag.
    _deepseek("Thinking content</th", "", "Thinking content</th"),
    _deepseek("   \n\t   ", "   \n\t   "),
    _deepseek("First." + _calls(_deepseek_call("tool1", "{}")) + "Second." + _calls(_deepseek_call("tool2", "{}")), "First.Second.", calls=[("tool1", {}), ("tool2", {})]),
    # Ollama drops calls that it cannot read.
    _deepseek("Testing." + _calls(f'{_CALL}bad{{"arg":"value"}}{_CALL_END}'), f'Testing.{_CALL}bad{{"arg":"value"}}{_CALL_END}', malformed=True),
    _deepseek(
        "Testing." + _calls(_deepseek_call("bad", "{invalid json}"), _deepseek_call("now", "{}")),
        "Testing." + _deepseek_call("bad", "{invalid json}"),
        malformed=True,
        calls=[("now", {})],
    ),
    _deepseek(_calls(_deepseek_call("bad", "")), _deepseek_call("bad", ""), malformed=True),
    _deepseek(_calls(_deepseek_call("", "{}")), _deepseek_call("", "{}"), malformed=True),
    _deepseek(_calls(_deepseek_call("now", '{"a":[1,2}')), _deepseek_call("now", '{"a":[1,2}'), malformed=True),
    # What is forgotten at the end is forgiven where the arguments are whole.
    _deepseek(f"{_CALLS}{_CALL}now{_SEP}{{}}", calls=[("now", {})]),
    _deepseek(f"{_CALLS}{_CALL}now{_SEP}{{}}{_CALLS_END}x", "x", calls=[("now", {})]),
    _deepseek(f'{_CALLS}{_CALL}now{_SEP}{{"a":', f'{_CALL}now{_SEP}{{"a":', malformed=True),
    # The prompt knows best whether the thinking is open.
    Sample(parser="deepseek3", text="It is fine.", think=True, prompt="…<｜tool▁output▁end｜>", content="It is fine.", thinking=""),
    Sample(parser="deepseek3", text="hm</think>ok", think=True, prompt="…<think>\n", content="ok", thinking="hm"),
    Sample(parser="deepseek3", text="and on", think=True, prefill="So", content="and on", thinking=""),
]  # fmt: skip

_COGITO = [
    _cogito("This is a simple response.", "This is a simple response."),
    _cogito("This is thinking content.</think>This is response content.", "This is response content.", "This is thinking content."),
    _cogito(_calls(_cogito_call("get_weather", '{"location":"Paris"}')), calls=[_PARIS]),
    _cogito("I need to check the weather.</think>" + _calls(_cogito_call("get_weather", '{"location":"Paris"}')), "", "I need to check the weather.", calls=[_PARIS]),
    _cogito(
        _calls(_cogito_call("get_weather", '{"location":"Paris"}'), "\n", _cogito_call("get_weather", '{"location":"London"}')),
        calls=[_PARIS, _LONDON],
    ),
    _cogito(
        _calls(_cogito_call("process_data", '{"items":["item1"],"config":{"enabled":true,"threshold":0.95},"count":42}')),
        calls=[("process_data", {"items": ["item1"], "config": {"enabled": True, "threshold": 0.95}, "count": 42})],
    ),
    _cogito(f'<｜tool▁outputs▁begin｜>{_OUTPUT}{{"temperature": 22}}{_OUTPUT_END}<｜tool▁outputs▁end｜>'),
    _cogito("Continuing from previous content.", "Continuing from previous content.", prefill="Previous content"),
    Sample(parser="cogito", text="Continuing thinking</think>Continuing content.", tools=(), think=True, prefill="", content="Continuing content.", thinking="Continuing thinking"),
    Sample(parser="cogito", text="Not thinking.", tools=TOOLS, think=True, content="Not thinking.", thinking=""),
    Sample(parser="cogito", text="hm</think>So.", tools=TOOLS, think=True, prompt="…<think>\n", content="So.", thinking="hm"),
    _cogito(
        "This is thinking content.</think>This is content." + _calls(_cogito_call("test_tool", '{"arg":"value"}')),
        "This is content.",
        "This is thinking content.",
        calls=[("test_tool", {"arg": "value"})],
    ),
    _cogito(_calls(f'{_CALL}function{_SEP}get_weather```json{{"location":"Paris"}}```{_CALL_END}'), calls=[_PARIS]),
    _cogito(_calls(_cogito_call("  get_weather  ", '{\n  "location": "Paris"\n}')), calls=[_PARIS]),
    _cogito(_calls(_cogito_call("no_args_tool", "{}")), calls=[("no_args_tool", {})]),
    # The closing fence is forgiven.
    _cogito(_calls(f'{_CALL}function{_SEP}get_weather```json\n{{"location":"Paris"}}{_CALL_END}'), calls=[_PARIS]),
    *(
        _cogito(_calls(bad), bad, malformed=True)
        for bad in (
            f'{_CALL}functionget_weather```json\n{{"location":"Paris"}}\n```{_CALL_END}',
            f'{_CALL}function{_SEP}get_weather{{"location":"Paris"}}```{_CALL_END}',
            f"{_CALL}function{_SEP}get_weather```json\n{{location:Paris}}\n```{_CALL_END}",
        )
    ),
]  # fmt: skip

_PEOPLE = (
    '{"entities": [{"entityType": "Person", "name": "Jack", "observations": ["Works as a baker"]}]}'
)
_NAMES = (
    "get_weather",
    "get_time",
    "create_entities",
    "search",
    "format",
    "no_args",
    "write",
    "path",
    "test",
    "greet",
)
_KNOWN = tuple(make_tool(name, {}) for name in _NAMES)


def _ministral(text: str, content: str = "", thinking: str = "", **more: object) -> Sample:
    expected: dict[str, object] = {"calls": [], "malformed": False, **more}
    return Sample(
        parser="ministral", text=text, tools=_KNOWN, content=content, thinking=thinking, **expected
    )  # type: ignore[arg-type]  # fields by name


_MINISTRAL = [
    _ministral("Hello, how can I help you?", "Hello, how can I help you?"),
    _ministral('[TOOL_CALLS]get_weather[ARGS]{"location": "San Francisco"}', calls=[("get_weather", {"location": "San Francisco"})]),
    _ministral("[TOOL_CALLS]create_entities[ARGS]" + _PEOPLE, calls=[("create_entities", {"entities": [{"entityType": "Person", "name": "Jack", "observations": ["Works as a baker"]}]})]),
    _ministral('[TOOL_CALLS]search[ARGS]{"query": "say \\"hello\\""}', calls=[("search", {"query": 'say "hello"'})]),
    _ministral('[TOOL_CALLS]format[ARGS]{"template": "Hello {name}!"}', calls=[("format", {"template": "Hello {name}!"})]),
    _ministral("[TOOL_CALLS]no_args[ARGS]{}", calls=[("no_args", {})]),
    _ministral('[TOOL_CALLS]write[ARGS]{"content": "line1\\nline2"}', calls=[("write", {"content": "line1\nline2"})]),
    _ministral('[TOOL_CALLS]path[ARGS]{"dir": "C:\\\\Users\\\\test\\\\"}', calls=[("path", {"dir": "C:\\Users\\test\\"})]),
    _ministral('[TOOL_CALLS]test[ARGS]{"a": 1}some content after', "some content after", calls=[("test", {"a": 1})]),
    _ministral(
        '[TOOL_CALLS]get_weather[ARGS]{"location": "NYC"}[TOOL_CALLS]get_time[ARGS]{"timezone": "EST"}',
        calls=[("get_weather", {"location": "NYC"}), ("get_time", {"timezone": "EST"})],
    ),
    _ministral('[TOOL_CALLS]test[ARGS]{"a": {"b": 1}}', calls=[("test", {"a": {"b": 1}})]),
    _ministral("abc[TOOL not a tag", "abc[TOOL not a tag"),
    _ministral("hello [TOOL_CALLS]get_weather[ARGS]{}", "hello", calls=[("get_weather", {})]),
    _ministral("content\t\n\t[TOOL_CALLS]test[ARGS]{}", "content", calls=[("test", {})]),
    _ministral("content\u00a0[TOOL_CALLS]test[ARGS]{}", "content", calls=[("test", {})]),
    _ministral("content \n [THINK]thinking[/THINK]after", "contentafter", "thinking"),
    _ministral("[THINK]my thoughts[/THINK]  \n  response", "response", "my thoughts"),
    _ministral("[THINK]thinking[/THINK]\u00a0response", "response", "thinking"),
    _ministral("[THINK]thinking[/THInot end tag", "", "thinking[/THInot end tag"),
    _ministral("[THINK]let me think[/THINK][TOOL_CALLS]test[ARGS]{}", "", "let me think", calls=[("test", {})]),
    _ministral("Hello \nworld", "Hello \nworld"),
    _ministral('[TOOL_CALLS]greet[ARGS]{"message": "你好 🌍"}', calls=[("greet", {"message": "你好 🌍"})]),
    # Ollama ends the stream with an error here.
    _ministral('[TOOL_CALLS]unknown[ARGS]{"a": 1}', '[TOOL_CALLS]unknown[ARGS]{"a": 1}', malformed=True),
    _ministral("[TOOL_CALLS]test[ARGS]{invalid json}", "[TOOL_CALLS]test[ARGS]{invalid json}", malformed=True),
    _ministral('[TOOL_CALLS]test[ARGS]{"a": {"b": 1}', '[TOOL_CALLS]test[ARGS]{"a": {"b": 1}', malformed=True),
]  # fmt: skip

VECTORS = [*_DEEPSEEK, *_COGITO, *_MINISTRAL]
SAMPLES = representative(VECTORS)
PAIRS = [
    Pair(
        renderer="deepseek3.1",
        parser="deepseek3",
        opening="<｜Assistant｜></think>",
        closing="<｜end▁of▁sentence｜>",
    ),
    Pair(
        renderer="cogito",
        parser="cogito",
        opening="<｜Assistant｜>",
        closing="<｜end▁of▁sentence｜>",
    ),
]
