"""Answers of cohere: vectors of Ollama's `model/parsers/cohere_test.go`."""

from __future__ import annotations

from chat.chat_kit import Pair, Sample
from chat.vectors import representative


def _cohere(text: str, content: str = "", thinking: str = "", **more: object) -> Sample:
    expected: dict[str, object] = {"calls": [], "malformed": False, **more}
    return Sample(parser="cohere", text=text, content=content, thinking=thinking, **expected)  # type: ignore[arg-type]  # fields by name


def _action(*calls: str, comma: str = ",") -> str:
    return (
        "<|START_ACTION|>[\n"
        + comma.join(f"\n\n    {call}" for call in calls)
        + "\n\n]<|END_ACTION|>"
    )


def _one(name: str, parameters: str, number: int = 0) -> str:
    return f'{{"tool_call_id": "{number}", "tool_name": "{name}", "parameters": {parameters}}}'


_BAD = _one("set_alarm", '{"time": 15:30}')

VECTORS = [
    _cohere("Let me think about this.<|END_THINKING|><|START_TEXT|>Hello world!<|END_TEXT|>", "Hello world!", "Let me think about this."),
    _cohere("plan<|END_THINKING|>" + _action(_one("get_weather", '{"city": "Paris"}'), _one("get_time", "{}", 1)), "", "plan", calls=[("get_weather", {"city": "Paris"}), ("get_time", {})]),
    _cohere("<|START_TEXT|>direct answer<|END_TEXT|>", "direct answer", think=False),
    _cohere("thought<|END_THINKING|>Just plain text output", "Just plain text output", "thought"),
    _cohere("t<|END_THINKING|><|START_TEXT|>answer<|END_OF_TURN_TOKEN|>", "answer", "t"),
    _cohere(" continued<|END_TEXT|>", " continued", prefill="partial"),
    _cohere("plan<|END_THINKING|>" + _action(_BAD, _one("get_weather", '{"city": "Oslo"}', 1)), _BAD, "plan", calls=[("get_weather", {"city": "Oslo"})], malformed=True),
    _cohere("<|END_THINKING|>" + _action(_one("a", "{}"), _one("b", '{"x": "{not json}"}', 1), comma=""), calls=[("a", {}), ("b", {"x": "{not json}"})]),
    # Ollama drops what is no call.
    _cohere("x<|END_THINKING|><|START_ACTION|>[!!!]<|END_ACTION|>", "[!!!]", "x", malformed=True),
    _cohere("plan<|END_THINKING|><|START_RESPONSE|>Hello there<|END_RESPONSE|>", "Hello there", "plan"),
    _cohere("x<|END_THINKING|><|TOOL_PLAN|>I should call the tool.", "<|TOOL_PLAN|>I should call the tool.", "x"),
    _cohere("t<|END_THINKING|><|START_TEXT|>hi<|END_TEXT|><|END_OF_TURN_TOKEN|>", "hi", "t"),
    _cohere("t<|END_THINKING|>plain answer<|END_OF_TURN_TOKEN|>", "plain answer", "t"),
    _cohere("<|START_TEXT|>hi <|START_ACTION|>[" + _one("now", "{}"), "hi ", think=False, calls=[("now", {})]),
    _cohere("<|START_ACTION|>[" + _one("now", "{}")[:-2], _one("now", "{}")[:-2], think=False, malformed=True),
    _cohere("<|START_THI", "<|START_THI", think=False),
    _cohere("<|START_TE", "", "<|START_TE"),
    _cohere("hm<|END_THINKING|>\n<|START_TE", "<|START_TE", "hm"),
    _cohere("hm<|END_THINKING|>", "", "hm", prompt="…<|START_THINKING|>"),
]  # fmt: skip
SAMPLES = representative(VECTORS)
PAIRS = [
    Pair(renderer="cohere", parser="cohere", opening="<|CHATBOT_TOKEN|>", closing="<|END_OF_TURN_TOKEN|>", keeps_thinking=True, keeps_content=False),
]  # fmt: skip
