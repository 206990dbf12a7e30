"""Process actors: the same actor class run in a child process, behind the same address.

`_host` is the actor on this side, `_peer` what runs it on the other, `_frames` and `_link` what goes between.
"""

from olm.actors.runtime.process._host import process_actor
from olm.actors.runtime.process._options import ProcessOptions
from olm.actors.runtime.process._spare import SpareProcess

__all__ = ["ProcessOptions", "SpareProcess", "process_actor"]
