"""Who may do what: the scope each route needs, and the rules for clients with and without a key. Pure.

The rules (docs/security.md): this machine needs no key unless told otherwise. Where there are keys, everybody else
needs one with the route's scope. Where there are none, everybody else may infer, and may change models only with
OLM_ALLOW_OPEN. Keys themselves are in `keys`, the rules for browsers in `guards`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, assert_never

import attrs

from olm.api.errors import Forbidden, Unauthorized
from olm.api.keys import Key, Keyring, Scope
from olm.config import Settings

__all__ = [
    "PROXY_FIELDS",
    "Authorizer",
    "Client",
    "Need",
    "Rules",
    "check",
    "is_this_machine",
    "peer_name",
    "scope_of",
]

Need = Literal["public", "read", "infer", "manage", "metrics"]
"""What a route asks of a key. `read` is what both who infers and who manages must know: which models there are."""

LOCAL: Final = "local"
"""The name of clients on a unix socket, which have no address."""

_PUBLIC: Final = (
    "/",
    "/health",
    "/v1/health",
    "/ready",
    "/api/version",
    "/api/openapi.json",
    "/api/docs",
)
_READ: Final = (
    "/api/status",
    "/api/tags",
    "/api/ps",
    "/api/show",
    "/api/props",
    "/api/queue",
    "/api/experimental/model-recommendations",
    "/v1/models",
)
_INFER: Final = (
    "/api/generate",
    "/api/chat",
    "/api/embed",
    "/api/embeddings",
    "/api/rerank",
    "/api/tokenize",
    "/api/detokenize",
    "/api/apply-template",
    "/api/experimental/web_search",
    "/api/experimental/web_fetch",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/audio/transcriptions",
    "/v1/rerank",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/rerank",
    "/tokenize",
    "/detokenize",
    "/apply-template",
)
_MANAGE: Final = (
    "/api/pull",
    "/api/push",
    "/api/create",
    "/api/delete",
    "/api/copy",
    "/api/import",
    "/api/export",
    "/api/imatrix",
    "/api/store/check",
    "/api/me",
    "/api/signout",
)
_EXACT: Final[Mapping[str, Need]] = {
    **dict.fromkeys(_PUBLIC, "public"),
    **dict.fromkeys(_READ, "read"),
    **dict.fromkeys(_INFER, "infer"),
    **dict.fromkeys(_MANAGE, "manage"),
    "/metrics": "metrics",
}
_PREFIXES: Final[tuple[tuple[str, Need], ...]] = (
    ("/api/blobs/", "manage"),
    ("/api/import/", "manage"),
    ("/api/export/", "manage"),
    ("/api/user/keys/", "manage"),
    ("/v1/models/", "read"),
    ("/v1/responses/", "infer"),
)
_READING: Final = frozenset({"GET", "HEAD", "POST"})
PROXY_FIELDS: Final = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via")
"""What reverse proxies add: the client is then not who holds the connection."""


def scope_of(method: str, path: str) -> Need | None:
    """Tell what a route needs; None for a path that no route has (a test holds the table to the routes)."""
    need = _EXACT.get(path)
    if need is None:
        need = next((need for prefix, need in _PREFIXES if path.startswith(prefix)), None)
    # Reading routes may one day learn DELETE, as OpenAI's /v1/models/{model} has; that is no reading.
    return "manage" if need == "read" and method not in _READING else need


def peer_name(host: str | None) -> str:
    """Write a client's address as the rules want it: IPv4 that came over an IPv6 socket as IPv4, none as `local`."""
    return LOCAL if host is None else host.removeprefix("::ffff:")


def is_this_machine(peer: str) -> bool:
    """Whether a peer (`peer_name`) sits on this machine. Addresses come from the kernel, so in one spelling only."""
    return peer == LOCAL or peer.startswith("127.") or peer == "::1"


@attrs.frozen
class Rules:
    """How strict a server is.

    Attributes:
        require_keys: this machine needs keys too.
        allow_open: without keys, everybody may change models.
    """

    require_keys: bool = False
    allow_open: bool = False


