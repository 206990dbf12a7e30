"""The seam to the C extension: its functions typed, its error codes turned into exceptions. Nothing else imports it.

Importing this module loads the engine's libraries; the daemon never does. Objects with an owner are in `handles`.
The interface itself, with the JSON each function takes, is described in `native/decl/*.h`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, Protocol, cast

from olm.errors import (
    ContextTooLong,
    InvalidRequest,
    LoadFailed,
    NativeError,
    NotSupported,
    TemplateError,
)

__all__ = [
    "ERRORS",
    "AdapterFailed",
    "BackendFailed",
    "Cancelled",
    "ChatTemplateFailed",
    "ContextFailed",
    "DecodeFailed",
    "DuplicateId",
    "EngineStopped",
    "Ffi",
    "IntPointer",
    "InternalFailure",
    "InvalidArgument",
    "ModelLoadFailed",
    "NativeLib",
    "NoRoom",
    "NotInitialized",
    "OutOfMemory",
    "ParseFailed",
    "Pointer",
    "PromptTooLong",
    "Unsupported",
    "VocabularyFailed",
    "check",
    "ffi",
    "initialize",
    "lib",
    "log_lines",
    "native_error",
    "take_text",
]

_ABI_VERSION: Final = 1


class InvalidArgument(NativeError, InvalidRequest):
    """A value that the engine cannot take: bad JSON, a token outside the vocabulary, a number out of range."""

    status = 400


class NotInitialized(NativeError):
    """No CPU backend is loaded."""


class BackendFailed(NativeError):
    """A backend library could not be loaded."""


class ModelLoadFailed(NativeError, LoadFailed):
    """llama.cpp refused the weights; the message is its own."""


class Cancelled(NativeError):
    """The caller cancelled what was going on."""


class AdapterFailed(NativeError, LoadFailed):
    """A LoRA adapter could not be loaded or does not fit the model."""


class VocabularyFailed(NativeError):
    """The model has no vocabulary, or it cannot write the text."""


class ChatTemplateFailed(NativeError, TemplateError):
    """The chat template failed; the message is its own."""


class ParseFailed(NativeError):
    """Generated text is not what the template's parser expects."""


class ContextFailed(NativeError, LoadFailed):
    """A context could not be made: most often the memory for its cells is not there."""


class PromptTooLong(NativeError, ContextTooLong):
    """The prompt does not fit the context."""

    status = 400


class Unsupported(NativeError, NotSupported):
    """The model cannot do that."""

    status = 400


class DuplicateId(NativeError):
    """A request with this id is still running."""


class NoRoom(NativeError):
    """The request does not fit the context's memory even alone."""


class DecodeFailed(NativeError):
    """A step failed under this request."""


class EngineStopped(NativeError):
    """The engine has stopped after a failure and takes nothing any more."""


class OutOfMemory(NativeError):
    """The host has no memory for it."""


class InternalFailure(NativeError):
    """An unexpected exception inside the engine."""


ERRORS: Final[Mapping[str, type[NativeError]]] = {
    "INVALID_ARGUMENT": InvalidArgument,
    "NOT_INITIALIZED": NotInitialized,
    "BACKEND": BackendFailed,
    "MODEL_LOAD": ModelLoadFailed,
    "CANCELLED": Cancelled,
    "ADAPTER": AdapterFailed,
    "VOCABULARY": VocabularyFailed,
    "TEMPLATE": ChatTemplateFailed,
    "PARSE": ParseFailed,
    "CONTEXT": ContextFailed,
    "PROMPT_TOO_LONG": PromptTooLong,
    "NOT_SUPPORTED": Unsupported,
    "DUPLICATE_ID": DuplicateId,
    "NO_ROOM": NoRoom,
    "DECODE": DecodeFailed,
    "STOPPED": EngineStopped,
    "OUT_OF_MEMORY": OutOfMemory,
    "INTERNAL": InternalFailure,
}
"""Every code of `native/engine/olm_errors.h` but OK."""


class Pointer(Protocol):
    """A cdata pointer. Indexing an out-parameter gives the pointer that C wrote."""

    def __getitem__(self, index: int) -> Pointer: ...


