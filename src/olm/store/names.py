"""Model names and digests: parsing, rules, display. Nothing else may turn a user's text into a path of the store.

The rules are Ollama's (`types/model/name.go`, commit fb30760): `[scheme://][host/][namespace/]model[:tag]`, split
from the right, compared ignoring ASCII case. A name that passed has no `/`, NUL, `..` or leading dot in any part.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final

import attrs

from olm.errors import InvalidName

__all__ = ["DEFAULT_HOST", "DEFAULT_NAMESPACE", "DEFAULT_TAG", "Digest", "ModelName"]

DEFAULT_HOST: Final = "registry.ollama.ai"
DEFAULT_NAMESPACE: Final = "library"
DEFAULT_TAG: Final = "latest"

_HOST: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_MODEL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_HEX: Final = re.compile(r"[0-9a-f]{64}")


def _check_hex(_digest: object, _attribute: object, value: str) -> None:
    if not _HEX.fullmatch(value):
        raise InvalidName("invalid digest format")


@attrs.frozen
class Digest:
    """A SHA-256 digest: 64 lower-case hex digits, checked. Paths of blobs are made from this type only."""

    hex: str = attrs.field(validator=_check_hex)

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `sha256:<hex>`. Raises InvalidName (`invalid digest format`)."""
        prefix, _, value = text.partition(":")
        if prefix != "sha256":
            raise InvalidName("invalid digest format")
        return cls(value)

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """The digest of bytes."""
        return cls(hashlib.sha256(data).hexdigest())

    @property
    def file_name(self) -> str:
        """The blob's file name: a dash, not a colon."""
        return f"sha256-{self.hex}"

    def __str__(self) -> str:
        return f"sha256:{self.hex}"


@attrs.frozen
class ModelName:
    """A fully qualified model name, every part checked. Equality is exact; `same_as` ignores case.

    `scheme` is how its registry is reached; it is no part of the name's identity.
    """

    host: str
    namespace: str
    model: str
    tag: str
    scheme: str = attrs.field(default="https", eq=False)

    def __attrs_post_init__(self) -> None:
        if not (
            _HOST.fullmatch(self.host)
            and _NAMESPACE.fullmatch(self.namespace)
            and _MODEL.fullmatch(self.model)
            and _MODEL.fullmatch(self.tag)
        ):
            raise InvalidName("invalid model name")

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Read a name and fill in the defaults.

        Raises:
            InvalidName: `invalid model name`; a promised part that is empty (`model:`) counts.
        """
        scheme, host, namespace, tag = "https", DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG
        rest = text
        if rest.rfind(":") > rest.rfind(
            "/"
        ):  # a slash cannot be in a tag, a colon can be in a host
            rest, _, tag = rest.rpartition(":")
        rest, has_namespace, model = rest.rpartition("/")
        if has_namespace:
            rest, has_host, namespace = rest.rpartition("/")
            if has_host:
                before, has_scheme, after = rest.partition("://")
                scheme, host = (before, after) if has_scheme else ("https", rest)
        return cls(host, namespace, model, tag, scheme or "https")

    @property
    def shortest(self) -> str:
        """The name as people see it: default host and namespace left out, the tag kept."""
        if self.host.lower() != DEFAULT_HOST:
            return str(self)
        if self.namespace.lower() != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """host, namespace, model, tag: the four path components below `manifests/`."""
        return (self.host, self.namespace, self.model, self.tag)

    def same_as(self, other: ModelName) -> bool:
        """Whether both name the same model: case is ignored."""
        return self.folded == other.folded

    @property
    def folded(self) -> tuple[str, str, str, str]:
        """The parts in lower case, to compare and to look up."""
        host, namespace, model, tag = self.parts
        return (host.lower(), namespace.lower(), model.lower(), tag.lower())

    def in_stored_case(self, stored: Iterable[ModelName]) -> ModelName:
        """Write each part as some stored name writes it, part by part, as Ollama does; an exact match wins."""
        spellings: tuple[set[str], ...] = (set(), set(), set(), set())
        folded = self.folded
        for name in stored:
            for part, wanted, found in zip(name.parts, folded, spellings, strict=True):
                if part.lower() == wanted:
                    found.add(part)
        host, namespace, model, tag = (
            part if part in found else min(found, default=part)
            for part, found in zip(self.parts, spellings, strict=True)
        )
        return ModelName(host, namespace, model, tag, self.scheme)

    def __str__(self) -> str:
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"
