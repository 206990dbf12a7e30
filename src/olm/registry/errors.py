"""What can go wrong with a registry, told apart by what a caller does next."""

from __future__ import annotations

from olm.errors import OlmError

__all__ = ["RangesIgnored", "RegistryError", "TryAgain"]


class RegistryError(OlmError):
    """The registry, or the way to it, failed; repeating the request at once will not help."""


class TryAgain(RegistryError):
    """A failure that may pass. `retry_after_s` in the details, where there is one, is the registry's own wish."""


class RangesIgnored(RegistryError):
    """The server sends whole blobs only."""
