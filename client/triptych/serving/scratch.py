"""The temporary directory of one server, and what a server leaves behind whose owner was killed.

The owner holds a lock in the directory for as long as it lives. Whoever gets that lock knows that the owner is dead,
and may remove the directory, the regions of shared memory and the key that are written down next to the lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from triptych.serving.mps import stop_mps
from triptych.serving.preflight import SHARED_MEMORY
from triptych.serving.processes import SERVER, kill_marked, marked_processes
from triptych.wire.access import remove_key

_PREFIX = "triptych-"
_OWNER = "owner.json"


@dataclass(frozen=True)
class Belongings:
    """What one server has on this machine, apart from its temporary directory.

    Attributes:
        mark: how the names of its regions of shared memory begin; its processes have it in their command lines.
        key: what it does not do without.
        key_file: where our commands find the key.
    """

    mark: str
    key: str
    key_file: str

    def remove(self) -> None:
        """Kill the processes, and remove the regions and the key."""
        # Model processes outlive a server that was killed. The mark is in their command lines and its own only.
        kill_marked(self.mark)
        for region in SHARED_MEMORY.glob(f"{self.mark}*"):
            region.unlink(missing_ok=True)
        remove_key(Path(self.key_file), self.key)


def is_word(path: Path) -> bool:
    """Return whether a shell takes a path as one word, as it is: without spaces, quotes and the like."""
    return shlex.quote(str(path)) == str(path)


def _parent() -> Path:
    """Return where temporary directories go: Triton puts their names into a shell's line."""
    directory = Path(tempfile.gettempdir())
    return directory if is_word(directory) else Path("/tmp")  # noqa: S108  (mkdtemp makes a name that nobody knows)


class Scratch:
    """A temporary directory with a lock, which this process holds until `remove`."""

    def __init__(self, belongings: Belongings) -> None:
        """Make the directory, readable for its user alone."""
        self.directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_parent()))
        self._belongings = belongings
        aside = self.directory / f".{_OWNER}"
        self._lock = aside.open("w")
        json.dump(asdict(belongings), self._lock)
        self._lock.flush()
        # Locked first and named then: a file of that name without a lock belongs to nobody who lives.
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        aside.rename(self.directory / _OWNER)

    def remove(self) -> None:
        """Remove the directory and the belongings."""
        self._belongings.remove()
        stop_mps(self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)
        self._lock.close()


def remove_leftovers() -> list[Path]:
    """Remove what servers left behind whose owners were killed; return their directories.

    A server may live on a moment longer than its owner, or for long if a thread started it. It keeps what it has.
    """
    removed = []
    for owner in _parent().glob(f"{_PREFIX}*/{_OWNER}"):
        # It may go at any moment, or belong to another user.
        with contextlib.suppress(OSError, ValueError, TypeError), owner.open() as lock:
            if os.fstat(lock.fileno()).st_uid != os.getuid():
                continue
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            belongings = Belongings(**json.load(lock))
            if any(process.name() == SERVER for process in marked_processes(belongings.mark)):
                continue
            belongings.remove()
            stop_mps(owner.parent)
            shutil.rmtree(owner.parent, ignore_errors=True)
            removed.append(owner.parent)
    return removed
