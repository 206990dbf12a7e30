"""Answers of gemma4 and functiongemma: vectors of Ollama's `model/parsers/{gemma4,functiongemma}_test.go`, and our own.

Where Ollama drops a call that it cannot read, ours gives its text back; a comment says so where the vector differs.
"""

from __future__ import annotations

from chat.chat_kit import TOOLS, Pair, Sample, make_tool
from olm.chat.tools import Tool

Call = tuple[str, dict[str, object]]

_Q = '<|"|>'
_STRING = {"type": "string"}


def _strings(name: str, *keys: str) -> Tool:
    return make_tool(name, dict.fromkeys(keys, _STRING))


def _gemma(text: str, content: str = "", thinking: str = "", **more: object) -> Sample:
    expected: dict[str, object] = {"calls": [], "malformed": False, "tools": (), **more}
    return Sample(parser="gemma4", text=text, content=content, thinking=thinking, **expected)  # type: ignore[arg-type]  # fields by name


def _call(inner: str, *calls: Call, **more: object) -> Sample:
    """A text that is one call; `inner` has `~` for the delimiter of strings."""
    text = "<|tool_call>" + inner.replace("~", _Q) + "<tool_call|>"
    return _gemma(text, **{"calls": list(calls), **more})  # type: ignore[arg-type]  # fields by name


_PARIS: Call = ("get_weather", {"location": "Paris"})
_LONDON = ("get_weather", {"location": "London"})
_PARIS_TEXT = f"<|tool_call>call:get_weather{{location:{_Q}Paris{_Q}}}<tool_call|>"
_LONDON_TEXT = _PARIS_TEXT.replace("Paris", "London")
_NODES: dict[str, object] = {
    "connections": {
        "Basic LLM Chain": {"main": [{"node": "Ollama Chat Model"}]},
        "Ollama Chat Model": {"main": []},
    }
}
_TITLE = (
    "\n\n# Project Style Guide for Autonomous Agents' Code Generation (AGENTS.md)\n\nThis, that."
)

_TEXTS = [
    _gemma("This is a simple response.", "This is a simple response."),
    _gemma("<|channel>thought\nLet me think about this...<channel|>The answer is 42.", "The answer is 42.", "Let me think about this...", think=True),
    _gemma("<|channel>first thought<channel|><|channel>second thought<channel|>Final answer.", "Final answer.", "first thoughtsecond thought", think=True),
    _gemma("<|channel>just thinking<channel|>", "", "just thinking", think=True),
    _gemma("<|channel>this is not thinking<channel|>actual content", "actual content"),
    _gemma("Continuing content.", "Continuing content.", prefill="Previous content", think=True),
    _gemma("The user asked for files.<channel|>go.mod and go.sum", "go.mod and go.sum", "The user asked for files.", think=True, prompt="…<tool_response|><|channel>thought\n"),
    _gemma("<|channel>thought\nI need to check the weather<channel|>" + _PARIS_TEXT, "", "I need to check the weather", calls=[_PARIS], think=True),
    _gemma("Let me check that for you.\n" + _PARIS_TEXT, "Let me check that for you.", calls=[_PARIS]),
    _gemma(_PARIS_TEXT + _LONDON_TEXT, calls=[_PARIS, _LONDON]),
    _gemma("A line. \n", "A line. \n"),
    # Noise behind a call.
    _gemma(_PARIS_TEXT + "<tool_call|>", calls=[_PARIS]),
    _gemma(_PARIS_TEXT + "<tool_call|>Done.", "Done.", calls=[_PARIS]),
    _gemma(_PARIS_TEXT + "<|tool_response>", calls=[_PARIS]),
    _gemma(_PARIS_TEXT + "<|tool_response>Done.", "Done.", calls=[_PARIS]),
    # A missing end marker.
    _gemma(_PARIS_TEXT.removesuffix("<tool_call|>"), calls=[_PARIS]),
    _gemma(_PARIS_TEXT.removesuffix("<tool_call|>") + _LONDON_TEXT, calls=[_PARIS, _LONDON]),
    _gemma(_PARIS_TEXT.removesuffix("<tool_call|>") + "<|tool_response>", calls=[_PARIS]),
    _gemma(_PARIS_TEXT.removesuffix("<tool_call|>") + "It rains.", "It rains.", calls=[_PARIS]),
]  # fmt: skip

