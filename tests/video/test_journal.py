"""The file of tracks: what it holds after a sudden end."""

from __future__ import annotations

import errno
import json
import os
import resource
from pathlib import Path

import pytest

from support.videos import detection
from triptych.errors import ContractError
from triptych.video.journal import Done, Journal, Line, only_writer, read_done


def test_a_line_reads_back() -> None:
    line = Line(3, 0.12, 60, 40, (detection(1.5), detection(9, 0.3)), (1, None))
    assert Line.decode(line.encode()) == line
    assert json.loads(line.encode()) == {
        "frame": 3,
        "time_s": 0.12,
        "width": 60,
        "height": 40,
        "objects": [
            {"track_id": 1, "name": "person", "label": 0, "score": 0.9, "box_xyxy": [1.5, 10.0, 41.5, 50.0]},
            {"track_id": None, "name": "person", "label": 0, "score": 0.3, "box_xyxy": [9.0, 10.0, 49.0, 50.0]},
        ],
        "error": None,
    }


@pytest.mark.parametrize("cut", [1, 2, 20])
def test_a_half_written_last_line_is_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "tracks.jsonl"
    whole = [Line(frame, None, 60, 40, (detection(1),), (frame + 1,)) for frame in range(5)]
    path.write_bytes(b"".join(line.encode() for line in whole)[:-cut])
    done = read_done(path, 2)
    assert (done.next_frame, done.last_id, done.recent) == (4, 4, (whole[2], whole[3]))
    with Journal(path, done) as journal:
        journal.write(whole[4])
    assert path.read_bytes() == b"".join(line.encode() for line in whole)


def test_a_full_disk_is_an_error_and_whole_lines_stay(tmp_path: Path) -> None:
    path = tmp_path / "tracks.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(journal: Journal) -> None:
        for frame in range(100):
            journal.write(Line(frame, None, 60, 40, (detection(1),), (1,)))

    with Journal(path, Done()) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        try:
            with pytest.raises(OSError, match=r"tracks\.jsonl"):
                fill(journal)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.stat().st_size == 1000
    done = read_done(path, 1)
    assert 0 < done.whole_bytes < 1000
    assert done.next_frame == done.recent[0].frame + 1


def test_a_file_of_something_else_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello\n")
    with pytest.raises(ContractError, match=r"line 1 of .*notes\.txt is not a line of tracks"):
        read_done(path, 2)
    assert read_done(tmp_path / "none", 2) == Done()


def test_the_first_line_says_which_video_it_is(tmp_path: Path) -> None:
    path = tmp_path / "tracks.jsonl"
    lines = [Line(frame, None, 60, 40) for frame in range(4)]
    for pair in (lines[:2], lines[2:]):
        with Journal(path, read_done(path, 1), "sha256:1") as journal:
            for line in pair:
                journal.write(line)
    written = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line.get("video") for line in written] == ["sha256:1", None, None, None]
    assert read_done(path, 1).video == "sha256:1"


def test_a_file_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "new" / "tracks.jsonl"
    with (
        only_writer(path),
        pytest.raises(ContractError, match=r"another `triptych track` writes .*tracks\.jsonl"),
        only_writer(path),
    ):
        pass
    with only_writer(path):
        pass


def test_a_drive_without_locks_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(_handle: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with only_writer(tmp_path / "tracks.jsonl"):
        pass


def test_a_file_name_that_is_no_utf_8_becomes_json() -> None:
    name = os.fsdecode(b"caf\xe9.png")
    line = Line(0, None, None, None, error=f"{name} is empty")
    assert b"caf\\udce9.png" in line.encode()
    assert Line.decode(line.encode()) == line
