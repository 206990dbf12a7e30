"""What `create` decides: which file is what, which layers the new model has, and its config. Pure.

Rules and error texts are Ollama's (`server/create.go`, commit fb30760; spec/ollama §1.16). Reading headers, writing
blobs and the order of statuses are `olm.actors.create`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

import attrs
import msgspec

from olm.chat.adapters import adapter_scales
from olm.chat.options import adapters as chosen_adapters
from olm.chat.options import coerce_options
from olm.chat.types import ChatMessage
from olm.errors import GgufError, InvalidName, InvalidRequest
from olm.gguf import ModelFacts
from olm.store.create_info import check_info, with_info
from olm.store.manifests import (
    ADAPTER,
    DRAFT,
    LICENSE,
    MESSAGES,
    MODEL,
    PARAMS,
    PROJECTOR,
    PROMPT,
    SYSTEM,
    TEMPLATE,
    Draft,
    ImageConfig,
    Layer,
)
from olm.store.messages import encode_messages
from olm.store.names import Digest
from olm.store.splits import Source, SplitSet

__all__ = [
    "Base",
    "Detected",
    "Habits",
    "Text",
    "Wishes",
    "check_files",
    "check_link_names",
    "config_of",
    "draft_layers",
    "file_layers",
    "habits_of",
    "has_template",
    "plan_layers",
]

_SPLIT_REQUIRES: Final = "0.35.0"
"""The first Ollama that runs weights in several layers (`server/split_gguf.go`)."""
_SEMVER: Final = re.compile(r"v?\d+\.\d+\.\d+([-+].*)?")


@attrs.frozen
class Base:
    """The model that `from` names: the layers and the config to inherit, its parameters decoded."""

    name: str
    layers: Sequence[Layer]
    config: ImageConfig
    parameters: Mapping[str, object]


@attrs.frozen(kw_only=True)
class Wishes:
    """The parts of a create request that become small layers and config fields; empty means inherit."""

    template: str = ""
    system: str = ""
    licenses: Sequence[str] = ()
    parameters: Mapping[str, object] = attrs.field(factory=dict)
    messages: Sequence[ChatMessage] = ()
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    info: Mapping[str, object] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        """Check what can be checked early. Raises InvalidOption, InvalidRequest."""
        coerce_options(self.parameters)
        check_info(self.info)
        if self.requires and not _SEMVER.fullmatch(self.requires):
            raise InvalidRequest("requires must be a valid semver (e.g. 0.14.0)")


@attrs.frozen
class Text:
    """A small layer that is not stored yet. `status`: what is reported of it instead of its digest."""

    media_type: str
    data: bytes
    status: str = ""


@attrs.frozen
class Detected:
    """A built-in template that stands for the one in the GGUF."""

    name: str
    text: str
    stops: tuple[str, ...]


@attrs.frozen
class Habits:
    """What models of an architecture are made with when nobody says otherwise: renderer, parser, stop strings."""

    renderer: str = ""
    parser: str = ""
    stops: tuple[str, ...] = ()


def check_files(files: Mapping[str, str]) -> dict[str, Digest]:
    """Check the names and digests of uploaded files.

    Raises:
        InvalidRequest: `file path must be relative`.
        InvalidName: `invalid digest format`.
    """
    checked: dict[str, Digest] = {}
    for path, digest in files.items():
        _check_name(path)
        try:
            checked[path] = Digest.parse(digest)
        except InvalidName as exc:
            raise InvalidName("invalid digest format") from exc
    return checked


def check_link_names(links: Mapping[str, str], files: Sequence[str]) -> None:
    """Check the names of files that are to be run in place, as those of uploads. Their paths are the disk's affair.

    Raises:
        InvalidRequest: `file path must be relative`, or a name that an upload has, too.
    """
    for name in links:
        _check_name(name)
        if name in files:
            raise InvalidRequest(f"{name} is both uploaded and linked")


def _check_name(path: str) -> None:
    parts = path.split("/")
    if not path or "\\" in path or "\0" in path or any(p in ("", ".", "..") for p in parts):
        raise InvalidRequest("file path must be relative")


def file_layers(files: Sequence[Source | SplitSet], *, adapters: bool) -> list[Layer]:
    """Sort read GGUF files into layers by what their headers say they are. Parts that stay split have their names.

    Args:
        adapters: they came as adapters, and must be.

    Raises:
        GgufError: an adapter that is none; a file without an architecture or without tensors.
        InvalidRequest: two text models.
    """
    layers: list[Layer] = []
    n_models = 0
    for file in files:
        parts = file.parts if isinstance(file, SplitSet) else (file,)
        media_type = _media_type(parts[0].name, file.facts, adapters=adapters)
        n_models += media_type == MODEL
        for part in parts:
            name = part.name if len(parts) > 1 else ""
            name = _adapter_name(part.name) if media_type == ADAPTER else name
            layers.append(Layer(media_type, str(part.digest), part.size, name=name))
    if n_models > 1:
        raise InvalidRequest("only one model can be created from: found several GGUF models")
    return layers


def draft_layers(files: Sequence[Source | SplitSet]) -> list[Layer]:
    """The layer of a draft model; of a checkpoint with a projector the language model alone.

    Raises:
        InvalidRequest: not one model.
    """
    models = [file for file in files if file.facts.kind == "model"]
    if len(models) != 1 or isinstance(models[0], SplitSet):
        raise InvalidRequest(f"DRAFT needs one model in one file, found {len(models)}")
    return [Layer(DRAFT, str(models[0].digest), models[0].size)]


def _media_type(name: str, facts: ModelFacts, *, adapters: bool) -> str:
    if not facts.architecture:
        raise GgufError(f"{name}: GGUF key 'general.architecture' is missing or no text")
    if not facts.parameter_count:
        raise GgufError(f"{name}: GGUF file has no tensors, only a header")
    if adapters and facts.kind != "adapter":
        raise GgufError(f"{name} is not an adapter: its GGUF header says it is a {facts.kind}")
    return {"adapter": ADAPTER, "projector": PROJECTOR}.get(facts.kind, MODEL)


def _adapter_name(path: str) -> str:
    """What requests call an adapter: its file's name, or its folder's where the file is called as everybody's is."""
    file = PurePosixPath(path)
    is_usual = file.stem.lower() in ("adapter", "adapter_model", "adapters")
    return file.parent.name if is_usual and file.parent.name else file.stem


