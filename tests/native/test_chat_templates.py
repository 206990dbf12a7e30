"""Every template of the llama.cpp tree renders the standard conversation, and remembering changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import msgspec
import pytest
from jinja_kit import CONVERSATIONS, NO_TEMPLATES, TEMPLATES, TOOLS_JSON, source
from llguidance import LLMatcher, LLTokenizer

from olm.chat.constraints import answer_grammar
from olm.chat.tools import read_tools
from olm.chat.types import Constraint
from olm.native.chat import ChatTemplate
from olm.native.handles import Model
from olm.native.lib import ChatTemplateFailed

pytestmark = [pytest.mark.native, pytest.mark.skipif(not TEMPLATES, reason=NO_TEMPLATES)]

REFUSED = {
    "google-gemma-2-2b-it": {
        "result": "Conversation roles must alternate",
        "after": "Conversation roles must alternate",
    },
    # It looks items up in a parameter without properties, as Python allows and llama.cpp's interpreter does not.
    "CohereForAI-c4ai-command-r-plus-tool_use": dict.fromkeys(
        ("tools", "result", "after"), "Function has no builtins"
    ),
}
"""Templates that fail for a form of the conversation, and what they say."""

SILENT_ON = {
    "llama-cpp-rwkv-world": "result",  # knows no roles but user, assistant and system
    "microsoft-Phi-3.5-mini-instruct": "result",  # the same
}
"""Templates that leave the last message of a form away."""


KEPT = ("system", "thoughts", "after")
"""Forms for which what an earlier one came to is used again; for the others the library is asked, and compared with."""


@pytest.fixture(params=TEMPLATES)
def named(tiny: Model, request: pytest.FixtureRequest) -> Iterator[tuple[str, ChatTemplate]]:
    with ExitStack() as stack:
        yield request.param, stack.enter_context(ChatTemplate(tiny, source(request.param)))


def test_a_template_renders_the_standard_conversation_as_the_library_does(
    named: tuple[str, ChatTemplate],
) -> None:
    name, chat = named

    for form, prompt in CONVERSATIONS.items():
        refused = REFUSED.get(name, {}).get(form)
        if refused:
            with pytest.raises(ChatTemplateFailed, match=f"line .*{refused}"):
                chat.apply(prompt)
            continue
        applied = chat.apply(prompt)
        assert (prompt.messages[-1].content in applied.prompt) == (SILENT_ON.get(name) != form)
        assert not applied.is_plain, f"{form}: our own rendering is not the library's"
        if form in KEPT:
            assert applied == chat.apply(prompt, fresh=True), f"{form}: what was kept does not fit"


@pytest.mark.parametrize("name", [name for name in TEMPLATES if "command-r-plus" not in name])
@pytest.mark.slow
def test_beside_a_form_calls_are_calls_and_never_nothing(tiny: Model, name: str) -> None:
    form = Constraint("json_schema", '{"enum":["yes"]}')
    prompt = msgspec.structs.replace(CONVERSATIONS["tools"], has_form=True)
    with ChatTemplate(tiny, source(name)) as chat:
        calls = chat.render(prompt, new_id=str).calls
    if calls is None:
        return  # the form alone holds

    grammar = answer_grammar(form, calls=calls, tools=read_tools(TOOLS_JSON))

    assert grammar is not None
    text = grammar.text
    matcher = LLMatcher(
        LLTokenizer("byte"),
        text if grammar.kind == "llguidance" else LLMatcher.grammar_from_lark(text),
    )
    assert not matcher.is_error()
    assert not matcher.is_accepting()
    assert matcher.try_consume_tokens(list(b"\n\n\n\n")) < 4, "blanks without end"


def test_there_is_no_reason_given_for_what_is_not_there() -> None:
    assert {*REFUSED, *SILENT_ON} <= set(TEMPLATES)
