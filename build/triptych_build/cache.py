"""What the build line made before, by the content that it was made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from triptych.files import sha256

DEFAULT_CACHE = Path(".triptych/cache")
"""Where the build line keeps what it made, from where it is run."""


class Cache:
    """Files by the content that they were made from."""

    def __init__(self, directory: Path) -> None:
        """Keep them in `directory`, which is made when it is needed."""
        self.directory = directory

    def get(self, step: str, suffix: str, made_from: object, make: Callable[[Path], object]) -> tuple[Path, bool]:
        """Return the file that `make` wrote for this content, now or before, and whether it was there.

        Args:
            step: what is made, the beginning of the file's name.
            suffix: the end of its name.
            made_from: everything that the file depends on, as plain values.
            make: writes the file, which must be whole or not there.
        """
        text = json.dumps(made_from, sort_keys=True, default=str)
        path = self.directory / f"{step}-{hashlib.sha256(text.encode()).hexdigest()[:16]}{suffix}"
        is_there = path.is_file()
        if is_there:
            path.touch()
        else:
            make(path)
        return path, is_there


def code_hashes(*directories: Path) -> list[str]:
    """Return the hashes of all Python files in directories: what new code makes is made once more."""
    return [sha256(path) for directory in directories for path in sorted(directory.rglob("*.py"))]
