"""Answers of lfm2: vectors of Ollama's `model/parsers/lfm2_test.go`, and our own.

Strings differ from Ollama's on purpose: escapes are read, as Python does and as our renderer writes them.
"""

from __future__ import annotations

from chat.chat_kit import TOOLS, Pair, Sample, make_tool

_B, _E = "<|tool_call_start|>", "<|tool_call_end|>"
_WEATHER = (make_tool("get_weather", {"location": {"type": "string"}}),)
_PARIS = ("get_weather", {"location": "Paris"})
_LONDON = ("get_weather", {"location": "London"})
_PARIS_TEXT = f'{_B}[get_weather(location="Paris")]{_E}'
_LONDON_TEXT = _PARIS_TEXT.replace("Paris", "London")


def _lfm2(text: str, content: str = "", thinking: str = "", **more: object) -> Sample:
    expected: dict[str, object] = {"calls": [], "malformed": False, "tools": _WEATHER, **more}
    name = "lfm2-thinking" if more.get("think") else "lfm2"
    return Sample(parser=name, text=text, content=content, thinking=thinking, **expected)  # type: ignore[arg-type]  # fields by name


def _call(inner: str, *calls: object) -> Sample:
    return _lfm2(f"{_B}{inner}{_E}", calls=list(calls), tools=())


_TEXTS = [
    ("Hello, how are you?", "Hello, how are you?", []),
    (_PARIS_TEXT, "", [_PARIS]),
    ("Checking Paris." + _PARIS_TEXT, "Checking Paris.", [_PARIS]),
    ("Vérifions 🌍.\n" + _PARIS_TEXT, "Vérifions 🌍.", [_PARIS]),
    (_PARIS_TEXT + _LONDON_TEXT, "", [_PARIS, _LONDON]),
    (_PARIS_TEXT + "Checking again." + _LONDON_TEXT, "Checking again.", [_PARIS, _LONDON]),
    (_PARIS_TEXT + "Done.", "Done.", [_PARIS]),
    ("Use <html> or compare 1 < 2.\n", "Use <html> or compare 1 < 2.\n", []),
    ("Example: <|tool_call_started|>", "Example: <|tool_call_started|>", []),
    ("Example: \n\t<|tool_call_sta", "Example: \n\t<|tool_call_sta", []),
]

_THINKING = [
    _lfm2("<think>Let me think:\n- Point 1\n- Point 2</think>\n\nHere's my answer.", "Here's my answer.", "Let me think:\n- Point 1\n- Point 2", think=True),
    _lfm2("The answer is 42.", "The answer is 42.", think=True),
    _lfm2("<html> is a tag", "<html> is a tag", think=True),
    _lfm2("<think>\n\n  Actual thinking content</think>Response", "Response", "Actual thinking content", think=True),
    _lfm2("<think>我在思考这个问题...</think>答案是42。", "答案是42。", "我在思考这个问题...", think=True),
    _lfm2("<think>First thought</think>Second thought</think>Final content", "Second thought</think>Final content", "First thought", think=True),
    _lfm2("<think></think>Just content", "Just content", think=True),
    _lfm2("  \n  Hello there", "Hello there", think=True),
    _lfm2(" and so on", " and so on", think=True, prefill="It is"),
    _lfm2("Some content</think>More content", "Some content</think>More content"),
    _lfm2("   \n\t   ", "   \n\t   "),
]  # fmt: skip

_CALLS = [
    _call("[process_data(items=['item1','item2'], config={'enabled': True, 'threshold': 0.95})]", ("process_data", {"items": ["item1", "item2"], "config": {"enabled": True, "threshold": 0.95}})),
    _call("[bash(command='ls'),bash(command='pwd')]", ("bash", {"command": "ls"}), ("bash", {"command": "pwd"})),
    _call("bash(command='ls -la')", ("bash", {"command": "ls -la"})),
    _call("[ping()]", ("ping", {})),
    _call('[process(name="test", count=42, ratio=3.14, offset=-10, active=true, no=None)]', ("process", {"name": "test", "count": 42, "ratio": 3.14, "offset": -10, "active": True, "no": None})),
    _call("[AskUserQuestion(question=\"What's up?\", headers=['Hello!'], multiSelect=False, metadata={'priority': 1})]", ("AskUserQuestion", {"question": "What's up?", "headers": ["Hello!"], "multiSelect": False, "metadata": {"priority": 1}})),
    _call("[bash(command='echo \"(hello), world\" x=1')]", ("bash", {"command": 'echo "(hello), world" x=1'})),
    _call("[bash(command='echo \\'hello\\'')]", ("bash", {"command": "echo 'hello'"})),
    _call('[write_file(content="line1\\nline2")]', ("write_file", {"content": "line1\nline2"})),
    _call('func( arg1 = "value1" , arg2 = 42 )', ("func", {"arg1": "value1", "arg2": 42})),
    _call("[send_data(payload='{\"key\": \"value\", \"num\": 123}')]", ("send_data", {"payload": '{"key": "value", "num": 123}'})),
    # JSON instead of Python.
    _call('{"name": "ping", "arguments": {"n": 1}}', ("ping", {"n": 1})),
    _call('[ {"name": "ping", "arguments": {}}, {"name": "pong", "arguments": {"n": 1}}]', ("ping", {}), ("pong", {"n": 1})),
    # A section that does not end.
    _lfm2(_PARIS_TEXT.removesuffix(_E), calls=[_PARIS]),
    _lfm2(f'{_B}[get_weather(location="Par', 'get_weather(location="Par', malformed=True),
    _lfm2(f"{_B}[bash(command)]{_E} Well.", "bash(command) Well.", malformed=True),
    _lfm2(f"{_B}", f"{_B}", malformed=True),
]  # fmt: skip

_BARE = [
    _lfm2('[get_weather(location="Paris")]', calls=[_PARIS]),
    _lfm2('\nget_weather(location="Paris")\n', calls=[_PARIS]),
    _lfm2('[unknown_tool(location="Paris")]', '[unknown_tool(location="Paris")]'),
    _lfm2("get_weather(location=1) is what I need.", "get_weather(location=1) is what I need."),
    _lfm2("get_weather(location=", "get_weather(location="),
    _lfm2("get_weath", "get_weath"),
    _lfm2("get_weather(location=1)" + _PARIS_TEXT, "get_weather(location=1)", calls=[_PARIS]),
    _lfm2('[get_weather(location="Paris")]', '[get_weather(location="Paris")]', tools=()),
    _lfm2("[img-0]describe this image", "[img-0]describe this image"),
    _lfm2('<think>Bare?</think>get_weather(location="Paris")', "", "Bare?", think=True, calls=[_PARIS]),
]  # fmt: skip

SAMPLES = [
    *(_lfm2(text, content, calls=calls) for text, content, calls in _TEXTS),
    *(
        _lfm2("<think>Check the weather.</think>" + text, content, "Check the weather.", calls=calls, think=True)
        for text, content, calls in _TEXTS
    ),
    *_THINKING,
    *_CALLS,
    *_BARE,
    Sample(parser="lfm2-thinking", text="<think>x", tools=TOOLS, think=False, content="<think>x", thinking=""),
]  # fmt: skip

_OPENING = "<|im_start|>assistant\n"
PAIRS = [
    Pair(renderer="lfm2", parser="lfm2", opening=_OPENING, closing="<|im_end|>"),
    Pair(renderer="lfm2-thinking", parser="lfm2-thinking", opening=_OPENING, closing="<|im_end|>", think=True),
]  # fmt: skip
