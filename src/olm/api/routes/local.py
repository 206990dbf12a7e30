"""Who may name paths of the daemon's machine: clients that sit on it, and come without a proxy and without a key."""

from __future__ import annotations

from quart import request as http_request

from olm.api.auth import PROXY_FIELDS, is_this_machine
from olm.api.errors import Forbidden
from olm.api.gate import Call

__all__ = ["check_local"]


def check_local(call: Call, instead: str) -> None:
    """Refuse a request that names a path from elsewhere.

    Args:
        instead: what such a client can do, for the message.

    Raises:
        Forbidden: it comes from elsewhere, through a proxy, or with a key, whose owner may be anywhere.
    """
    is_proxied = any(name.decode("latin1") in http_request.headers for name in PROXY_FIELDS)
    if is_proxied or not is_this_machine(call.client):
        raise Forbidden(f"a path can be named from this machine only, without a key; {instead}")
