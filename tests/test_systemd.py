"""systemd's protocol over real datagram sockets, and its absence."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from olm.systemd import listen_fds, notify, watchdog_interval_s


def test_notify_reaches_the_manager(tmp_path: Path) -> None:
    """A datagram with the state arrives at NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))

        sent = notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "notify")})

        assert sent
        assert manager.recv(100) == b"READY=1"


def test_abstract_sockets_start_with_at() -> None:
    """`@name` is the kernel's abstract namespace."""
    name = f"olm-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")

        assert notify("STOPPING=1", {"NOTIFY_SOCKET": f"@{name}"})


def test_no_manager_is_no_trouble(tmp_path: Path) -> None:
    """Without systemd, or with a dead socket, nothing happens."""
    assert not notify("READY=1", {})
    assert not notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "nobody")})


def test_watchdog_interval_is_half_of_what_is_allowed() -> None:
    """Only when the variable is ours."""
    assert watchdog_interval_s({"WATCHDOG_USEC": "3000000"}) == 1.5
    assert watchdog_interval_s({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}) is None
    assert watchdog_interval_s({}) is None
    assert watchdog_interval_s({"WATCHDOG_USEC": "soon"}) is None


def test_sockets_for_another_process_are_left_alone() -> None:
    """LISTEN_PID must be ours."""
    assert listen_fds({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == []
