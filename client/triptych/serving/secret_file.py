"""Files that hold a secret: a private key, the server's key."""

from __future__ import annotations

import stat
from pathlib import Path

from triptych.errors import ServerStartError


def read_file(option: str, path: Path) -> bytes:
    """Return what the file that an option names holds.

    Raises:
        ServerStartError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ServerStartError(f"{option} {path} cannot be read: {error.strerror}") from error


def read_secret(option: str, path: Path) -> bytes:
    """Return what a file holds that not every user may read; its group may, as in Kubernetes.

    Raises:
        ServerStartError: it cannot be read, or every user of the machine can read it.
    """
    secret = read_file(option, path)
    if path.stat().st_mode & stat.S_IRWXO:
        raise ServerStartError(f"{option} {path} can be read by every user of this machine; run `chmod 600 {path}`")
    return secret
