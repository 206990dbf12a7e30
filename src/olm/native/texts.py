"""The part of the worker that answers about text: prompts rendered and counted, tokens, bytes. The engine has no part in it."""

from __future__ import annotations

from functools import partial

from olm.actors.runtime import Reply, handles
from olm.chat.types import Prompt, TextPrompt
from olm.native import wire
from olm.native.holding import ModelHolder
from olm.native.prompting import Prepared, Template, check_given, count_tokens, prepare

__all__ = ["TextHandlers"]

_TOKEN_BYTES = 16
"""What a token counts for where bytes are made of tokens: looking one up takes about as long as tokenizing so much text."""


class TextHandlers(ModelHolder):
    """Handlers of `wire.Render`, `CountTokens`, `Tokenize`, `Detokenize` and `Pieces`."""

    @handles(wire.Render)
    def render(self, msg: wire.Render, reply: Reply[str]) -> None:
        """See `wire.Render`."""
        self.nursery.start_soon(reply.run, self._render, msg)

    async def _render(self, msg: wire.Render) -> str:
        if isinstance(msg.prompt, TextPrompt):
            return msg.prompt.text
        if not msg.truncate:
            template, size_bytes = self._template(msg.prompt)
            return await self._work(size_bytes, partial(_whole_text, msg.prompt, template))
        rendered = (await self._prepare(wire.Turn(prompt=msg.prompt))).rendered
        assert rendered is not None, "only bare text is not rendered"
        return rendered.text

    @handles(wire.CountTokens)
    def count_tokens(self, msg: wire.CountTokens, reply: Reply[int]) -> None:
        """See `wire.CountTokens`."""
        template, size_bytes = self._template(msg.prompt)
        count = partial(count_tokens, msg.prompt, tokenizer=self._model(), template=template)
        self.nursery.start_soon(reply.run, self._work, size_bytes, count)

    @handles(wire.Tokenize)
    def tokenize(self, msg: wire.Tokenize, reply: Reply[tuple[int, ...]]) -> None:
        """See `wire.Tokenize`."""
        model = self._model().model

        def work() -> tuple[int, ...]:
            return tuple(
                model.tokenize(
                    msg.text, add_special=msg.add_special, parse_special=msg.parse_special
                )
            )

        self.nursery.start_soon(reply.run, self._work, len(msg.text), work)

    @handles(wire.Detokenize)
    def detokenize(self, msg: wire.Detokenize, reply: Reply[str]) -> None:
        """See `wire.Detokenize`."""
        model = self._model().model

        def work() -> str:
            check_given(msg.tokens, model.info.n_vocab)
            return model.detokenize(msg.tokens).decode(errors="replace")

        self.nursery.start_soon(reply.run, self._work, len(msg.tokens) * _TOKEN_BYTES, work)

    @handles(wire.Pieces)
    def pieces(self, msg: wire.Pieces, reply: Reply[tuple[bytes, ...]]) -> None:
        """See `wire.Pieces`."""
        model = self._model().model

        def work() -> tuple[bytes, ...]:
            check_given(msg.tokens, model.info.n_vocab)
            return tuple(model.detokenize((token,)) for token in msg.tokens)

        self.nursery.start_soon(reply.run, self._work, len(msg.tokens) * _TOKEN_BYTES, work)

    async def _prepare(self, msg: wire.Turn) -> Prepared:
        """Render and tokenize what a turn begins with."""
        loaded = self._model()
        template, size_bytes = self._template(msg.prompt)
        make = partial(prepare, msg, n_ctx=loaded.n_ctx, tokenizer=loaded, template=template)
        return await self._work(size_bytes, make)


def _whole_text(prompt: Prompt, template: Template) -> str:
    assert not isinstance(prompt, TextPrompt), "bare text is not rendered"
    return template.render(prompt).text
