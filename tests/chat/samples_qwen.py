"""Answers of qwen3-coder, qwen3.5, ornith and nemotron, and what they become; their kin with calls as JSON: samples_qwen3.

Vectors of Ollama's `model/parsers/{qwen35,qwen38,qwen3coder,nemotron3nano}_test.go`; where Ollama fails or
drops a call, the text comes back instead. Then what models are known to get wrong. Parsers that share all code share the samples:
the generated tests of `test_registry` meet each of them.
"""

from __future__ import annotations

from typing import Any

from chat.chat_kit import Pair, Sample, make_tool

_CODER = ("qwen3-coder", "qwen3.5", "ornith", "nemotron-3-nano", "nemotron-3.5-nano")

_TYPED = make_tool(
    "calculate",
    {
        "x": {"type": "number"},
        "y": {"type": "integer"},
        "enabled": {"type": "boolean"},
        "items": {"type": "array"},
        "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        "value": {"type": "number"},
    },
)
_EDITOR = make_tool("editor", {"path": {"type": "string"}, "new_text": {"type": "string"}})


def _xml(name: str, *parameters: tuple[str, str]) -> str:
    inner = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in parameters)
    return f"<tool_call>\n<function={name}>\n{inner}</function>\n</tool_call>"


def _plain(parser: str, text: str, **wanted: Any) -> Sample:
    """Make a sample without thinking."""
    return Sample(parser=parser, text=text, think=False, **wanted)


_CODER_CALLS: list[tuple[str, object]] = [
    (
        _xml("get_current_temperature", ("location", "San Francisco"), ("unit", "celsius")),
        [("get_current_temperature", {"location": "San Francisco", "unit": "celsius"})],
    ),
    (
        _xml("get current temperature", ("location with spaces", "San Francisco")),
        [("get current temperature", {"location with spaces": "San Francisco"})],
    ),
    (_xml('"quoted"', ('"key"', '"celsius"')), [('"quoted"', {'"key"': '"celsius"'})]),
    (
        _xml("calculate", ("x", "3.14"), ("y", "42"), ("enabled", "true"), ("items", '["a", "b"]')),
        [("calculate", {"x": 3.14, "y": 42, "enabled": True, "items": ["a", "b"]})],
    ),
    (_xml("calculate", ("either", "7"), ("y", "null")), [("calculate", {"either": 7, "y": None})]),
    (_xml("calculate", ("value", "1e20")), [("calculate", {"value": 1e20})]),
    (
        _xml("exec", ("command", 'ls && echo "a > b and a < b"')),
        [("exec", {"command": 'ls && echo "a > b and a < b"'})],
    ),
    (
        _xml("获取天气", ("城市", "北京"), ("message", "Hello! 你好! 🌟 مرحبا")),
        [("获取天气", {"城市": "北京", "message": "Hello! 你好! 🌟 مرحبا"})],
    ),
    (_xml("now"), [("now", {})]),
    ("<tool_call><function=now></function></tool_call>", [("now", {})]),
    (
        _xml("write", ("text", "\n<b>1</b>\n\n<foo=bar>\n</tool_call> is a tag\n")),
        [("write", {"text": "\n<b>1</b>\n\n<foo=bar>\n</tool_call> is a tag\n"})],
    ),
]

