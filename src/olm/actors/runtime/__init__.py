"""An actor runtime for trio: actors, supervisors, streams, and actors in child processes.

A library of its own: it imports trio, attrs, msgspec and `olm.errors`, nothing else of olm. The guide is docs/actors.md.
Everything public is here; `testing` holds the kit for tests of actors.
"""

from olm.actors.runtime._actor import Actor
from olm.actors.runtime._address import Address, State
from olm.actors.runtime._calls import Reply
from olm.actors.runtime._exits import (
    Crashed,
    Exit,
    Killed,
    Normal,
    RemoteCrash,
    Shutdown,
    TooManyRestarts,
    describe_exit,
)
from olm.actors.runtime._messages import Message, StreamMessage, handles, streams
from olm.actors.runtime._policy import RestartPolicy
from olm.actors.runtime._specs import ChildSpec, SupervisorSpec, TreeNode
from olm.actors.runtime._streams import Stream, StreamClosed, StreamSink
from olm.actors.runtime._supervisor import Supervisor, open_supervisor
from olm.actors.runtime.process import ProcessOptions, SpareProcess, process_actor
from olm.errors import ActorStopped, MailboxFull

__all__ = [
    "Actor",
    "ActorStopped",
    "Address",
    "ChildSpec",
    "Crashed",
    "Exit",
    "Killed",
    "MailboxFull",
    "Message",
    "Normal",
    "ProcessOptions",
    "RemoteCrash",
    "Reply",
    "RestartPolicy",
    "Shutdown",
    "SpareProcess",
    "State",
    "Stream",
    "StreamClosed",
    "StreamMessage",
    "StreamSink",
    "Supervisor",
    "SupervisorSpec",
    "TooManyRestarts",
    "TreeNode",
    "describe_exit",
    "handles",
    "open_supervisor",
    "process_actor",
    "streams",
]
