"""Files that are whole or not there, and their hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from triptych.files import Hold, atomic_write, sha256, unused


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == path.parent
    assert path.read_text() == "half"
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


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600), (0o002, 0o664)])
def test_who_may_read_a_file_is_up_to_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "a.txt") as temporary:
            temporary.write_text("whole")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == mode


def test_a_file_is_on_the_disk_before_it_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    steps: list[tuple[str, bool]] = []
    fsync = os.fsync

    def watched(handle: int) -> None:
        steps.append((str(Path(f"/proc/self/fd/{handle}").readlink()), path.exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    with atomic_write(path) as temporary:
        temporary.write_text("whole")
    assert steps == [(str(temporary), False), (str(tmp_path), True)]


def test_a_directory_that_is_held_is_in_use(tmp_path: Path) -> None:
    one, other = Hold(tmp_path), Hold(tmp_path)
    for hold in (one, other):
        with unused(tmp_path) as is_unused:
            assert not is_unused
        hold.release()
    with unused(tmp_path) as is_unused:
        assert is_unused
        Hold(tmp_path / "not there").release()


def test_the_hold_of_a_process_ends_with_it(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from triptych.files import Hold; hold = Hold(Path({str(tmp_path)!r})); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        while process.poll() is None:
            with unused(tmp_path) as is_unused:
                if not is_unused:
                    break
            time.sleep(0.01)
        assert process.poll() is None, "it holds the directory"
        process.kill()
    with unused(tmp_path) as is_unused:
        assert is_unused


def test_where_there_are_no_locks_everything_may_be_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    Hold(tmp_path)
    with unused(tmp_path) as is_unused:
        assert not is_unused
