"""Whether llama.cpp can load what is about to be written: asked with the header alone, before hours of work.

It knows which tensors each architecture needs and of which shapes; asking it is what keeps that knowledge in one place. No
weights are read: the file is a header with a hole behind it, and the load is ended where reading would begin.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from olm.convert.model_file import ModelFile
from olm.convert.writer import write_header
from olm.errors import CheckpointError
from olm.native.devices import choose_cpu_variant
from olm.native.handles import LoadState, Model, initialize
from olm.native.lib import Cancelled, ModelLoadFailed

__all__ = ["verify"]

# Nothing is mapped, for mapping touches each page; room for the weights is asked for and never used.
_OPTIONS: Final = {"n_gpu_layers": 0, "use_mmap": False, "use_extra_bufts": False}
# A model larger than memory may be made here and run elsewhere.
_NO_MEMORY: Final = "allocate"
_AROUND: Final = ("error loading model: ", "check_tensor_dims: ")
_AFTER: Final = "; failed to load model"


def verify(file: ModelFile, path: Path) -> None:
    """Have llama.cpp look at the header of `file`, which is written to `path` and may be overwritten afterwards. Blocking.

    Raises:
        CheckpointError: it would not load the model: a tensor is missing or has another shape than the metadata
            says; the message is llama.cpp's, which names the tensor as the GGUF does.
        DiskFull, StoreError: the disk said no.
    """
    write_header(file, path)
    initialize(choose_cpu_variant().path)
    probe = _Probe()
    with suppress(Cancelled):
        Model.load(path, options=_OPTIONS, state=probe).close()
    if probe.is_through:
        return
    try:  # once more, and now it says why; it ends where it ended before
        Model.load(path, options=_OPTIONS).close()
    except ModelLoadFailed as exc:
        if _NO_MEMORY not in exc.message:
            raise CheckpointError(_error(exc.message)) from exc


class _Probe(LoadState):
    """Ends a load where the weights would be read, and knows whether it came so far."""

    def __init__(self) -> None:
        super().__init__()
        self._state.progress = -1.0  # the engine writes 0 when it begins to read
        self.cancel()

    @property
    def is_through(self) -> bool:
        return bool(self._state.progress >= 0.0)


def _error(message: str) -> str:
    words = message.removesuffix(_AFTER)
    for prefix in _AROUND:
        words = words.removeprefix(prefix)
    return f"config.json and the weights do not fit together: {words}"
