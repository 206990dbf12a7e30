"""From a prepared turn to the engine's request: stop strings, visible tokens, grammar, thinking. Pure.

What a grammar is made of is decided in `olm.chat.constraints`; compiling it is the engine's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs
import msgspec

from olm.chat.constraints import answer_grammar
from olm.chat.grammar import AnswerGrammar
from olm.chat.rendering import Rendered, ThinkTags, ToolGrammar
from olm.chat.tools import read_tools
from olm.chat.types import ChatPrompt, Constraint, Sampling
from olm.errors import InvalidRequest
from olm.native.engine import Engine, ThinkingLimits
from olm.native.prompting import Prepared
from olm.native.wire import Turn

__all__ = ["EngineRequest", "engine_request", "grammar_size_bytes"]

_MAX_GRAMMAR_CHARS: Final = 1 << 16
"""Longest grammar of a request in Lark or GBNF. Compiling one costs up to the square of its length (100 000 alternatives in
800 kB: 46 s), and those of other requests wait for it; grammars of whole programming languages have 20 kB."""

_MAX_TOOLS_CHARS: Final = 1 << 18
"""Longest grammar of tools; 200 real ones come to some 100 kB. With more, calls are read but not held to their schemas."""

_GBNF_BYTES: Final = 1 << 16
"""What GBNF counts for: it is translated by slow code that is imported when it is first needed."""


@attrs.frozen(kw_only=True)
class EngineRequest:
    """What `Engine.submit` is called with."""

    tokens: Sequence[int]
    sampling: Sampling
    shift: bool
    preserved_tokens: tuple[str, ...] = ()
    constraint: AnswerGrammar | None = None
    thinking: ThinkingLimits | None = None
    adapters: tuple[float, ...] | None = None

    def submit(self, engine: Engine) -> int:
        """Queue it; returns the request's number. Raises what `Engine.submit` raises."""
        return engine.submit(
            self.tokens,
            self.sampling,
            shift=self.shift,
            preserved_tokens=self.preserved_tokens,
            constraint=self.constraint,
            thinking=self.thinking,
            adapters=self.adapters,
        )


def engine_request(turn: Turn, prepared: Prepared) -> EngineRequest:
    """Lay out the engine's request.

    Raises:
        InvalidRequest: the form or the tools that the turn asks for cannot be.
        NotSupported: calls are required of a model whose syntax is not known.
    """
    _check_length(turn.constraint)
    rendered = prepared.rendered
    if rendered is None:
        return EngineRequest(
            tokens=prepared.tokens,
            sampling=turn.sampling,
            shift=turn.shift,
            constraint=answer_grammar(turn.constraint),
            adapters=turn.adapters,
        )
    stops = (*turn.sampling.stop, *rendered.stops)
    return EngineRequest(
        tokens=prepared.tokens,
        sampling=msgspec.structs.replace(turn.sampling, stop=stops),
        shift=turn.shift,
        preserved_tokens=rendered.preserved_tokens,
        constraint=_grammar(turn, rendered),
        thinking=_limits(rendered.think, turn.sampling.think_budget),
        adapters=turn.adapters,
    )


def grammar_size_bytes(turn: Turn, prepared: Prepared) -> int:
    """Measure roughly what a grammar is made from; decides whether `engine_request` runs in a thread."""
    wanted, rendered = turn.constraint, prepared.rendered
    n_chars = 0 if wanted is None else len(wanted.text)
    if isinstance(turn.prompt, ChatPrompt):
        n_chars += len(turn.prompt.tools_json)
    is_gbnf = wanted is not None and wanted.kind == "gbnf"
    if is_gbnf or (rendered is not None and isinstance(rendered.calls, ToolGrammar)):
        n_chars += _GBNF_BYTES
    return n_chars


def _grammar(turn: Turn, rendered: Rendered) -> AnswerGrammar | None:
    prompt = turn.prompt
    if not (isinstance(prompt, ChatPrompt) and prompt.tools_json):
        return answer_grammar(turn.constraint, headers=rendered.content_headers)
    grammar = answer_grammar(
        turn.constraint,
        calls=rendered.calls,
        tools=read_tools(prompt.tools_json),
        choice=prompt.tool_choice,
        parallel=prompt.parallel_tool_calls,
        headers=rendered.content_headers,
    )
    # Nobody asked for this one: where calls only may come, the request does not fail because of it.
    if grammar is not None and grammar.triggers and len(grammar.text) > _MAX_TOOLS_CHARS:
        return None
    return grammar


def _check_length(wanted: Constraint | None) -> None:
    if wanted is None or wanted.kind not in ("lark", "gbnf"):
        return
    n_chars = len(wanted.text)
    if n_chars > _MAX_GRAMMAR_CHARS:
        raise InvalidRequest(
            f"the grammar has {n_chars} characters, at most {_MAX_GRAMMAR_CHARS} are allowed"
        )


def _limits(tags: ThinkTags | None, budget: int) -> ThinkingLimits | None:
    if tags is None:
        return None
    return ThinkingLimits(start=tags.start, ends=tags.ends, is_open=tags.is_open, budget=budget)
