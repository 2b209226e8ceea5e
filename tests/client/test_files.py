"""Files that are whole or not there, and their hashes."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import pytest

from triptych.files import atomic_write, sha256


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == path.parent
    assert path.read_text() == "half"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_the_system_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.txt'"), atomic_write(path):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 1])
def test_a_hash_is_that_of_the_contents(tmp_path: Path, size: int) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(size))
    assert sha256(tmp_path / "a.bin") == hashlib.sha256(bytes(size)).hexdigest()