def _with_adapters(kept: Sequence[Layer], files: Sequence[Layer]) -> list[Layer]:
    """Layers to keep without those adapters that new ones replace: of the same name, or the same.

    Raises:
        InvalidRequest: two of the new ones have one name.
    """
    new = [layer for layer in files if layer.media_type == ADAPTER]
    names = [layer.name for layer in new]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidRequest(f"two adapters are called {twice!r}: rename one of the files")
    digests = [layer.digest for layer in new]
    return [
        layer
        for layer in kept
        if layer.media_type != ADAPTER or not (layer.name in names or layer.digest in digests)
    ]


def _check_adapters(layers: Sequence[Layer], parameters: Mapping[str, object]) -> None:
    """Refuse a parameter that names an adapter which the model will not have. Raises InvalidOption."""
    names = [layer.name for layer in layers if layer.media_type == ADAPTER]
    adapter_scales(chosen_adapters(coerce_options(parameters)), names)


def has_template(base: Base | None, wishes: Wishes) -> bool:
    """Whether the new model has a template layer: its own, or one that it inherits."""
    inherited = base.layers if base else ()
    return bool(wishes.template) or any(
        layer.media_type in (TEMPLATE, PROMPT) for layer in inherited
    )


def habits_of(weights: ModelFacts | None, base: Base | None, wishes: Wishes) -> Habits:
    """Say what new weights bring with them by their architecture (spec/ollama §1.16).

    Nothing when the request or the base names a renderer or parser, or when the request has a template of its own.
    """
    config = base.config if base else ImageConfig()
    named = (wishes.renderer, wishes.parser, wishes.template, config.renderer, config.parser)
    if weights is None or any(named):
        return Habits()
    match weights.architecture:
        case "gemma4":
            return Habits("gemma4", "gemma4", ("<turn|>",))
        case "laguna":
            return Habits("laguna", "laguna")
        case name if name.startswith("nemotron_h"):
            return Habits("nemotron-3-nano", "nemotron-3-nano")
        case _:
            return Habits()


