"""Answers of gpt-oss in harmony: vectors of Ollama's `harmony/harmonyparser_test.go`, and our own."""

from __future__ import annotations

from chat.chat_kit import Sample, make_tool

_BEGUN = "…<|end|><|start|>assistant"
_CALC = '<|channel|>commentary to=functions.calc <|constrain|>json<|message|>{"x": 5}'
_FIVE = ("calc", {"x": 5})


def _harmony(text: str, content: str = "", thinking: str = "", **more: object) -> Sample:
    expected: dict[str, object] = {
        "calls": [],
        "malformed": False,
        "prompt": _BEGUN,
        "tools": (make_tool("calc", {"x": {"type": "number"}}), make_tool("get-weather!", {})),
        **more,
    }
    return Sample(parser="harmony", text=text, content=content, thinking=thinking, **expected)  # type: ignore[arg-type]  # fields by name


SAMPLES = [
    _harmony("<|channel|>analysis<|message|>The answer is 4<|end|><|start|>assistant<|channel|>final<|message|>4", "4", "The answer is 4"),
    _harmony("<|channel|>final<|message|>test<|example|>more<|end|>", "test<|example|>more"),
    _harmony("<|channel|>commentary<|message|>First I look.<|end|><|start|>assistant" + _CALC + "<|call|>", "First I look.", calls=[_FIVE]),
    _harmony("<|message|>Hi!<|end|>", "Hi!"),
    _harmony("<|channel|>final <|constrain|>json<|message|>{}", "{}"),
    _harmony("<|start|>assistant<|channel|>final<|message|>a whole header", "a whole header", prompt=""),
    # Calls.
    _harmony("<|channel|>analysis<|message|>Use calc.<|end|><|start|>assistant" + _CALC, "", "Use calc.", calls=[_FIVE]),
    _harmony(' to=functions.calc<|channel|>commentary json<|message|>{"x":5}<|end|>', calls=[_FIVE]),
    _harmony('<|channel|>analysis to=functions.calc<|message|>{"x":5}', calls=[_FIVE]),
    _harmony('<|channel|>commentary to=functions.calc<|constrain|>json<|message|>\n{"x":5}\n', calls=[_FIVE]),
    _harmony("<|channel|>commentary to=functions.get_weather<|message|>{}", calls=[("get-weather!", {})]),
    _harmony('<|channel|>commentary to=browser.search<|message|>{"q": 1}', calls=[("browser.search", {"q": 1})]),
    _harmony("<|channel|>commentary to=functions.refresh <|constrain|>json<|message|>", calls=[("refresh", {})]),
    _harmony(_CALC + "<|end|><|start|>assistant" + _CALC + "<|call|>", calls=[_FIVE, _FIVE]),
    _harmony("<|channel|>commentary to=functions.calc<|message|>Computing...<|end|>", "<|channel|>commentary to=functions.calc<|message|>Computing...<|end|>", malformed=True),
    _harmony('<|channel|>commentary to=functions.calc<|message|>{"x": ', '<|channel|>commentary to=functions.calc<|message|>{"x": ', malformed=True),
    _harmony('<|channel|>commentary to=functions.calc<|message|>{"x": }<|call|>', '<|channel|>commentary to=functions.calc<|message|>{"x": }<|call|>', malformed=True),
    # gpt-oss-20b sometimes writes a second header in the first.
    _harmony("<|channel|>commentary to=assistant<|channel|>analysis<|message|>hm<|end|>", "", "hm"),
    # What is missing or too much.
    _harmony("<|channel|>analysis<|message|>hm<|end|><|channel|>final<|message|>4", "4", "hm"),
    _harmony("<|channel|>analysis<|message|>hm<|end|>\n\n<|start|>assistant<|channel|>final<|message|>4", "4", "hm"),
    _harmony("<|channel|>analysis<|message|>hm<|end|> Just so.", " Just so.", "hm"),
    _harmony("No header at all.", "No header at all."),
    _harmony("No header at all. " * 40, "No header at all. " * 40),
    _harmony("<|channel|>final", ""),
    _harmony("<|channel|>analysis<|message|>hm<|end|><|start|>assist", "", "hm"),
    # Where the prompt ends.
    _harmony("<|message|>4", "4", prompt=_BEGUN + "<|channel|>final"),
    _harmony("on it goes<|end|>", "", "on it goes", prompt=_BEGUN + "<|channel|>analysis<|message|>And "),
    _harmony(" 4.", " 4.", prompt=_BEGUN + "<|channel|>final<|message|>It is", prefill="It is"),
    _harmony(" 4.", " 4.", prompt="anything <|start|>", prefill="about <|start|>"),
    _harmony("<|start|>assistant<|channel|>final<|message|>4", "4", prompt=_BEGUN + "<|channel|>analysis<|message|>hm<|end|>"),
]  # fmt: skip
