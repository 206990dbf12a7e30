"""Read GGUF headers in the daemon: bounded, checked, pure Python.

`reader` turns a file into a `Header`, `facts` turns a header into what the store and the scheduler want to know.
Tensor data is never touched here; weights are opened by worker processes only.
"""

from olm.gguf.facts import ModelFacts, facts_of, kv_json
from olm.gguf.reader import read_header
from olm.gguf.types import Array, Header, Tensor

__all__ = ["Array", "Header", "ModelFacts", "Tensor", "facts_of", "kv_json", "read_header"]
