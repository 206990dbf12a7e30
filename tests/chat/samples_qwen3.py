"""Answers of qwen3 and qwen3-vl, whose calls are JSON, and what they become.

Vectors of Ollama's `model/parsers/{qwen3,qwen3vl_*}_test.go`; where Ollama fails or drops a call, the text comes back instead.
Then what models are known to get wrong. Parsers that share all code share the samples.
"""

from __future__ import annotations

from typing import Any

from chat.chat_kit import Pair, Sample

_PLAIN_JSON = ("qwen3-vl-instruct",)


def _plain(parser: str, text: str, **wanted: Any) -> Sample:
    """Make a sample without thinking."""
    return Sample(parser=parser, text=text, think=False, **wanted)


SAMPLES = [
    # Calls as JSON.
    *[
        sample
        for parser in _PLAIN_JSON
        for sample in (
            _plain(parser, "Direct answer", content="Direct answer", thinking=""),
            _plain(parser, "<think>abc</think>", content="<think>abc</think>", thinking=""),
            _plain(
                parser, "abc\u00a0\n<tool_call fakeout", content="abc\u00a0\n<tool_call fakeout"
            ),
            _plain(
                parser,
                '<tool_call>{"name":"get_weather","arguments":{"location":"San Francisco","unit":"celsius"}}</tool_call>',
                content="",
                calls=[("get_weather", {"location": "San Francisco", "unit": "celsius"})],
            ),
            _plain(
                parser,
                'One:\n<tool_call>\n{"name": "first", "arguments": {"a": "1"}}\n</tool_call>\n<tool_call>\n'
                '{"name": "second", "arguments": {}}\n</tool_call>\nDone.',
                content="One:Done.",
                calls=[("first", {"a": "1"}), ("second", {})],
            ),
            _plain(
                parser,
                '<tool_call>{"name": "\\"get current temperature\\"", "arguments": {"\\"a b\\"": "\\"c\\""}}</tool_call>',
                calls=[('"get current temperature"', {'"a b"': '"c"'})],
            ),
            _plain(
                parser,
                '<tool_call>{"name": "calc", "arguments": {"x": 3.14, "y": 42, "on": true, "items": ["a", null]}}</tool_call>',
                calls=[("calc", {"x": 3.14, "y": 42, "on": True, "items": ["a", None]})],
            ),
            _plain(
                parser,
                '<tool_call>{"name": "exec", "arguments": {"command": "echo \\"a > b\\" </tool_call> && ls"}}</tool_call>',
                content="",
                calls=[("exec", {"command": 'echo "a > b" </tool_call> && ls'})],
            ),
            _plain(
                parser,
                '<tool_call>{"name": "获取天气", "arguments": {"城市": "北京 🌟"}}</tool_call>完成 ✅',
                content="完成 ✅",
                calls=[("获取天气", {"城市": "北京 🌟"})],
            ),
            # In another order, with more members, without arguments, as a string.
            _plain(
                parser,
                '<tool_call>{"arguments": {"a": {"b": [1]}}, "id": 7, "name": "f"}</tool_call>',
                content="",
                calls=[("f", {"a": {"b": [1]}})],
            ),
            _plain(parser, '<tool_call>{"name": "f"}</tool_call>', content="", calls=[("f", {})]),
            _plain(
                parser, '<tool_call>{"name": "f", "arguments": null}</tool_call>', calls=[("f", {})]
            ),
            _plain(
                parser,
                '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>',
                calls=[("f", {"a": 1})],
            ),
            # Forgotten or too much: braces, the end tag.
            _plain(
                parser,
                '<tool_call>{"name": "f", "arguments": {"a": 1}}}\n</tool_call>',
                content="",
                calls=[("f", {"a": 1})],
                malformed=False,
            ),
            _plain(
                parser,
                '<tool_call>{"name": "f", "arguments": {"a": 1}\n</tool_call> ok',
                content="ok",
                calls=[("f", {"a": 1})],
            ),
            _plain(
                parser, '<tool_call>{"name": "f", "arguments": {}}', content="", calls=[("f", {})]
            ),
            _plain(
                parser, '<tool_call>{"name": "f", "arguments": {}', content="", calls=[("f", {})]
            ),
            _plain(
                parser,
                '<tool_call>{"name": "f", "arguments": {}}<tool_call>{"name": "g"}</tool_call>',
                content="",
                calls=[("f", {}), ("g", {})],
            ),
            # Malformed: the text comes back, and what follows is read.
            _plain(
                parser,
                '<tool_call>invalid json</tool_call>\n<tool_call>{"name":"get_weather","arguments":{"location":"SF"}}</tool_call>',
                content="<tool_call>invalid json</tool_call>",
                calls=[("get_weather", {"location": "SF"})],
                malformed=True,
            ),
            _plain(
                parser,
                '<tool_call>{"name":"write_file","arguments":{"content":"incomplete...</tool_call>more<tool_call>{}</tool_call>',
                content='<tool_call>{"name":"write_file","arguments":{"content":"incomplete...</tool_call>more<tool_call>{}</tool_call>',
                calls=[],
                malformed=True,
            ),
            _plain(
                parser,
                'Here:\n<tool_call>{"name":"write_file","arguments":{"content":"...',
                content='Here:\n<tool_call>{"name":"write_file","arguments":{"content":"...',
                calls=[],
                malformed=True,
            ),
            _plain(
                parser,
                '<tool_call>{"name": "", "arguments": {}}</tool_call>',
                calls=[],
                malformed=True,
            ),
            _plain(
                parser,
                '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
                calls=[],
                malformed=True,
            ),
            _plain(
                parser,
                '<tool_call>{"name": "f", "arguments": {"a" 1}}</tool_call>',
                calls=[],
                malformed=True,
            ),
            _plain(
                parser,
                '<tool_call>{"name": "f" "arguments": {}}</tool_call>',
                calls=[],
                malformed=True,
            ),
            _plain(
                parser,
                '<tool_call>{"name": "f", "arguments": , }</tool_call>',
                calls=[],
                malformed=True,
            ),
        )
    ],
    # Thinking, then JSON: the text model may call while it thinks, the one with vision may not.
    Sample(
        parser="qwen3-thinking",
        text='<think>\nHm <x>\n</think>\n\nNow:\n<tool_call>{"name":"now","arguments":{}}</tool_call>',
        thinking="Hm <x>",
        content="Now:",
        calls=[("now", {})],
    ),
    Sample(
        parser="qwen3-thinking",
        text='Let me think<tool_call>{"name":"now","arguments":{}}</tool_call>',
        thinking="Let me think",
        content="",
        calls=[("now", {})],
    ),
    Sample(
        parser="qwen3-thinking",
        text='Let me help</think>\n<tool_call>{"name":"write_file","arguments":{"content":"trunc',
        thinking="Let me help",
        content='<tool_call>{"name":"write_file","arguments":{"content":"trunc',
        malformed=True,
    ),
    Sample(parser="qwen3-thinking", text="Direct", think=False, content="Direct", thinking=""),
    Sample(
        parser="qwen3-vl-thinking", text="<think>abc</think>", thinking="<think>abc", content=""
    ),
    Sample(
        parser="qwen3-vl-thinking",
        text="I'm thinking<think>I'm nested</think></think>",
        thinking="I'm thinking<think>I'm nested",
        content="</think>",
    ),
    Sample(
        parser="qwen3-vl-thinking",
        text="I'm thinking<tool_call>I'm nested</tool_call></think>",
        thinking="I'm thinking<tool_call>I'm nested</tool_call>",
        content="",
        calls=[],
    ),
    Sample(
        parser="qwen3-vl-thinking",
        text='abc</think fakeout</think>     NOT <tool_call>{"name": "now", "arguments": {}}</tool_call>',
        thinking="abc</think fakeout",
        content="NOT",
        calls=[("now", {})],
    ),
    Sample(parser="qwen3-vl-thinking", text=" on", prefill="I go", content=" on", thinking=""),
    Sample(
        parser="qwen3-vl-thinking", text="<think>x</think>y", think=False, thinking="x", content="y"
    ),
    Sample(parser="qwen3-vl-thinking", text="plain", think=False, thinking="", content="plain"),
]

PAIRS = [
    Pair(renderer="qwen3-vl-instruct", parser="qwen3-vl-instruct"),
    Pair(
        renderer="qwen3-vl-thinking",
        parser="qwen3-vl-thinking",
        opening="<|im_start|>assistant\n<think>\n",
        keeps_thinking=True,
    ),
    Pair(renderer="qwen3-vl-thinking", parser="qwen3-vl-thinking", think=False),
]