_CALLS = [
    _call("call:get_weather{location:~Paris~,units:~metric~}", ("get_weather", {"location": "Paris", "units": "metric"})),
    _call("call:set_temp{value:42}", ("set_temp", {"value": 42})),
    _call("call:set_temp{value:-1.5e3}", ("set_temp", {"value": -1500.0})),
    _call("call:toggle{enabled:true}", ("toggle", {"enabled": True})),
    _call("call:set_optional{value:null,nested:{value:null}}", ("set_optional", {"value": None, "nested": {"value": None}})),
    _call("call:process{config:{enabled:true,name:~test~}}", ("process", {"config": {"enabled": True, "name": "test"}})),
    _call('call:process{items:[~a~,~b "quoted"~,~c~]}', ("process", {"items": ["a", 'b "quoted"', "c"]})),
    _call("call:process{items:[],more:{}}", ("process", {"items": [], "more": {}})),
    _call("call:now{}", ("now", {})),
    _call("call:bash{command:~date\n~}", ("bash", {"command": "date\n"})),
    _call('call:search{query:~say \\"hello\\" then "raw"~}', ("search", {"query": 'say \\"hello\\" then "raw"'})),
    _call("call:search{query:~a,b:{c}[d]~}", ("search", {"query": "a,b:{c}[d]"})),
    _call('call:exec{command:~fetch "https://ollama.com/library/gemma4" --extract~}', ("exec", {"command": 'fetch "https://ollama.com/library/gemma4" --extract'})),
    _call('call:search{query:"raw \\"quoted\\"",note:~gemma "quoted"~}', ("search", {"query": 'raw "quoted"', "note": 'gemma "quoted"'})),
    _call('call:foo{q:"keep , oldText: and \\"quoted\\" text",note:~ok~}', ("foo", {"q": 'keep , oldText: and "quoted" text', "note": "ok"})),
    _call('call:plan{steps:[{title:~step "one"~,done:false},{title:~two~,done:true}]}', ("plan", {"steps": [{"title": 'step "one"', "done": False}, {"title": "two", "done": True}]})),
    _call("call:edit{edits:[\n  {newText:~a\n~,\n   oldText:~b~},\n { newText:~c~, oldText:~d~}\n]}", ("edit", {"edits": [{"newText": "a\n", "oldText": "b"}, {"newText": "c", "oldText": "d"}]})),
    _call("call:open_file{path:~C:\\users\\bob\\file.txt~}", ("open_file", {"path": "C:\\users\\bob\\file.txt"})),
    _call("call:foo{n:~1~,b:~true~,z:~null~}", ("foo", {"n": "1", "b": "true", "z": "null"})),
    _call("call:get_current_temperature{detail_level:0,location:~Paris, France~,unit:~celsius~}", ("get_current_temperature", {"detail_level": 0, "location": "Paris, France", "unit": "celsius"})),
    _call("call:create_workflow{connections:{Basic LLM Chain:{main:[{node:~Ollama Chat Model~}]}, Ollama Chat Model:{main:[]}}}", ("create_workflow", _NODES)),
    _call("call:x{ display name \t :~Demo~,节点 名称:1}", ("x", {"display name": "Demo", "节点 名称": 1})),
    _call('call:x{~Basic LLM Chain~:1,"Ollama Chat Model":2}', ("x", {"Basic LLM Chain": 1, "Ollama Chat Model": 2})),
    # An end marker inside of a string.
    _call("call:write{text:~a call ends with }<tool_call|> here~,n:1}", ("write", {"text": "a call ends with }<tool_call|> here", "n": 1})),
]  # fmt: skip

_REPAIRED = [
    # https://github.com/ollama/ollama/issues/15315
    _gemma("<|tool_call>call:write{content:" + _TITLE, calls=[("write", {"content": _TITLE})], tools=[_strings("write", "content")]),
    _call("call:grep{include:~*.py~,path:~/data~,pattern:':\\s*\\w+'~}", ("grep", {"include": "*.py", "path": "/data", "pattern": ":\\s*\\w+"}), tools=[_strings("grep", "include", "path", "pattern")]),
    _call("call:bash{command:~ls}", ("bash", {"command": "ls"})),
    _call("call:bash{path:~/tmp~,command:~ls}", ("bash", {"path": "/tmp", "command": "ls"})),
    _call("call:bash{command:~ls", ("bash", {"command": "ls"})),
    _call("call:bash{a:{b:[~ls]}}", ("bash", {"a": {"b": ["ls"]}})),
    _gemma(f"<|tool_call>call:bash{{command:{_Q}ls}}<tool_call|>" + _PARIS_TEXT, calls=[("bash", {"command": "ls"}), _PARIS]),
    _call("call:grep{include:~*.py~,pattern:'abc',path:~/tmp~}", ("grep", {"include": "*.py", "pattern": "abc", "path": "/tmp"})),
    _call("call:write{content:hello, you,mode:~fast~}", ("write", {"content": "hello, you", "mode": "fast"}), tools=[_strings("write", "content", "mode")]),
    _call("call:write{content:hello}", ("write", {"content": "hello"}), tools=[_strings("write", "content")]),
    _call("call:write{content:tomorrow, at noon}", ("write", {"content": "tomorrow, at noon"}), tools=[_strings("write", "content")]),
    _gemma("<|tool_call>call:write{content:hello", calls=[("write", {"content": "hello"})], tools=[_strings("write", "content")]),
]  # fmt: skip

