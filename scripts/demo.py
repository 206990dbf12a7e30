"""`make run`: start a daemon on a free port, let the built-in model answer one question, stop the daemon.

Everything happens in a temporary folder, so that a first look leaves nothing behind.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["main"]

QUESTION = "Why is the sky blue?"
START_WITHIN_S = 30.0


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    assert isinstance(port, int), "an inet socket's name ends in its port"
    return port


def _wait_until_up(daemon: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline and daemon.poll() is None:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.05)
    return False


def main() -> int:
    """Run the demonstration; the exit status is that of `olm run`."""
    olm = [sys.executable, "-m", "olm"]
    with tempfile.TemporaryDirectory(prefix="olm-demo-") as home:
        port = _free_port()
        env = {
            **os.environ,
            "OLM_HOME": home,
            "OLM_MODELS": f"{home}/models",
            "OLM_HOST": f"127.0.0.1:{port}",
        }
        log = Path(home) / "daemon.log"
        print(f"$ OLM_HOST=127.0.0.1:{port} olm serve &", flush=True)
        with (
            log.open("wb") as sink,
            subprocess.Popen([*olm, "serve"], env=env, stdout=sink, stderr=sink) as daemon,
        ):
            try:
                if not _wait_until_up(daemon, port):
                    print(log.read_text(errors="replace"), file=sys.stderr)
                    print("Error: the daemon did not start", file=sys.stderr)
                    return 1
                print(f'$ olm run tiny "{QUESTION}"', flush=True)
                status = subprocess.run(
                    [*olm, "run", "tiny", QUESTION], env=env, check=False
                ).returncode
            finally:
                daemon.send_signal(signal.SIGTERM)
                daemon.wait(timeout=60)
        if status:
            print(log.read_text(errors="replace"), file=sys.stderr)
        print("$ kill %1  # the daemon drained and stopped", flush=True)
        return status


if __name__ == "__main__":
    sys.exit(main())
