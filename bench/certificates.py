"""Certificates of our own making for receivers that speak TLS, and where ours listens with it."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Kinds of keys, and the words that openssl has for them.
KEYS = {
    "P-256": ("ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "RSA-2048": ("rsa:2048",),
}


def certificate(folder: Path, kind: str = "P-256") -> Path:
    """A certificate with its key in the same file, made if it is not there. kind: of KEYS."""
    file = folder / f"tls-{kind}.pem"
    if not file.exists():
        made, key = folder / f"{kind}-certificate.pem", folder / f"{kind}-key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", *KEYS[kind], "-nodes", "-days", "30",
             "-subj", "/CN=localhost", "-out", made, "-keyout", key],
            check=True, capture_output=True,
        )  # fmt: skip
        file.touch(0o600)
        file.write_bytes(made.read_bytes() + key.read_bytes())
    return file


def tls_port(log: Path) -> int:
    """The port with TLS of a running fastscp, as it says. Raises RuntimeError: there is none."""
    found = re.search(r"^listening on \S+:(\d+) with TLS$", log.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError("it does not listen with TLS")
    return int(found[1])
