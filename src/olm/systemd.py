"""The few words olm speaks with systemd: readiness, watchdog and socket activation. Plain stdlib, no waiting.

Protocol: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3). Without systemd every function is a no-op.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, MutableMapping
from typing import Final

__all__ = ["listen_fds", "notify", "watchdog_interval_s"]

_FIRST_FD: Final = 3  # SD_LISTEN_FDS_START


def notify(text: str, environ: Mapping[str, str] | None = None) -> bool:
    """Send a state such as `READY=1` or `STATUS=…` to the service manager.

    Returns:
        Whether it was sent. A missing or broken socket is no reason to fail, so errors are only reported here.
    """
    path = (os.environ if environ is None else environ).get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    target = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.connect(target)
            sock.sendall(text.encode())
    except OSError:
        return False
    return True


def watchdog_interval_s(environ: Mapping[str, str] | None = None) -> float | None:
    """Tell how often to send `WATCHDOG=1`: half of what systemd allows, or None when it does not watch us."""
    env = os.environ if environ is None else environ
    usec = env.get("WATCHDOG_USEC", "")
    if not usec.isdigit() or int(usec) == 0:
        return None
    if env.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(usec) / 1e6 / 2


def listen_fds(environ: MutableMapping[str, str] | None = None) -> list[int]:
    """Take over the sockets systemd opened for us, close-on-exec set; the variables are removed.

    Returns:
        File descriptors, empty when this process was not started by socket activation.
    """
    env = os.environ if environ is None else environ
    pid, count = env.get("LISTEN_PID", ""), env.get("LISTEN_FDS", "")
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        env.pop(name, None)
    fds = list(range(_FIRST_FD, _FIRST_FD + int(count)))
    for fd in fds:
        os.set_inheritable(fd, False)
    return fds
