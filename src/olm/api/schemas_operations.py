"""Wire structs of the operators' routes: health, readiness, properties. The first follows llama-server's shape."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["HealthResponse", "LoadedProps", "PropsResponse", "ReadyResponse", "ServerDefaults"]


class HealthResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The process lives and takes requests."""

    status: Literal["ok"] = "ok"


class ReadyResponse(msgspec.Struct, frozen=True, kw_only=True):
    """`silent` names the parts that gave no sign of life in time; ready when there are none."""

    status: Literal["ok", "unavailable"]
    silent: list[str]


class ServerDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for requests that say nothing. Seconds; tokens; `-1` stands for no end."""

    num_ctx: int
    num_parallel: int
    keep_alive_s: float
    max_loaded_models: int
    max_queue: int


class LoadedProps(msgspec.Struct, frozen=True, kw_only=True):
    """A loaded model. `slots_busy` of its `total_slots` are answering; sizes are bytes."""

    name: str
    digest: str
    n_ctx: int
    n_ctx_train: int
    total_slots: int
    slots_busy: int
    size: int
    size_vram: int
    embedding: bool
    chat_template_caps: dict[str, bool]
    cpu_variant: str


class PropsResponse(msgspec.Struct, frozen=True, kw_only=True):
    """llama-server's `/props` for a server of several models: what was about its one model is in `models`."""

    build_info: str
    ollama_version: str
    default_generation_settings: dict[str, object]
    defaults: ServerDefaults
    total_slots: int
    models: list[LoadedProps]