class IntPointer(Protocol):
    """A cdata pointer to integers: an out-parameter, or an array."""

    def __getitem__(self, index: int) -> int: ...


class LoadStatePointer(Protocol):
    """`olm_load_state *`: shared with the loading thread."""

    progress: float
    cancel: int


class NativeLib(Protocol):
    """The C functions. Those that give an int give an error code unless `native/decl` says otherwise."""

    def olm_last_error(self) -> Pointer: ...
    def olm_error_count(self) -> int: ...
    def olm_error_name(self, code: int) -> Pointer: ...
    def olm_abi_version(self) -> int: ...
    def olm_free(self, memory: object) -> None: ...
    def olm_init(self, json: bytes) -> int: ...
    def olm_devices_json(self, out: Pointer) -> int: ...
    def olm_log_json(self, out: Pointer) -> int: ...

    def olm_model_load(self, json: bytes, state: object, out: Pointer) -> int: ...
    def olm_model_free(self, model: Pointer) -> None: ...
    def olm_model_info_json(self, model: Pointer, out: Pointer) -> int: ...
    def olm_model_meta_json(self, model: Pointer, out: Pointer) -> int: ...
    def olm_tokenize(
        self,
        model: Pointer,
        text: bytes,
        n_bytes: int,
        add_special: int,
        parse_special: int,
        tokens: Pointer,
        n_tokens: IntPointer,
    ) -> int: ...
    def olm_detokenize(
        self,
        model: Pointer,
        tokens: object,
        n_tokens: int,
        special: int,
        text: Pointer,
        n_bytes: IntPointer,
    ) -> int: ...

    def olm_chat_new(self, model: Pointer, jinja: object, out: Pointer) -> int: ...
    def olm_chat_free(self, chat: Pointer) -> None: ...
    def olm_chat_caps_json(self, chat: Pointer, out: Pointer) -> int: ...
    def olm_chat_apply(self, chat: Pointer, json: bytes, out: Pointer) -> int: ...
    def olm_chat_parse(
        self, parser: bytes, text: bytes, n_bytes: int, is_partial: int, out: Pointer
    ) -> int: ...

    def olm_engine_new(self, model: Pointer, json: bytes, out: Pointer) -> int: ...
    def olm_engine_free(self, engine: Pointer) -> None: ...
    def olm_engine_submit(
        self, engine: Pointer, request: int, tokens: object, n_tokens: int, json: bytes
    ) -> int: ...
    def olm_engine_embed(
        self,
        engine: Pointer,
        request: int,
        tokens: object,
        offsets: object,
        n_inputs: int,
        json: bytes,
    ) -> int: ...
    def olm_engine_cancel(self, engine: Pointer, request: int) -> int: ...
    def olm_engine_pause(self, engine: Pointer, request: int, paused: int) -> int: ...
    def olm_engine_event_fd(self, engine: Pointer, fd: IntPointer) -> int: ...
    def olm_engine_next_frame(self, engine: Pointer, data: Pointer, size: IntPointer) -> int: ...
    def olm_engine_stats_json(self, engine: Pointer, out: Pointer) -> int: ...

    def olm_rows_convert(
        self,
        from_type: int,
        src: object,
        to_type: int,
        dst: object,
        n_rows: int,
        n_per_row: int,
        imatrix: object,
        cancel: object,
        n_bad: IntPointer,
    ) -> int: ...
    def olm_quantize_types(self, json: bytes, out: Pointer) -> int: ...

    def olm_imatrix_new(self, model: Pointer, json: bytes, cancel: object, out: Pointer) -> int: ...
    def olm_imatrix_free(self, imatrix: Pointer) -> None: ...
    def olm_imatrix_read(self, imatrix: Pointer, tokens: object, n_tokens: int) -> int: ...
    def olm_imatrix_entries_json(self, imatrix: Pointer, out: Pointer) -> int: ...
    def olm_imatrix_entry(
        self, imatrix: Pointer, name: bytes, sums: object, counts: object
    ) -> int: ...

    def olm_test_greedy(
        self,
        model: Pointer,
        tokens: object,
        n_tokens: int,
        n_predict: int,
        n_chunk: int,
        n_threads: int,
        out: Pointer,
        n_out: IntPointer,
    ) -> int: ...
    def olm_test_logits(
        self,
        model: Pointer,
        tokens: object,
        n_tokens: int,
        n_threads: int,
        out: Pointer,
        n_out: IntPointer,
    ) -> int: ...
    def olm_test_quantize(self, json: bytes) -> int: ...
    def olm_test_text(self, json: bytes, out: Pointer) -> int: ...
    def olm_test_sample(
        self, model: Pointer, json: bytes, logits: object, n_logits: int, n: int, out: Pointer
    ) -> int: ...
    def olm_test_fail_decode(self, engine: Pointer, result: int, times: int) -> int: ...
    def olm_test_plan(self, json: bytes, out: Pointer) -> int: ...


