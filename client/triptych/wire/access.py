"""The key of a server that `triptych serve` started, and who finds it.

With the key one may load and unload models, register shared memory, and change the settings of traces and logs.
All else is open: to infer, and to ask for health, metadata, configurations and statistics. `triptych serve` makes a
key for each start and leaves it in a file that its user alone can read. Our own commands find it by the port.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

KEY_NAME = "triptych-key"
"""The header that carries the key in HTTP."""

GRPC_HEADER = f"triton-grpc-protocol-{KEY_NAME}"
"""The header that carries the key in gRPC."""

RESTRICTED = ("model-repository", "shared-memory", "trace", "logging")
"""What a server does only for who has its key, in Triton's words."""

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def state_directories() -> list[Path]:
    """Return where keys and logs may be, the best place first; the last one needs no home directory."""
    directories = []
    if state := os.environ.get("XDG_STATE_HOME"):
        directories.append(Path(state) / "triptych")
    else:
        with contextlib.suppress(RuntimeError):  # neither HOME nor an entry in passwd
            directories.append(Path.home() / ".local" / "state" / "triptych")
    # The same place for every command, whatever TMPDIR says.
    directories.append(Path("/tmp") / f"triptych-{os.getuid()}")  # noqa: S108  (used only if it is ours)
    return directories


def usable_state_directory() -> Path:
    """Return the first of `state_directories` that is ours and can be written; it is made if need be.

    Raises:
        OSError: there is none.
    """
    failure = OSError("no directory for the server's state")
    for directory in state_directories():
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            failure = error
            continue
        if _is_ours(directory) and os.access(directory, os.W_OK):
            return directory
        failure = PermissionError(13, "it cannot be written, or belongs to somebody else", str(directory))
    raise failure


def key_path(port: int) -> Path:
    """Return where the key of the server on a gRPC port goes.

    Raises:
        OSError: there is no place for it.
    """
    return usable_state_directory() / _file_name(port)


def write_key(port: int, key: str) -> Path:
    """Write the key of the server on a gRPC port to a file that its user alone can read.

    Raises:
        OSError: there is no place for it.
    """
    path = key_path(port)
    descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # of mode 0600
    with os.fdopen(descriptor, "w") as file:
        file.write(key)
    Path(aside).replace(path)
    return path


def remove_key(path: Path, key: str) -> None:
    """Remove a key's file, unless another server has left its own key there since."""
    with contextlib.suppress(OSError):
        if path.read_text() == key:
            path.unlink()


def read_key(address: str) -> str:
    """Return the key of the server at `address`, host:port; empty if it is on another machine or is not ours."""
    host, _, port = address.rpartition(":")
    if host in _LOOPBACK and port.isdigit():
        for directory in state_directories():
            path = directory / _file_name(int(port))
            with contextlib.suppress(OSError):
                if _is_ours(path):
                    return path.read_text()
    return ""


def key_headers(address: str, key: str = "") -> tuple[tuple[str, str], ...]:
    """Return the headers with which a call to `address` shows its key, or another one; none if there is no key."""
    key = key or read_key(address)
    return ((GRPC_HEADER, key),) if key else ()


def _file_name(port: int) -> str:
    return f"server-{port}.key"


def _is_ours(path: Path) -> bool:
    return path.lstat().st_uid == os.getuid()
