"""A model in the worker with all that belongs to it: weights, engine, chat template. Opened and closed as one.

What is done with it is `worker`'s business. Errors leave as those of `olm.errors`, for the daemon knows no others.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

import attrs

from olm.chat.rendering import Rendered
from olm.chat.types import ChatPrompt, InfillPrompt
from olm.chat.ways import render
from olm.errors import NativeError, OlmError
from olm.native import wire
from olm.native.chat import ChatTemplate
from olm.native.engine import Engine, EngineOptions
from olm.native.handles import LoadState, Model

__all__ = [
    "LoadedModel",
    "new_call_id",
    "open_model",
    "portable",
    "portable_errors",
    "template_caps",
]

_ID_CHARS: Final = string.ascii_lowercase + string.digits
_random = random.SystemRandom()

_FLASH: Final[dict[bool | None, Literal["auto", "on", "off"]]] = {
    None: "auto",
    True: "on",
    False: "off",
}


def new_call_id() -> str:
    """Make the id of a tool call, as Ollama does: `call_` and eight of a-z0-9."""
    return "call_" + "".join(_random.choices(_ID_CHARS, k=8))


@attrs.define
class LoadedModel:
    """A model with what belongs to it. Closed in reverse order."""

    model: Model
    engine: Engine
    n_ctx: int
    chat: ChatTemplate | None = None

    # -- the seams of `prompting` --------------------------------------------------------------------

    @property
    def add_bos(self) -> bool:
        return self.model.info.add_bos

    @property
    def add_eos(self) -> bool:
        return self.model.info.add_eos

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return self.model.tokenize(text, add_special=add_special, parse_special=parse_special)

    def render(self, prompt: ChatPrompt | InfillPrompt) -> Rendered:
        return render(prompt, jinja=self._jinja, new_id=new_call_id)

    def _jinja(self, prompt: ChatPrompt) -> Rendered:
        return self.template().render(prompt, new_id=new_call_id)

    def template(self) -> ChatTemplate:
        if self.chat is None:
            self.chat = ChatTemplate(self.model)
        return self.chat

    def close(self) -> None:
        self.engine.close()
        if self.chat is not None:
            self.chat.close()
        self.model.close()


def open_model(msg: wire.Load, state: LoadState) -> LoadedModel:
    options = msg.options
    chosen = {
        "n_gpu_layers": options.n_gpu_layers,
        "main_gpu": options.main_gpu,
        "use_mmap": options.use_mmap,
    }
    model = Model.load(
        msg.path,
        adapters=msg.adapters,
        options={key: value for key, value in chosen.items() if value is not None},
        state=state,
    )
    try:
        engine = Engine(model, _engine_options(msg))
    except BaseException:
        model.close()
        raise
    return LoadedModel(model, engine, engine.stats().n_ctx)


def _engine_options(msg: wire.Load) -> EngineOptions:
    defaults = EngineOptions()
    n_batch = msg.options.n_batch or defaults.n_batch
    return EngineOptions(
        n_ctx=msg.options.n_ctx or 0,
        n_parallel=msg.n_parallel,
        n_batch=n_batch,
        n_ubatch=min(n_batch, defaults.n_ubatch),
        n_threads=msg.n_threads,
        type_k=msg.kv_cache_type,
        type_v=msg.kv_cache_type,
        flash_attn=_FLASH[msg.flash_attention],
        kv_unified=msg.kv_unified,
    )


def template_caps(loaded: LoadedModel) -> tuple[str, ...]:
    """Ask the model's own template; one that does not parse can do nothing, and each chat will say why."""
    if not loaded.model.info.has_chat_template:
        return ()
    try:
        caps = loaded.template().caps()
    except OlmError:
        return ()
    tools = ("tools",) if caps.caps.get("supports_tools") else ()
    return (*tools, "thinking") if caps.supports_thinking else tools


@contextmanager
def portable_errors() -> Iterator[None]:
    """Turn errors of `native.lib` into those of `olm.errors`: the daemon knows no others by name."""
    try:
        yield
    except OlmError as exc:
        raise portable(exc) from exc


def portable(exc: OlmError) -> OlmError:
    """Make the same error of the nearest class in `olm.errors`, what it means before where it comes from."""
    known = [cls for cls in type(exc).__mro__ if cls.__module__ == OlmError.__module__]
    meaning = [cls for cls in known if cls not in (NativeError, OlmError)]
    cls = (meaning or known)[0]
    assert issubclass(cls, OlmError), "the module holds nothing else"
    return cls(exc.message, **exc.details)
