"""Self-signed certificates for tests, made by the `openssl` command."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import attrs
import pytest

__all__ = ["Files", "make_certificate"]


@attrs.frozen
class Files:
    """A certificate and its key."""

    cert: Path
    key: Path


def make_certificate(folder: Path, name: str, *hosts: str) -> Files:
    """Make a certificate for localhost, 127.0.0.1 and `hosts` whose common name is `name`. It signs itself."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl command to make certificates with")
    names = ",".join(["DNS:localhost", "IP:127.0.0.1", *(f"DNS:{host}" for host in hosts)])
    files = Files(folder / f"{name}.crt", folder / f"{name}.key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName={names}",
         "-addext", "keyUsage=critical,digitalSignature,keyCertSign", "-keyout", files.key, "-out", files.cert],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return files
