"""Write files that are whole or not there, hash them, and hold directories that are in use."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`. It becomes `path` if the block ends well, else it is removed.

    It is on the disk before it becomes `path`, so that not even a power cut leaves half of it. Who may read it is up
    to the process's umask, as with every new file.

    Raises:
        OSError: the file cannot be written; the error names `path` if the system's own error names no file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = aside(path)
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def aside(path: Path) -> Path:
    """Return a new hidden name next to `path`."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def flush(path: Path) -> None:
    """Wait until a file, or which files a directory has, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Return a file's SHA-256 as hexadecimal digits. It is read in pieces, so it may be larger than the memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time into the block; `path` is the file of the lock, which stays. Without locks, all enter.

    It holds between processes of one machine, and of several where the file system passes locks on, as NFS 4 does.
    """
    with path.open("w") as lock:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Hold:
    """Keeps a directory from being removed by `unused`, for as long as this object or its process lives.

    It is a shared lock, which the kernel ends with the process. It is seen by processes of the same machine only. Where
    the file system has no locks, it does nothing.
    """

    def __init__(self, directory: Path) -> None:
        """Hold a directory, if it is there."""
        self._handle: int | None = None
        with contextlib.suppress(OSError):
            self._handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._handle, fcntl.LOCK_SH)

    def release(self) -> None:
        """Let go of the directory."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __del__(self) -> None:
        self.release()


@contextmanager
def unused(directory: Path) -> Iterator[bool]:
    """Yield whether nobody holds a directory; nobody can start to within the block. Where that is not known: False."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
