"""`triptych detect`, as a function of its arguments and as a process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import grpc
import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from support.fake_server import FakeServer, Fault
from triptych.cli.detect import cut_off, detect, summary
from triptych.contract import Truncated
from triptych.detections import Detections
from triptych.errors import DeadlineExceeded, ServerUnavailable

app = typer.Typer()
app.command()(detect)

Run = Callable[..., Result]


@pytest.fixture
def run(server: FakeServer) -> Run:
    def call(*arguments: object) -> Result:
        return CliRunner(env={"COLUMNS": "160"}).invoke(app, [*map(str, arguments), "--address", server.address])

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of four objects or more (the fake server finds one for each byte), and one file that is not."""
    for number, name in enumerate(["b.png", "a.jpg", "c.jpg"]):
        picture = np.full((60 + number, 80, 3), 90, np.uint8)
        (tmp_path / name).write_bytes(cv2.imencode(Path(name).suffix, picture)[1].tobytes())
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_table_and_summary(run: Run, tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(b"x")
    (tmp_path / "three.jpg").write_bytes(b"xyz")
    result = run(tmp_path / "three.jpg", tmp_path / "one.jpg")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert sum("three.jpg" in line for line in lines) == 1
    assert any("car" in line and "0.33" in line and "0 2 1 3" in line for line in lines)
    assert lines[-1].startswith("2 images, 4 objects (2 person, 1 bicycle, 1 car), ")


def test_markup_in_a_name_is_text(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "[red]x.jpg"
    path.write_bytes(b"bad")
    assert "[red]x.jpg" in run(path).output


def test_json(run: Run, tmp_path: Path) -> None:
    (tmp_path / "good.jpg").write_bytes(b"xy")
    (tmp_path / "bad.jpg").write_bytes(b"bad")
    result = run("--json", tmp_path, tmp_path / "none.jpg")
    bad, good, none = json.loads(result.stdout)
    assert result.exit_code == 1
    assert bad == {"source": str(tmp_path / "bad.jpg"), "error": "cannot be read: é", "truncated": [], "detections": []}
    assert [one["name"] for one in good["detections"]] == ["person", "bicycle"]
    assert none["error"] == f"there is no file {tmp_path / 'none.jpg'}"


def test_a_bad_image_is_shown_and_the_others_are_done(run: Run, folder: Path) -> None:
    (folder / "bad.jpg").write_bytes(b"bad")
    result = run(folder, "--save", folder / "out")
    assert result.exit_code == 1
    assert "cannot be read: é" in result.output
    assert "4 images" in result.output
    assert "1 failed" in result.output
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["a.jpg", "b.jpg", "c.jpg"]


def test_a_detector_that_is_too_slow_for_a_batch(run: Run, server: FakeServer, folder: Path) -> None:
    server.everywhere = Fault(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
    error = run(folder, "--timeout-s", 2).exception
    assert isinstance(error, DeadlineExceeded)
    assert str(error).endswith(
        "; send fewer images in a request than 3 with --batch 1, or wait longer than 2 s with --timeout-s"
    )
    assert str(run(folder / "a.jpg").exception).endswith("; wait longer than 10 s with --timeout-s")


def test_a_class_s_name_is_never_broken_over_lines(server: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "a_picture_of_a_rather_long_name_from_a_camera_in_a_hall_of_a_factory.jpg"
    path.write_bytes(b"x")
    output = CliRunner(env={"COLUMNS": "60"}).invoke(app, [str(path), "--address", server.address]).output
    assert any("person" in line for line in output.splitlines())


def test_pictures(run: Run, folder: Path) -> None:
    for _ in range(2):  # the second run replaces the pictures of the first
        assert run(folder / "b.png", "--save", folder / "out").exit_code == 0
    picture = cv2.imread(str(folder / "out" / "b.jpg"))
    assert picture.shape == (60, 80, 3)
    assert (picture != 90).any()


def test_picture_that_cannot_be_drawn_or_written(run: Run, folder: Path) -> None:
    (folder / "odd.jpg").write_bytes(b"the fake server takes it, but it is no picture")
    (folder / "out" / "a.jpg").mkdir(parents=True)
    result = run("--json", folder / "odd.jpg", folder / "a.jpg", folder / "c.jpg", "--save", folder / "out")
    odd, blocked, fine = json.loads(result.stdout)
    assert result.exit_code == 1
    assert odd["error"]
    assert blocked["error"] == f"{folder / 'out' / 'a.jpg'} cannot be written: Is a directory"
    assert fine["error"] == ""
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["a.jpg", "c.jpg"]


@pytest.mark.parametrize(("batch", "batches"), [(1, [1, 1, 1]), (2, [2, 1]), (16, [3])])
def test_batches(run: Run, server: FakeServer, folder: Path, batch: int, batches: list[int]) -> None:
    assert run(folder, "--batch", batch, "--score-threshold", 0.5, "--iou-threshold", 0.25).exit_code == 0
    assert [len(images) for images in server.batches] == batches
    assert server.batches[0][0] == (folder / "a.jpg").read_bytes()
    assert server.requests[0].parameters["score_threshold"].double_param == 0.5
    assert server.requests[0].parameters["iou_threshold"].double_param == 0.25


@pytest.mark.parametrize(
    "arguments",
    [(), ("--score-threshold", "1.5", "x"), ("--batch", "0", "x"), ("--timeout-s", "0", "x"), ("--nonsense", "x")],
)
def test_usage_errors(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_folder_without_images(run: Run, tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.exit_code == 2
    assert "there are no images in" in result.output


def test_server_that_goes_away(run: Run, server: FakeServer, folder: Path) -> None:
    """What was done before is still shown, as a table; half a JSON document is not."""
    server.script.extend([lambda _: None, Fault(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")] * 2)
    result = run(folder, "--batch", 1)
    assert "1 image, " in result.output
    assert result.exception
    assert run("--json", folder, "--batch", 1).stdout == ""


def test_nobody_answers(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    result = CliRunner().invoke(app, [str(tmp_path), "--address", "127.0.0.1:1"])
    assert isinstance(result.exception, ServerUnavailable)


@pytest.mark.parametrize(
    ("results", "line"),
    [
        ([], "0 images, 0 objects, 0.50 s"),
        ([Detections.failed("x")], "1 image, 0 objects, 1 failed, 0.50 s"),
    ],
)
def test_summary(results: list[Detections], line: str) -> None:
    assert summary(results, 0.5) == line


def start(*arguments: object) -> subprocess.Popen[str]:
    # A shell that runs the tests in the background has SIGINT ignored, and children inherit that.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from triptych.cli.app import main; main()"
    )
    command = [sys.executable, "-c", code, "detect", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_interrupt_is_clean(server: FakeServer, folder: Path) -> None:
    server.delay_s = 8
    process = start(folder, "--address", server.address, "--timeout-s", 30)
    try:
        assert server.entered.wait(20)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=5)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode not in (0, None)
    assert "Traceback" not in output + errors


def test_what_was_cut_off_is_said() -> None:
    whole = Detections.failed("")
    rows, both = replace(whole, truncated=Truncated.ROWS), replace(whole, truncated=Truncated(3))
    assert cut_off([whole]) == ""
    assert cut_off([whole, rows]) == (
        "an image was cut off, and may lack objects: raise --score-threshold, or build the detector with more --rows"
    )
    assert cut_off([rows, both]).startswith("2 images were cut off")
    assert cut_off([both]).endswith("more --candidates and --rows")
