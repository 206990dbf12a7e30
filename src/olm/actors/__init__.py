"""The actors of olm. The runtime's public names are here; the domain actors are in the modules beside it."""

from olm.actors.runtime import *  # noqa: F403 # one public face, kept by the runtime's __all__
from olm.actors.runtime import __all__ as __all__