def plan_layers(
    base: Base | None,
    files: Sequence[Layer],
    wishes: Wishes,
    detected: Detected | None = None,
    stops: Sequence[str] = (),
) -> list[Layer | Text]:
    """Put together the layers of the new model: inherited ones, files, then what the request adds or replaces.

    Args:
        detected: the template of a model that would have none.
        stops: stop strings for a model that would have none.

    Raises:
        InvalidRequest, InvalidOption: adapters of one name, or a parameter for one that is not there.
    """
    inherited = [
        Layer(item.media_type, item.digest, item.size, base.name if base else "", item.name)
        for item in (base.layers if base else ())
    ]
    replaced = {layer.media_type for layer in files} & {MODEL, PROJECTOR, DRAFT}
    added: list[Text] = []
    if wishes.template:
        replaced |= {TEMPLATE, PROMPT}
        added.append(Text(TEMPLATE, wishes.template.encode()))
    elif detected is not None:
        status = f"using autodetected template {detected.name}"
        added.append(Text(TEMPLATE, detected.text.encode(), status))
    if wishes.system:
        replaced.add(SYSTEM)
        added.append(Text(SYSTEM, wishes.system.encode()))
    added += [Text(LICENSE, text.encode()) for text in wishes.licenses]
    stops = detected.stops if detected else stops
    if wishes.parameters or stops:
        replaced.add(PARAMS)
        added.append(Text(PARAMS, _params(base, wishes.parameters, stops)))
    if wishes.messages:
        replaced.add(MESSAGES)
        added.append(Text(MESSAGES, encode_messages(wishes.messages)))
    kept = [layer for layer in inherited if layer.media_type not in replaced]
    kept = _with_adapters(kept, files)
    _check_adapters([*kept, *files], {**(base.parameters if base else {}), **wishes.parameters})
    return [*kept, *files, *added]


def _params(base: Base | None, wanted: Mapping[str, object], stops: Sequence[str]) -> bytes:
    """Merge key by key, the request winning; keys in order, as Go writes maps. What olm does not know is inherited.

    `stops` count only where nobody has set any.
    """
    default = {"stop": list(stops)} if stops else {}
    merged = {**default, **(base.parameters if base else {}), **coerce_options(wanted)}
    return msgspec.json.encode(dict(sorted(merged.items())))


def config_of(
    base: Base | None,
    weights: ModelFacts | None,
    projectors: Sequence[ModelFacts],
    wishes: Wishes,
    habits: Habits,
    draft: str = "",
) -> bytes:
    """Write the config blob.

    Args:
        base: whose config is inherited where nothing says otherwise.
        weights: facts of a model file of the request, None when the weights are inherited.
        projectors: facts of its projector files.
        habits: of the weights.
        draft: the architecture of a draft model that comes with the request.
    """
    config = base.config if base else ImageConfig()
    if weights is not None:
        config = msgspec.structs.replace(
            config,
            model_format="gguf",
            model_family=weights.architecture,
            model_families=(weights.architecture,),
            model_type=weights.parameter_size,
            file_type=weights.quantization_level,
            context_length=weights.n_ctx_train,
            embedding_length=weights.n_embd,
        )
    families = dict.fromkeys(
        [*(config.model_families or ()), *(facts.architecture for facts in projectors)]
    )
    if draft:
        config = msgspec.structs.replace(config, draft=Draft("gguf", draft))
    config = with_info(
        msgspec.structs.replace(config, model_families=tuple(families) or None), wishes.info
    )
    return msgspec.json.encode(
        msgspec.structs.replace(
            config,
            renderer=wishes.renderer or config.renderer or habits.renderer,
            parser=wishes.parser or config.parser or habits.parser,
            requires=wishes.requires.removeprefix("v")
            or config.requires
            or (_SPLIT_REQUIRES if weights is not None and weights.n_splits > 1 else ""),
            architecture="amd64",
            os="linux",
        )
    )