_PointerKind = Literal[
    "char **",
    "int32_t **",
    "float **",
    "const uint8_t **",
    "olm_model **",
    "olm_chat **",
    "olm_engine **",
    "olm_imatrix **",
]


class Ffi(Protocol):
    """The part of cffi's FFI object that olm uses."""

    NULL: Pointer

    def new(self, kind: str, init: object = ..., /) -> object: ...
    def string(self, pointer: Pointer, /) -> bytes: ...
    def buffer(self, pointer: Pointer, size: int, /) -> memoryview: ...
    def from_buffer(self, kind: str, data: object, /) -> object: ...
    def unpack(self, pointer: Pointer, length: int, /) -> list[int]: ...
    def gc(self, pointer: Pointer, destructor: Callable[[Pointer], None] | None, /) -> Pointer: ...


def _load() -> tuple[NativeLib, Ffi]:
    try:
        from olm.native import _olm  # type: ignore[attr-defined,unused-ignore]  # an extension, absent before the build
    except ImportError as exc:
        raise NativeError(
            f"the engine is not built or does not load: {exc}; run `python build_native.py build`",
            code="NOT_BUILT",
        ) from exc
    # The extension is generated from native/decl; a test calls every function named here.
    found, its_ffi = cast("NativeLib", _olm.lib), cast("Ffi", _olm.ffi)
    version = found.olm_abi_version()
    if version != _ABI_VERSION:
        raise NativeError(
            f"the engine has interface version {version}, this olm needs {_ABI_VERSION}; "
            "run `python build_native.py build`",
            code="NOT_BUILT",
        )
    return found, its_ffi


lib, ffi = _load()


def new_pointer(kind: _PointerKind) -> Pointer:
    """Make an out-parameter for a pointer; NULL until C writes it."""
    return cast("Pointer", ffi.new(kind))  # cffi makes what `kind` says


def new_int(kind: Literal["size_t *", "int *", "int64_t *"]) -> IntPointer:
    """Make an out-parameter for an integer."""
    return cast("IntPointer", ffi.new(kind))  # cffi makes what `kind` says


def new_load_state() -> LoadStatePointer:
    """Make the struct through which a load tells its progress and is cancelled."""
    return cast("LoadStatePointer", ffi.new("olm_load_state *"))  # cffi makes what the kind says


def native_error(code: int, message: str) -> NativeError:
    """Make the exception for an error code."""
    pointer = lib.olm_error_name(code)
    name = "INTERNAL" if pointer == ffi.NULL else ffi.string(pointer).decode()
    cls = ERRORS.get(name, InternalFailure)
    return cls(message or name.lower().replace("_", " "), code=name)


def check(code: int) -> None:
    """Raise the exception of a failed call. Call it on the thread that made the call."""
    if code:
        raise native_error(code, ffi.string(lib.olm_last_error()).decode("utf-8", "replace"))


def take_text(call: Callable[[Pointer], int]) -> str:
    """Call a function with a `char **` out-parameter, copy the text and free C's."""
    out = new_pointer("char **")
    check(call(out))
    try:
        return ffi.string(out[0]).decode("utf-8", "replace")
    finally:
        lib.olm_free(out[0])


def initialize(json: bytes) -> None:
    """Load backends; see `olm_init` in native/decl/core.h. Blocks for some milliseconds.

    Raises:
        BackendFailed: a library does not load on this machine.
    """
    check(lib.olm_init(json))


def log_lines() -> str:
    """Return llama.cpp's last warnings and errors as a JSON array of {level, text}, oldest first."""
    return take_text(lib.olm_log_json)
