"""The part of the worker that answers with numbers: embeddings of texts, scores of documents."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from struct import unpack

from olm.actors.runtime import Reply, handles
from olm.errors import InvalidRequest, NotSupported
from olm.native import engine as native
from olm.native import wire
from olm.native.answers import EmbeddingAnswer
from olm.native.holding import ModelHolder
from olm.native.loaded import portable_errors
from olm.native.prompting import check_given, check_tokenizer, fit_inputs
from olm.native.ranking import rank_inputs

__all__ = ["VectorHandlers"]


class VectorHandlers(ModelHolder):
    """Handlers of `wire.Embed` and `wire.Rerank`."""

    @handles(wire.Embed)
    def embed(self, msg: wire.Embed, reply: Reply[wire.Embedded]) -> None:
        """See `wire.Embed`."""
        self.nursery.start_soon(reply.run, self._embed, msg)

    async def _embed(self, msg: wire.Embed) -> wire.Embedded:
        loaded = self._model()
        if loaded.model.info.can_rank:
            raise NotSupported("this model scores documents and gives no embeddings: use rerank")
        for given in msg.inputs:
            if not isinstance(given, str):
                check_given(given, loaded.model.info.n_vocab)
        fit = partial(
            fit_inputs, msg.inputs, n_ctx=loaded.n_ctx, truncate=msg.truncate, tokenizer=loaded
        )
        rows = await self._work(sum(map(len, msg.inputs)), fit)
        embedding = await self._vectors(rows, normalize=msg.normalize, adapters=msg.adapters)
        return wire.Embedded(
            vectors=embedding.vectors,
            n_embd=embedding.n_embd,
            n_tokens=tuple(len(row) for row in rows),
        )

    @handles(wire.Rerank)
    def rerank(self, msg: wire.Rerank, reply: Reply[wire.Ranked]) -> None:
        """See `wire.Rerank`."""
        self.nursery.start_soon(reply.run, self._rerank, msg)

    async def _rerank(self, msg: wire.Rerank) -> wire.Ranked:
        loaded = self._model()
        if not loaded.model.info.can_rank:
            raise NotSupported("this model does not support reranking: it has no ranking head")
        fit = partial(rank_inputs, msg, n_ctx=loaded.n_ctx, model=loaded.model)
        n_chars = len(msg.query) * len(msg.documents) + sum(map(len, msg.documents))
        rows = await self._work(n_chars, fit)
        found = await self._vectors(rows, normalize=False, adapters=msg.adapters)
        values = unpack(f"<{found.n_vectors * found.n_embd}f", found.vectors)
        # A head may have several outputs; llama-server takes the first (server-context.cpp, send_rerank).
        return wire.Ranked(tuple(values[:: found.n_embd]), tuple(len(row) for row in rows))

    async def _vectors(
        self,
        rows: Sequence[Sequence[int]],
        *,
        normalize: bool,
        adapters: tuple[float, ...] | None,
    ) -> native.Embedding:
        """Have the engine compute rows of tokens, and wait for it; leaving early cancels that."""
        loaded = self._model()
        if not all(rows):
            raise InvalidRequest("an input has no tokens: there is nothing to embed")
        for row in rows:
            check_tokenizer(row, loaded.model.info.n_vocab)
        with portable_errors():
            request = loaded.engine.embed(rows, normalize=normalize, adapters=adapters)
        answer = EmbeddingAnswer()
        self._requests[request] = answer.on_event
        try:
            return await answer.wait()
        finally:
            del self._requests[request]
            if not answer.is_done:
                loaded.engine.cancel(request)
