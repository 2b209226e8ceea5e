"""Mounts of our own: a full disk or a full /dev/shm must be nobody else's."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

SHARED_MEMORY_MB = 256
MARK = "TRIPTYCH_FAULTS_PRIVATE"


def enter() -> None:
    """Start this process again in a mount namespace of its own, if the kernel lets us; /dev/shm is empty there."""
    if MARK in os.environ:
        return
    os.environ[MARK] = ""
    options = ["--mount", "--propagation", "private"]
    if os.getuid():
        options += ["--user", "--map-root-user"]
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SHARED_MEMORY_MB}m", "tmpfs", "/dev/shm"]
    try:
        subprocess.run(["unshare", *options, *mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return
    os.environ[MARK] = "yes"
    again = [sys.executable, "-m", "faults", *sys.argv[1:]]
    os.execvp("unshare", ["unshare", *options, "sh", "-c", f'{" ".join(mount)} && exec "$@"', "sh", *again])


def is_private() -> bool:
    """Return whether mounts are ours alone."""
    return bool(os.environ.get(MARK))


def mount(directory: Path, megabytes: int) -> None:
    """Mount a small disk, which goes with this process."""
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(directory)], check=True)


def unmount(directory: Path) -> None:
    """Take a small disk away, whoever still has a file open there."""
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill(directory: Path) -> Path:
    """Write a file that takes all that is left of a disk, which must be one of ours."""
    assert is_private()
    path = directory / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while file.write(b"\1" * size):
                    pass
    return path