@attrs.frozen
class Client:
    """Who asks.

    Attributes:
        is_local: sits on this machine, by a name of this machine, and through no proxy.
        presented: something that may be a key was sent.
        key: the key it was.
    """

    is_local: bool
    presented: bool = False
    key: Key | None = None


def check(need: Need | None, client: Client, rules: Rules, *, has_keys: bool) -> None:
    """Decide on one request.

    Args:
        need: from `scope_of`. A path without a route needs any key, and then is answered with 404.
        has_keys: the server has a file of keys, if only an empty one.

    Raises:
        Unauthorized: a key is needed, and none or a wrong one was sent.
        Forbidden: the key lacks the scope; or there are no keys, and models are changed from this machine only.
    """
    if need == "public" or (client.is_local and not rules.require_keys):
        return
    if not (has_keys or rules.require_keys):
        if need == "manage" and not rules.allow_open:
            raise Forbidden(
                "this server has no API keys, so models are changed from its own machine only: "
                "make a key there with 'olm keys add', or set OLM_ALLOW_OPEN=1"
            )
        return
    if client.key is None:
        raise Unauthorized(
            "invalid API key"
            if client.presented
            else "this server needs an API key: send it as 'Authorization: Bearer …' or 'x-api-key'",
            code="invalid_api_key",
        )
    if need is not None and not _has_scope(client.key.scopes, need):
        wanted = "infer or manage" if need == "read" else need
        raise Forbidden(
            f"the API key {client.key.name!r} lacks the scope {wanted}", code="missing_scope"
        )


def _has_scope(scopes: tuple[Scope, ...], need: Need) -> bool:
    match need:
        case "public":
            return True
        case "read":
            return "infer" in scopes or "manage" in scopes
        case "infer" | "manage" | "metrics":
            return need in scopes
        case _:
            assert_never(need)


class Authorizer:
    """The rules of one server, with its keys.

    Args:
        names_us: says whether a Host, with its port, names this machine. A page whose DNS name was pointed here comes
            from this machine's browser, and does not count as local.
    """

    def __init__(self, keyring: Keyring, rules: Rules, names_us: Callable[[str], bool]) -> None:
        self.keyring = keyring
        self._rules = rules
        self._names_us = names_us

    @classmethod
    def from_settings(cls, settings: Settings, names_us: Callable[[str], bool]) -> Authorizer:
        """Read the keys of a server. Raises OlmError when their file is damaged."""
        rules = Rules(require_keys=settings.require_keys, allow_open=settings.allow_open)
        return cls(Keyring(settings.api_keys), rules, names_us)

    @property
    def is_open(self) -> bool:
        """Whether strangers who reach the port are answered without a key."""
        return not (self.keyring.exists or self._rules.require_keys)

    def admit(
        self,
        method: str,
        path: str,
        headers: Mapping[bytes, bytes],
        *,
        host: str,
        peer: str,
    ) -> str:
        """Decide on a request and name who makes it: by the key if it has a good one, else by the address.

        Args:
            headers: names in lower case.
            host: with its port, from the header or an absolute target.
            peer: from `peer_name`.

        Raises:
            Unauthorized, Forbidden: see `check`.
        """
        secrets = _presented(headers)
        key = next((key for secret in secrets if (key := self.keyring.find(secret))), None)
        is_local = (
            is_this_machine(peer)
            and not any(name in headers for name in PROXY_FIELDS)
            and (peer == LOCAL or self._names_us(host))
        )
        client = Client(is_local=is_local, presented=bool(secrets), key=key)
        check(scope_of(method, path), client, self._rules, has_keys=self.keyring.exists)
        return peer if key is None else key.name


def _presented(headers: Mapping[bytes, bytes]) -> list[bytes]:
    """What might be a key: a bearer token (OpenAI's way, RFC 6750) and `x-api-key` (Anthropic's)."""
    found = []
    authorization = headers.get(b"authorization")
    if authorization is not None:
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() == b"bearer" and token.strip():
            found.append(token.strip())
    if headers.get(b"x-api-key"):
        found.append(headers[b"x-api-key"].strip())
    return found
