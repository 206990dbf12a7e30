"""Owners of what C allocates: models, and the raw handles of chats and engines.

Each is a context manager with an idempotent `close()`. A handle that is collected while still open is freed all the
same, and says so in the log: that is a leak in the caller. The C side counts references, so any order of closing is safe.
"""

from __future__ import annotations

import array
import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from olm.native import lib as native
from olm.native.lib import Pointer, check, ffi, lib, new_int, new_pointer, take_text

__all__ = ["Device", "Handle", "LoadState", "Model", "ModelInfo", "devices", "initialize"]

_log = logging.getLogger(__name__)


class Handle:
    """One pointer that C allocated, freed once."""

    def __init__(self, pointer: Pointer, free: Callable[[Pointer], None], what: str) -> None:
        def collect(lost: Pointer) -> None:
            _log.warning("%s was not closed; freed by the garbage collector", what)
            free(lost)

        self._free = free
        self._what = what
        self._pointer: Pointer | None = ffi.gc(pointer, collect)

    @property
    def pointer(self) -> Pointer:
        """The C pointer, while open."""
        assert self._pointer is not None, f"{self._what} is closed"
        return self._pointer

    @property
    def is_open(self) -> bool:
        """Whether `close` has not been called yet."""
        return self._pointer is not None

    def close(self) -> None:
        """Free it. Closing twice is nothing."""
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            ffi.gc(pointer, None)
            self._free(pointer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Device(msgspec.Struct, frozen=True):
    """A compute device that the loaded backends offer. `type` is cpu, gpu, igpu, accel or meta."""

    name: str
    description: str
    type: str
    backend: str
    device_id: str
    memory_free_bytes: int
    memory_total_bytes: int


def initialize(cpu: Path, plugins: Sequence[Path] = ()) -> None:
    """Load the CPU variant and GPU plug-ins, by absolute path. Once for the process, before any model.

    Raises:
        BackendFailed: one of them does not load.
    """
    native.initialize(
        msgspec.json.encode(
            {
                "cpu": str(cpu),
                "backends": [str(path) for path in plugins],
                "guidance": _guidance_library(),
            }
        )
    )


def _guidance_library() -> str:
    """Find llguidance's compiled library without importing the package (65 ms); empty when it is not installed."""
    spec = importlib.util.find_spec("llguidance")
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        for path in Path(folder).glob("_lib*.so"):
            return str(path)
    return ""


def devices() -> list[Device]:
    """List the devices of the loaded backends."""
    return msgspec.json.decode(take_text(lib.olm_devices_json), type=list[Device])


class LoadState:
    """What a thread that loads and a thread that watches share. Poll `frac`; `cancel` ends the load soon."""

    def __init__(self) -> None:
        self._state = native.new_load_state()

    @property
    def cdata(self) -> object:
        """The C struct, kept alive by this object."""
        return self._state

    @property
    def frac(self) -> float:
        """How much is loaded, 0 to 1."""
        return min(1.0, max(0.0, self._state.progress))

    def cancel(self) -> None:
        """Make the load end with `Cancelled`."""
        self._state.cancel = 1


class ModelInfo(msgspec.Struct, frozen=True):
    """Facts of a loaded model. Token ids that the vocabulary lacks are -1; `pooling` -1 is "not named".

    `can_rank`: it scores texts instead of giving vectors. `rerank_template`: what a ranking model reads, with `{query}` and `{document}`; empty when it has none of its own.
    """

    arch: str
    description: str
    n_params: int
    size_bytes: int
    n_ctx_train: int
    n_embd: int
    n_embd_out: int
    n_layer: int
    n_head: int
    n_head_kv: int
    n_swa: int
    n_vocab: int
    vocab_type: str
    pooling: int
    can_rank: bool
    has_encoder: bool
    has_decoder: bool
    is_recurrent: bool
    is_hybrid: bool
    has_chat_template: bool
    add_bos: bool
    add_eos: bool
    bos: int
    eos: int
    eot: int
    sep: int
    add_sep: bool
    eog: tuple[int, ...]
    n_adapters: int
    rerank_template: str


class Model(Handle):
    """A loaded model. Its methods may be called from any thread."""

    def __init__(self, pointer: Pointer) -> None:
        super().__init__(pointer, lib.olm_model_free, "a model")
        self.info = msgspec.json.decode(
            take_text(lambda out: lib.olm_model_info_json(pointer, out)), type=ModelInfo
        )

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        adapters: Sequence[tuple[str, float]] = (),
        options: Mapping[str, object] | None = None,
        state: LoadState | None = None,
    ) -> Self:
        """Load a GGUF. Blocks, for as long as reading the file takes: call it in a thread.

        Args:
            path: the weights.
            adapters: LoRA files with their scales; they act on everything the model computes.
            options: more of `olm_model_load`'s JSON: n_gpu_layers, main_gpu, use_mmap, vocab_only, check_tensors…
            state: to watch the load and to cancel it.

        Raises:
            ModelLoadFailed: the file is missing, damaged or unsupported; the message is llama.cpp's.
            AdapterFailed: an adapter is, or does not fit.
            Cancelled: `state.cancel()` was called. Nothing stays allocated.
        """
        request = {
            **(options or {}),
            "path": str(path),
            "adapters": [{"path": file, "scale": scale} for file, scale in adapters],
        }
        out = new_pointer("olm_model **")
        shared = ffi.NULL if state is None else state.cdata
        check(lib.olm_model_load(msgspec.json.encode(request), shared, out))
        return cls(out[0])

    def meta(self) -> dict[str, str]:
        """Return the file's scalar metadata as text."""
        text = take_text(lambda out: lib.olm_model_meta_json(self.pointer, out))
        return msgspec.json.decode(text, type=dict[str, str])

    def tokenize(
        self, text: str, *, add_special: bool = True, parse_special: bool = True
    ) -> list[int]:
        """Turn text into token ids: about 1 M tokens/s, so long texts belong in a thread.

        Args:
            add_special: put the tokens around it that the vocabulary asks for (BOS, EOS).
            parse_special: recognise special tokens written in the text.
        """
        data = text.encode("utf-8", "replace")
        out, n_out = new_pointer("int32_t **"), new_int("size_t *")
        check(
            lib.olm_tokenize(self.pointer, data, len(data), add_special, parse_special, out, n_out)
        )
        try:
            return ffi.unpack(out[0], n_out[0])
        finally:
            lib.olm_free(out[0])

    def detokenize(self, tokens: Sequence[int], *, special: bool = True) -> bytes:
        """Turn token ids into the bytes they stand for, which need not be whole UTF-8.

        Raises:
            InvalidArgument: a token is not in the vocabulary.
        """
        ids = array.array("i", tokens)  # held until the call returns
        out, n_out = new_pointer("char **"), new_int("size_t *")
        check(
            lib.olm_detokenize(
                self.pointer, ffi.from_buffer("int32_t[]", ids), len(ids), special, out, n_out
            )
        )
        try:
            return bytes(ffi.buffer(out[0], n_out[0]))
        finally:
            lib.olm_free(out[0])
