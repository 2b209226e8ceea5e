"""`triptych track`, as a function of its arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from support.fake_server import LOST, FakeServer
from support.videos import make_pictures, make_video, read_lines
from triptych.cli.track import track
from triptych.errors import ContractError, ImageError, ServerUnavailable, TriptychError
from triptych.video.frames import Shot
from triptych.video.journal import Line, only_writer

app = typer.Typer()
app.command()(track)

Run = Callable[..., Result]


@pytest.fixture
def run(server: FakeServer) -> Run:
    def call(*arguments: object) -> Result:
        runner = CliRunner(env={"COLUMNS": "160"})
        return runner.invoke(app, [*map(str, arguments), "--address", server.address])

    return call


def test_a_directory_to_its_end(run: Run, server: FakeServer, tmp_path: Path) -> None:
    directory = make_pictures(tmp_path / "pictures", 6)
    (directory / "003.png").write_bytes(b"nonsense")
    out = tmp_path / "tracks.jsonl"
    result = run(directory, "--out", out)
    assert result.exit_code == 1, result.output
    written = read_lines(out)
    assert [line["frame"] for line in written] == list(range(6))
    assert [bool(line["error"]) for line in written] == [number == 3 for number in range(6)]
    assert "003.png" in written[3]["error"]
    assert written[5]["objects"][0]["track_id"] == written[0]["objects"][0]["track_id"] == 1
    # Two are in flight, and may overtake each other on the way.
    assert sorted(sent for [sent] in server.batches) == sorted(
        path.read_bytes() for path in directory.iterdir() if path.name != "003.png"
    )
    assert result.stdout.startswith("6 frames in ")
    assert ", 1 failed" in result.stdout
    assert f"frame 3: {directory / '003.png'}" in result.stdout
    assert "owns" in result.stdout
    assert "frames/s: " in result.stdout


def test_a_video_is_sent_as_jpeg(run: Run, server: FakeServer, tmp_path: Path) -> None:
    out = tmp_path / "tracks.jsonl"
    result = run(make_video(tmp_path / "a.avi", 5), "--out", out, "--frames", 3, "--quality", 50)
    assert result.exit_code == 0, result.output
    assert [(line["time_s"], line["width"]) for line in read_lines(out)] == [(0.0, 64), (0.04, 64), (0.08, 64)]
    assert all(sent[:3] == b"\xff\xd8\xff" for [sent] in server.batches)


def test_a_file_that_holds_something_is_not_touched_unasked(run: Run, tmp_path: Path) -> None:
    directory, out = make_pictures(tmp_path / "pictures", 3), tmp_path / "tracks.jsonl"
    out.write_bytes(Line(0, None, 60, 40).encode())
    before = out.read_bytes()
    refused = run(directory, "--out", out).exception
    assert isinstance(refused, ContractError)
    assert "continue it with --resume, or replace it with --overwrite" in str(refused)
    assert out.read_bytes() == before
    assert run(directory, "--out", out, "--resume").exit_code == 0
    assert out.read_bytes().startswith(before)
    assert [line["frame"] for line in read_lines(out)] == [0, 1, 2]
    assert run(directory, "--out", out, "--resume").exit_code == 0  # nothing is left to do
    assert run(directory, "--out", out, "--overwrite").exit_code == 0
    assert [bool(line["objects"]) for line in read_lines(out)] == [True] * 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--resume", "--overwrite"), "give one of them"),
        (("--run", "run.html"), "name a JSON"),
        (("--quality", "0"), "--quality"),
        (("--timeout-s", "0"), "--timeout-s"),
    ],
)
def test_usage_errors(run: Run, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    result = run(make_pictures(tmp_path / "pictures", 1), "--out", tmp_path / "tracks.jsonl", *arguments)
    assert result.exit_code == 2
    assert words in result.output
    assert not (tmp_path / "tracks.jsonl").exists()


def test_a_server_lost_for_good_leaves_all_before_it_and_resume_goes_on(
    run: Run, server: FakeServer, tmp_path: Path, quick: None
) -> None:
    directory, out = make_pictures(tmp_path / "pictures", 20), tmp_path / "tracks.jsonl"
    server.script.extend([lambda _response: None] * 9 + [LOST] * 1000)
    # Two in flight could overtake each other on the way.
    result = run(directory, "--out", out, "--retry-s", 0, "--in-flight", 1)
    assert isinstance(result.exception, ServerUnavailable)
    assert f"{out} has every frame before that: continue with --resume" in result.stderr
    assert [line["frame"] for line in read_lines(out)] == list(range(9))
    server.script.clear()
    assert run(directory, "--out", out, "--resume").exit_code == 0
    written = read_lines(out)
    assert [line["frame"] for line in written] == list(range(20))
    assert len({line["objects"][0]["track_id"] for line in written}) == 1


def test_a_video_that_was_cut_off_says_so(run: Run, tmp_path: Path) -> None:
    path, out = make_video(tmp_path / "a.avi", 60), tmp_path / "tracks.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    result = run(path, "--out", out)
    assert result.exit_code == 1
    assert " of 60 frames" in read_lines(out)[-1]["error"]
    assert " failed\nframe " in result.stdout


def test_another_video_is_not_continued(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "tracks.jsonl"
    video, other = make_video(tmp_path / "a.avi", 4), make_video(tmp_path / "b.avi", 5)
    assert run(video, "--out", out, "--frames", 2).exit_code == 0
    before = out.read_bytes()
    result = run(other, "--out", out, "--resume")
    assert isinstance(result.exception, ContractError)
    assert "tracks of another video than" in str(result.exception)
    assert out.read_bytes() == before
    moved = video.rename(tmp_path / "moved.avi")
    assert run(moved, "--out", out, "--resume").exit_code == 0
    assert [line["frame"] for line in read_lines(out)] == [0, 1, 2, 3]


def test_a_file_from_before_is_continued(run: Run, tmp_path: Path) -> None:
    out, video = tmp_path / "tracks.jsonl", make_video(tmp_path / "a.avi", 3)
    out.write_bytes(Line(0, 0.0, 64, 48).encode())
    assert run(video, "--out", out, "--resume").exit_code == 0
    assert [line["frame"] for line in read_lines(out)] == [0, 1, 2]


def test_two_that_continue_one_file_do_not_mix(run: Run, tmp_path: Path) -> None:
    out, video = tmp_path / "tracks.jsonl", make_video(tmp_path / "a.avi", 3)
    with only_writer(out):
        result = run(video, "--out", out, "--resume")
    assert isinstance(result.exception, ContractError)
    assert "another `triptych track` writes" in str(result.exception)


def test_several_sources_have_a_file_each(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sources = [make_video(tmp_path / "a.avi", 5), make_pictures(tmp_path / "pictures", 3)]
    (sources[1] / "001.png").write_bytes(b"nonsense")
    result = run(*sources, "--out", out)
    assert result.exit_code == 1, "a picture cannot be read"
    assert [len(read_lines(out / name)) for name in ("a.jsonl", "pictures.jsonl")] == [5, 3]
    assert result.stdout.startswith("8 frames of 2 sources in ")
    assert f"{sources[1]}, frame 1: " in result.stdout
    rows = [[cell.strip() for cell in line.split("│")] for line in result.stdout.splitlines()]
    assert [row[3:6] for row in rows if "done" in row] == [["5", "0", "0"], ["2", "1", "0"]]


def test_one_source_may_go_into_a_directory_too(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert run(make_video(tmp_path / "a.avi", 2), "--out", tmp_path / "out").exit_code == 0
    assert len(read_lines(tmp_path / "out" / "a.jsonl")) == 2


def test_several_sources_do_not_go_into_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("")
    videos = [make_video(tmp_path / f"{name}.avi", 2) for name in "ab"]
    result = run(*videos, "--out", tmp_path / "out.jsonl")
    assert result.exit_code == 2
    assert "2 sources need a directory" in result.output


def test_the_lost_one_of_several_is_named_at_the_end(run: Run, tmp_path: Path) -> None:
    result = run(make_video(tmp_path / "a.avi", 2), tmp_path / "missing.avi", "--out", tmp_path)
    assert type(result.exception) is TriptychError
    assert "1 of 2 sources ended too early: there is no " in str(result.exception)
    assert "; the other sources go on" in result.stderr
    assert len(read_lines(tmp_path / "a.jsonl")) == 2


def test_a_camera_that_is_lost_is_said(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost:
        frames_per_s = 25.0

        def shots(self) -> Iterator[Shot]:
            yield Shot(None, lambda: np.zeros((40, 60, 3), np.uint8))
            raise ImageError("camera 0 gives no more pictures")

        def close(self) -> None:
            pass

    monkeypatch.setattr("triptych.video.sources.Camera", lambda *_: Lost())
    monkeypatch.setattr("triptych.video.live.PAUSE_S", 0.01)
    monkeypatch.chdir(tmp_path)
    result = run("0", "--out", "tracks.jsonl", "--retry-s", "0")
    assert isinstance(result.exception, ImageError)
    assert str(result.exception) == "camera 0 gives no more pictures"
    assert "tracks.jsonl has every frame before that: continue with --resume" in result.stderr
    assert len(read_lines(tmp_path / "tracks.jsonl")) == 1
