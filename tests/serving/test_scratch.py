"""A server's temporary directory: removed by its owner, or by whoever starts next if the owner was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from triptych.serving import scratch
from triptych.serving.processes import SERVER
from triptych.serving.scratch import Belongings, Scratch, remove_leftovers

OWNER = """
import sys
from pathlib import Path
from triptych.serving.scratch import Belongings, Scratch

scratch = Scratch(Belongings(sys.argv[1], "secret", sys.argv[2]))
print(scratch.directory, flush=True)
input()
"""


MARK = f"triptych_test_{os.getpid()}_"
"""What no other process of these tests has in its command line: those that have it are killed with the owner."""


@pytest.fixture(autouse=True)
def shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep temporary directories and shared memory in a directory of the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(scratch, "SHARED_MEMORY", tmp_path / "shm")
    (tmp_path / "shm").mkdir()
    (tmp_path / "shm" / f"{MARK}region").touch()
    (tmp_path / "shm" / "triptych_other_region").touch()
    (tmp_path / "key").write_text("secret")
    return tmp_path / "shm"


def test_the_owner_removes_it(tmp_path: Path, shared_memory: Path) -> None:
    mine = Scratch(Belongings(MARK, "secret", str(tmp_path / "key")))
    assert mine.directory.stat().st_mode & 0o777 == 0o700
    assert remove_leftovers() == []
    mine.remove()
    mine.remove()
    assert not mine.directory.exists()
    assert not (tmp_path / "key").exists()
    assert [path.name for path in shared_memory.iterdir()] == ["triptych_other_region"]


def test_what_a_killed_owner_left_goes_and_what_a_living_one_has_stays(
    tmp_path: Path, shared_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", OWNER, MARK, str(tmp_path / "key")]
    owner = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"TMPDIR": str(tmp_path)}
    )
    with owner:
        assert owner.stdout
        directory = Path(owner.stdout.readline().strip())
        (directory / "traces").mkdir()
        assert remove_leftovers() == []
        owner.kill()
    assert owner.returncode == -signal.SIGKILL
    # Its server may live on for a moment.
    with monkeypatch.context() as patch:
        patch.setattr(scratch, "marked_processes", lambda mark: [SimpleNamespace(name=lambda: SERVER)])
        assert remove_leftovers() == []
    assert remove_leftovers() == [directory]
    assert not directory.exists()
    assert not (tmp_path / "key").exists()
    assert [path.name for path in shared_memory.iterdir()] == ["triptych_other_region"]


def test_what_is_not_of_a_server_stays(tmp_path: Path) -> None:
    for name, text in (("triptych-build", None), ("triptych-odd", "[]"), ("triptych-cut", "{")):
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "owner.json").write_text(text)
    assert remove_leftovers() == []
    assert len(list(tmp_path.glob("triptych-*"))) == 3
