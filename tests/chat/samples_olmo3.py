"""Answers of olmo3 and olmo3-think: vectors of Ollama's `model/parsers/olmo3_test.go`, `olmo3_think_test.go`."""

from __future__ import annotations

from chat.chat_kit import Pair, Sample
from chat.vectors import representative


def _olmo(text: str, content: str = "", **more: object) -> Sample:
    expected: dict[str, object] = {"calls": [], "malformed": False, **more}
    return Sample(parser="olmo3", text=text, content=content, thinking="", **expected)  # type: ignore[arg-type]  # fields by name


def _think(text: str, content: str, thinking: str, prefill: str | None = None) -> Sample:
    return Sample(
        parser="olmo3-think", text=text, content=content, thinking=thinking, prefill=prefill
    )


def _calls(text: str) -> str:
    return f"<function_calls>{text}</function_calls>"


_SF = ("get_weather", {"location": "San Francisco"})

_OLMO = [
    _olmo("Hello, how can I help you?", "Hello, how can I help you?"),
    _olmo(_calls('get_weather(location="San Francisco")'), calls=[_SF]),
    _olmo("Let me check that. " + _calls('get_weather(location="San Francisco")'), "Let me check that. ", calls=[_SF]),
    _olmo(_calls('book_flight(from="SFO", to="NYC", date="2024-01-15")'), calls=[("book_flight", {"from": "SFO", "to": "NYC", "date": "2024-01-15"})]),
    _olmo(_calls('get_weather(location="San Francisco")\nget_weather(location="New York")'), calls=[_SF, ("get_weather", {"location": "New York"})]),
    _olmo(_calls("set_temperature(value=72)"), calls=[("set_temperature", {"value": 72})]),
    _olmo(_calls("set_price(amount=19.99)"), calls=[("set_price", {"amount": 19.99})]),
    _olmo(_calls("toggle_setting(enabled=true)"), calls=[("toggle_setting", {"enabled": True})]),
    _olmo(_calls("clear_value(field=null)"), calls=[("clear_value", {"field": None})]),
    _olmo(_calls('process_items(items=["apple", "banana", "cherry"])'), calls=[("process_items", {"items": ["apple", "banana", "cherry"]})]),
    _olmo(_calls('update_config(settings={"theme": "dark", "fontSize": 14})'), calls=[("update_config", {"settings": {"theme": "dark", "fontSize": 14}})]),
    _olmo(_calls('create_request(data={"user": {"name": "John", "age": 30}, "active": true})'), calls=[("create_request", {"data": {"user": {"name": "John", "age": 30}, "active": True}})]),
    _olmo(_calls("get_current_time()"), calls=[("get_current_time", {})]),
    _olmo(_calls("search(query='hello world')"), calls=[("search", {"query": "hello world"})]),
    _olmo(_calls('search(query="say \\"hello\\"")'), calls=[("search", {"query": 'say "hello"'})]),
    _olmo(_calls('create_user(name="John", age=30, active=true)'), calls=[("create_user", {"name": "John", "age": 30, "active": True})]),
    _olmo(_calls("now()") + "\nand more", "\nand more", calls=[("now", {})]),
    _olmo("a < b <function_call> x", "a < b <function_call> x"),
    # Ollama loses what is not closed, and what it cannot read.
    _olmo('<function_calls>get_weather(location="San Francisco")', calls=[_SF]),
    _olmo("<function_calls>get_weather(location=", "get_weather(location=", malformed=True),
    _olmo(_calls("not a function call"), "not a function call", malformed=True),
    _olmo(_calls('now(a="open)\nnow()') + "!", 'now(a="open)\nnow()!', malformed=True),
    _olmo(_calls("add(1, 2)\nnow()"), "add(1, 2)", malformed=True, calls=[("now", {})]),
]  # fmt: skip

_THINKING = [
    _think("I need to think about this.</think>Here is my response.", "Here is my response.", "I need to think about this."),
    _think("Step.\n\n1. First point\n2. Second point</think>The answer is 42.", "The answer is 42.", "Step.\n\n1. First point\n2. Second point"),
    _think("</think>Just content here.", "Just content here.", ""),
    _think("Continuing from previous content.", "Continuing from previous content.", "", "Previous content"),
    _think("  Some thinking  </think>  Content here  ", "Content here  ", "  Some thinking"),
    _think("Let me go with that response.\n\n</think>\n\nHi! How are you today? 😊", "Hi! How are you today? 😊", "Let me go with that response."),
    _think("I'm thinking <think>nested</think> more thinking</think>Final content.", "more thinking</think>Final content.", "I'm thinking <think>nested"),
    _think("First thinking</think>Content</think>More content.", "Content</think>More content.", "First thinking"),
    _think("Let me think... Option A: $100 Option B: €200</think>I recommend Option A.", "I recommend Option A.", "Let me think... Option A: $100 Option B: €200"),
]  # fmt: skip

VECTORS = [*_OLMO, *_THINKING]
SAMPLES = representative(VECTORS)
PAIRS = [
    Pair(
        renderer=renderer,
        parser="olmo3",
        opening="<|im_start|>assistant\n",
        closing="<|im_end|>",
    )
    for renderer in ("olmo3", "olmo3.1")
]