_BROKEN = [
    # Ollama drops these; the text of the call comes back.
    _call('call:open_file{path:"C:\\users\\bob\\file.txt"}', content='<|tool_call>call:open_file{path:"C:\\users\\bob\\file.txt"}<tool_call|>', malformed=True),
    _call("call:example{first:~one,second:~two~}", content=f"<|tool_call>call:example{{first:{_Q}one,second:{_Q}two{_Q}}}<tool_call|>", malformed=True),
    _call("call:write{content:hello}", content="<|tool_call>call:write{content:hello}<tool_call|>", malformed=True),
    _call("call:count{n:1", content="<|tool_call>call:count{n:1<tool_call|>", malformed=True),
    _call("get_weather", content="<|tool_call>get_weather<tool_call|>", malformed=True),
    _call("call:{}", content="<|tool_call>call:{}<tool_call|>", malformed=True),
    _gemma("<|tool_call>nothing<tool_call|>" + _PARIS_TEXT, "<|tool_call>nothing<tool_call|>", calls=[_PARIS], malformed=True),
    _gemma("<|tool_call>nothing" + _PARIS_TEXT, "<|tool_call>nothing", calls=[_PARIS], malformed=True),
    _gemma("<|tool_call>call:now", "<|tool_call>call:now", malformed=True),
]  # fmt: skip


def _function(text: str, content: str = "", *calls: Call, **more: object) -> Sample:
    whole = (
        text.replace("«", "<start_function_call>")
        .replace("»", "<end_function_call>")
        .replace("~", "<escape>")
    )
    expected: dict[str, object] = {"malformed": False, "tools": (), **more}
    return Sample(
        parser="functiongemma",
        text=whole,
        content=content,
        thinking="",
        calls=list(calls),
        **expected,  # type: ignore[arg-type]  # fields by name
    )


_FUNCTIONS = [
    _function("Hello, world!", "Hello, world!"),
    _function("«call:get_weather{city:~Paris~}»", "", ("get_weather", {"city": "Paris"})),
    _function("«call:write_file{content:~first line\r\nsecond line~}»", "", ("write_file", {"content": "first line\r\nsecond line"})),
    _function("Let me check.«call:get_weather{city:~Paris~}»", "Let me check.", ("get_weather", {"city": "Paris"})),
    _function("«call:add{a:1,b:2}»", "", ("add", {"a": 1, "b": 2})),
    _function("«call:set_flag{enabled:true,verbose:false}»", "", ("set_flag", {"enabled": True, "verbose": False})),
    _function("«call:f{city:~Paris~}»«call:get_time{timezone:~UTC~}»", "", ("f", {"city": "Paris"}), ("get_time", {"timezone": "UTC"})),
    _function("«call:process{items:[~a~,~b~,~c~]}»", "", ("process", {"items": ["a", "b", "c"]})),
    _function("«call:update{data:{name:~test~,value:42}}»", "", ("update", {"data": {"name": "test", "value": 42}})),
    _function("«call:get_time{}»", "", ("get_time", {})),
    _function("The result is a <value> tag", "The result is a <value> tag"),
    _function("«call:set_temp{value:3.14}»", "", ("set_temp", {"value": 3.14})),
    _function("«call:test{}»Done!", "Done!", ("test", {})),
    _function("こんにちは «call:greet{name:~日本語~}»", "こんにちは ", ("greet", {"name": "日本語"})),
    _function("«call:create{config:{settings:{enabled:true,name:~test~}}}»", "", ("create", {"config": {"settings": {"enabled": True, "name": "test"}}})),
    _function("Hello <start world", "Hello <start world"),
    _function("«call:first{}»Some text here«call:second{}»", "Some text here", ("first", {}), ("second", {})),
    # A bare word is text, whatever its length.
    _function("«call:greet{name:Bob,note:" + "long " * 30 + "}»", "", ("greet", {"name": "Bob", "note": "long " * 30})),
    _function("«call:greet(Bob)»", "<start_function_call>call:greet(Bob)<end_function_call>", malformed=True),
    _function("«call:greet{name", "<start_function_call>call:greet{name", malformed=True),
]  # fmt: skip

SAMPLES = [
    *_TEXTS,
    *_CALLS,
    *_REPAIRED,
    *_BROKEN,
    *_FUNCTIONS,
    Sample(parser="gemma4-no-thinking", text="<|channel>thought\nhm<channel|>" + _PARIS_TEXT, tools=TOOLS, think=True, content="", thinking="", calls=[_PARIS], malformed=False),
    Sample(parser="passthrough", text="<think> is kept\n", content="<think> is kept\n", thinking="", calls=[]),
]  # fmt: skip

_MODEL = "<|turn>model\n"
PAIRS = [
    Pair(renderer="gemma4", parser="gemma4", opening=_MODEL, closing="<|tool_response>", think=True, keeps_thinking=True, keeps_content=False),
    Pair(renderer="gemma4-large", parser="gemma4", opening=_MODEL, closing="<|tool_response>", keeps_content=False),
    Pair(renderer="gemma4-small", parser="gemma4-no-thinking", opening=_MODEL, closing="<|tool_response>", keeps_content=False),
    Pair(renderer="functiongemma", parser="functiongemma", opening="<start_of_turn>model\n", closing="<start_function_response>"),
]  # fmt: skip
