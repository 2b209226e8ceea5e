"""Where the log of a server goes: into a file, or on to our own standard error, as in a container."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from pathlib import Path
from typing import BinaryIO

from triptych.serving.log import STANDARD_ERROR, TAIL_BYTES, read_tail

_PIECE = 65_536


class LogOutput:
    """The log of one start of a server.

    What goes to standard error passes through this process, which keeps the end: why a server died, or a model did not
    load, is in its log.
    """

    def __init__(self, path: Path) -> None:
        """Write to the file `path`, or to standard error if it is `STANDARD_ERROR`."""
        self._path = path
        self._kept: deque[bytes] = deque()
        self._thread: threading.Thread | None = None

    def open(self) -> BinaryIO:
        """Return what the server writes to; close it once the server has it.

        Raises:
            OSError: the file cannot be written.
        """
        if self._path != STANDARD_ERROR:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return self._path.open("wb")
        reading, writing = os.pipe()
        self._thread = threading.Thread(target=self._pass_on, args=(reading,), daemon=True)
        self._thread.start()
        return os.fdopen(writing, "wb")

    def tail(self) -> str:
        """Return the end of the log so far."""
        if self._thread is None:
            return read_tail(self._path)
        return b"".join(self._kept)[-TAIL_BYTES:].decode(errors="replace")

    def settle(self, timeout_s: float = 1.0) -> None:
        """Wait until all that a server wrote before it ended has arrived."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _pass_on(self, reading: int) -> None:
        out = sys.stderr.fileno()
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            while piece := pipe.read(_PIECE):
                self._kept.append(piece)
                while sum(map(len, self._kept)) - len(self._kept[0]) >= TAIL_BYTES:
                    self._kept.popleft()
                try:
                    while piece:
                        piece = piece[os.write(out, piece) :]
                except OSError:
                    continue  # nobody reads any more, and the server must not stop for that
