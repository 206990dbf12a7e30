"""Values that tests of the model side share: stored models and a memory that is counted, not measured."""

from __future__ import annotations

from pathlib import Path

import attrs

from olm.actors.client import ModelDetails, StoredModel

__all__ = ["MIB", "FakeMemory", "stored_model"]

MIB = 1 << 20


def stored_model(
    name: str = "m:latest",
    *,
    weights: str = "",
    size_bytes: int = 100 * MIB,
    kv_bytes_per_token: int = 1024,
    n_ctx_train: int = 8192,
    capabilities: tuple[str, ...] = ("completion",),
    **fields: object,
) -> StoredModel:
    """Make a stored model; `weights` defaults to a path named after the model."""
    model = StoredModel(
        name=name,
        full_name=f"registry.ollama.ai/library/{name}",
        digest="d" * 64,
        size_bytes=size_bytes,
        modified_ns=0,
        details=ModelDetails(format="gguf", family="llama"),
        capabilities=capabilities,
        weights=Path(weights or f"/blobs/{name}"),
        weights_digest="sha256:" + "d" * 64,
        has_chat_template=True,
        architecture="llama",
        n_ctx_train=n_ctx_train,
        kv_bytes_per_token=kv_bytes_per_token,
    )
    return attrs.evolve(model, **fields)  # type: ignore[arg-type]  # names and types are the test's business


@attrs.define
class FakeMemory:
    """Memory of a made-up machine; `used` maps process ids to what they took of it."""

    total_bytes: int = 1 << 40
    used: dict[int, int] = attrs.field(factory=dict)

    def available_bytes(self) -> int:
        return max(self.total_bytes - sum(self.used.values()), 0)

    def anonymous_bytes(self, pid: int) -> int:
        return self.used.get(pid, 0)