SAMPLES = [
    # Calls with tags for parameters.
    *[
        _plain(parser, text, tools=(_TYPED,), content="", calls=calls, malformed=False)
        for parser in _CODER
        for text, calls in (_CODER_CALLS if parser == "qwen3-coder" else _CODER_CALLS[3:4])
    ],
    *[
        sample
        for parser in _CODER[:1]
        for sample in (
            _plain(parser, "hi there", content="hi there", calls=[]),
            _plain(parser, "Hello\u00a0world", content="Hello\u00a0world"),
            _plain(parser, "abc\n<tool_call fakeout", content="abc\n<tool_call fakeout"),
            _plain(parser, "Hello\u3000<toolfakeout>abc", content="Hello\u3000<toolfakeout>abc"),
            _plain(parser, "Hello\n<tool_c", content="Hello\n<tool_c"),
            _plain(parser, "</think>\nSome content", content="</think>\nSome content", thinking=""),
            _plain(
                parser,
                f"before1\n{_xml('now')}\nafter1 {_xml('now')} after2\n",
                content="before1after1after2",
                calls=[("now", {}), ("now", {})],
            ),
            _plain(
                parser, f"你好 🌍{_xml('now')}مرحبا", content="你好 🌍مرحبا", calls=[("now", {})]
            ),
            # Forgotten: the end of a parameter, of a function, the tag around a known function.
            _plain(
                parser,
                "<tool_call>\n<function=f>\n<parameter=a>\n1\n<parameter=b>\n2\n</function>\n</tool_call>",
                content="",
                calls=[("f", {"a": "1", "b": "2"})],
            ),
            _plain(
                parser,
                "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</tool_call>done",
                content="done",
                calls=[("f", {"a": "1"})],
            ),
            _plain(
                parser,
                "<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n</function>\n</tool_call>\ndone",
                content="done",
                calls=[("get_weather", {"city": "Rome"})],
            ),
            _plain(
                parser,
                "<tool_call>\n<function=now>\n</function>\n<function=now>\n</function>\n</tool_call>",
                content="",
                calls=[("now", {}), ("now", {})],
            ),
            _plain(
                parser, f"{_xml('now')[:-12]}and so on", content="and so on", calls=[("now", {})]
            ),
            _plain(parser, _xml("now")[:-4], content="</tool_c", calls=[("now", {})]),
            # Malformed: the text comes back.
            _plain(
                parser,
                "<tool_call>not valid xml</tool_call> ok",
                content="<tool_call>not valid xml</tool_call> ok",
                calls=[],
                malformed=True,
            ),
            _plain(
                parser,
                "Before<tool_call><function=get_weather>",
                content="Before<tool_call><function=get_weather>",
                calls=[],
                malformed=True,
            ),
            _plain(
                parser,
                "<tool_call><function=write_file><parameter=content>print('hel",
                content="<tool_call><function=write_file><parameter=content>print('hel",
                calls=[],
                malformed=True,
            ),
            _plain(
                parser,
                f"<tool_call><function=f><parameter=a>x</tool_call>{_xml('now')[:20]}",
                content="<tool_call><function=f><parameter=a>x</tool_call><tool_call>\n<functio",
                malformed=True,
            ),
            _plain(
                parser,
                "<tool_call><function=f><parameter=a>x</tool_call>\n and",
                content="<tool_call><function=f><parameter=a>x</tool_call>\n and",
                malformed=True,
            ),
            _plain(
                parser,
                "<tool_call><function=f\n<parameter=x>1</parameter></function></tool_call>",
                content="<tool_call><function=f\n<parameter=x>1</parameter></function></tool_call>",
                calls=[],
                malformed=True,
            ),
            _plain(
                parser,
                "<tool_call>\n<function=f>\n</function>\n<function=g>\n</function>\n<function=h>\n<para",
                content="<function=h>\n<para",
                calls=[("f", {}), ("g", {})],
                malformed=True,
            ),
            _plain(
                parser,
                "<function=<<not xml>></function>",
                content="<function=<<not xml>></function>",
            ),
            _plain(
                parser,
                "the tag <function=foo is documented here",
                content="the tag <function=foo is documented here",
                calls=[],
            ),
        )
    ],
    _plain(
        "qwen3",
        '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>',
        calls=[("f", {"a": 1})],
    ),
    Sample(parser="ornith", text="a</think>b", thinking="a", content="b"),
    Sample(parser="nemotron-3.5-nano", text="a</think>b", thinking="a", content="b"),
    # Thinking, then such calls.
    *[
        sample
        for parser in ("qwen3.5", "nemotron-3-nano")
        for sample in (
            Sample(
                parser=parser,
                text="<think>\nLet me think...</think>Answer.",
                thinking="Let me think...",
                content="Answer.",
            ),
            Sample(parser=parser, text="<think></think>\nHi.", thinking="", content="Hi."),
            Sample(parser=parser, text="</think>The answer.", thinking="", content="The answer."),
            Sample(
                parser=parser,
                text="My thoughts...</think>   \n\t\n   Content here.",
                thinking="My thoughts...",
                content="Content here.",
            ),
            Sample(
                parser=parser,
                text="It never closes </thi",
                thinking="It never closes </thi",
                content="",
            ),
            Sample(
                parser=parser,
                text=f"Let me analyze.\n{_xml('get_weather', ('city', 'Paris'))}",
                thinking="Let me analyze.",
                content="",
                calls=[("get_weather", {"city": "Paris"})],
            ),
            Sample(
                parser=parser,
                text="<think>The line `}}});` is wrong.<tool_call><function=editor><parameter=path>"
                "a.html</parameter><parameter=new_text>}});</parameter></function></tool_call>",
                tools=(_EDITOR,),
                thinking="The line `}}});` is wrong.",
                calls=[("editor", {"path": "a.html", "new_text": "}});"})],
            ),
            Sample(
                parser=parser,
                text="Need a look<tool_c</think>",
                thinking="Need a look<tool_c",
                content="",
                calls=[],
            ),
            Sample(
                parser=parser,
                text="<think>\nNeed weather for Montréal.\n</think>\n\nI'll check both.\n\n"
                f"{_xml('get_weather', ('city', 'Montréal'))}\n{_xml('add', ('a', '5'))}",
                thinking="Need weather for Montréal.",
                content="I'll check both.",
                calls=[("get_weather", {"city": "Montréal"}), ("add", {"a": 5})],
            ),
            Sample(
                parser=parser,
                text="Plan</think>ordinary <tool_calling> marker.",
                thinking="Plan",
                content="ordinary <tool_calling> marker.",
            ),
            Sample(parser=parser, text=" and on", prefill="I am", content=" and on", thinking=""),
            Sample(
                parser=parser,
                text="So.</think>Yes",
                prompt="assistant\n<think>\n",
                prefill="I am",
                thinking="So.",
                content="Yes",
            ),
            Sample(
                parser=parser,
                text="Yes",
                prompt="assistant\n<think></think>",
                think=True,
                content="Yes",
                thinking="",
            ),
        )
    ],
]

PAIRS = [
    Pair(renderer="qwen3-coder", parser="qwen3-coder"),
    *[
        Pair(renderer=renderer, parser=parser, think=think, keeps_thinking=True)
        for renderer, parser in (
            ("qwen3.5", "qwen3.5"),
            ("qwen3.8", "qwen3.5"),
            ("ornith", "ornith"),
            ("nemotron-3-nano", "nemotron-3-nano"),
            ("nemotron-3.5-nano", "nemotron-3.5-nano"),
        )
        for think in (None, "low")
    ],
    Pair(renderer="qwen3.5", parser="qwen3.5", think=False),
]
