"""`triptych sweep`: its options, what it prints and what it keeps."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from support.commands import invoke
from support.fake_server import FakeServer
from triptych.cli.console import REFUSED, USAGE
from triptych.cli.sweep import Settings, sweep
from triptych.errors import ImageError, ServerUnavailable
from triptych.measure import sweep_file


def test_settings_are_sorted_and_hold_each_value_once() -> None:
    assert Settings.from_1("2,served,1,2") == (None, 1, 2)
    assert Settings.from_1("served") == (None,)
    assert Settings.from_0("500, 0") == (0, 500)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    directory = tmp_path / "images"
    directory.mkdir()
    (directory / "a.jpg").write_bytes(b"x")
    return directory


run = partial(invoke, sweep, columns=120)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--users", "1,x"), "expected whole numbers above 0 with commas between them, but got '1,x'"),
        (("--users", "0"), "expected whole numbers above 0"),
        (("--rates", "10,,20"), "expected numbers above 0"),
        (("--rates", "inf"), "expected numbers above 0"),
        (("--instances", "served,0"), "expected whole numbers from 1 on, or `served`"),
        (("--instances", ""), "expected whole numbers from 1 on, or `served`"),
        (("--max-queue-delay-us", "-1"), "expected whole numbers from 0 on, or `served`"),
        (("--users", "1", "--rates", "1"), "--users and --rates are two sweeps"),
        (("--fps", "5", "--rates", "1", "--budget-ms", "9"), "--users and --rates are two sweeps"),
        (("--fps", "5"), "--fps needs --budget-ms"),
        (("--fps", "5", "--budget-ms", "9", "--users", "1,2"), "takes one number of --users"),
        (("--max-dropped", "5%"), "--max-dropped is about the frames of cameras"),
        (("--at", "p80"), "p80"),
        (("--address", "nowhere"), "nowhere"),
        (("--out", "sweep.html"), "sweep.html"),
    ],
)
def test_a_wrong_command_line(images: Path, arguments: tuple[str, ...], reason: str) -> None:
    done = run("--images", images, *arguments)
    assert done.exit_code == USAGE, done.output
    assert reason in " ".join(done.output.replace("│", "").split())


def test_no_images(tmp_path: Path) -> None:
    done = run("--images", tmp_path)
    assert isinstance(done.exception, ImageError)
    assert "there are no images in" in str(done.exception)


@pytest.mark.parametrize("change", [(), ("--instances", 1)])
def test_no_server(images: Path, nobody: str, change: tuple[object, ...]) -> None:
    done = run("--images", images, "--address", nobody, "--users", 1, "--warmup-s", 0, *change)
    assert isinstance(done.exception, ServerUnavailable), done.exception
    assert f"no server answers at {nobody}" in str(done.exception)


def when(happened: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
    """Act as soon as something has happened."""

    def wait() -> None:
        deadline = time.monotonic() + 60
        while not happened() and time.monotonic() < deadline:
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_lost_server_ends_the_sweep_and_what_was_measured_is_kept(
    server: FakeServer, images: Path, tmp_path: Path
) -> None:
    out, runs = tmp_path / "sweep.json", tmp_path / "runs"
    lost = when((runs / "as-served-1-user.json").exists, server.stop)
    done = run(
        *("--images", images, "--address", server.address, "--users", "1,2,4", "--duration-s", 0.5, "--warmup-s", 0.1),
        *("--out", out, "--keep-runs", runs),
    )
    lost.join()
    assert isinstance(done.exception, ServerUnavailable), done.output
    assert f"no server answers at {server.address}" in str(done.exception)
    (series,) = sweep_file.read(out).series
    (point,) = series.points
    assert point.users == 1
    assert point.answered_per_s > 0
    assert "as served" in done.output


def test_failures_are_shown_and_end_nothing_but_keep_no_budget(
    server: FakeServer, images: Path, tmp_path: Path
) -> None:
    (images / "a.jpg").write_bytes(b"bad")  # which the fake server refuses
    done = run(
        *("--images", images, "--address", server.address, "--users", "1,2", "--duration-s", 0.5, "--warmup-s", 0),
        *("--budget-ms", 60000, "--out", tmp_path / "sweep.json"),
    )
    assert done.exit_code == REFUSED
    assert isinstance(done.exception, SystemExit), done.exception
    data = json.loads((tmp_path / "sweep.json").read_text())
    points = data["series"][0]["points"]
    assert [point["users"] for point in points] == [1, 2]
    assert all(point["failures"] > 0 and point["answered_per_s"] == 0 for point in points)
    assert f"no concurrency keeps p95 <= 60000 ms: at 1 user {points[0]['failures']} requests failed" in done.output


def test_json_has_the_points_and_the_remarks(server: FakeServer, images: Path) -> None:
    done = run(
        *("--images", images, "--address", server.address, "--users", "1", "--duration-s", 0.5, "--warmup-s", 0),
        "--json",
    )
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert [point["users"] for point in data["series"][0]["points"]] == [1]
    assert {remark["id"] for remark in data["remarks"]} <= {"generator-busy"}
    assert "Detector: as served" in done.stderr


def test_the_most_cameras(server: FakeServer, images: Path, tmp_path: Path) -> None:
    server.delay_s = 0.15  # so a camera of 10 frames/s waits through one and a half of them, and of 20 through three
    out = tmp_path / "sweep.json"
    plain = ("--images", images, "--address", server.address, "--duration-s", 0.5, "--warmup-s", 0)
    done = run(*plain, "--fps", 20, "--budget-ms", 5000, "--max-dropped", "1%", "--out", out)
    assert done.exit_code == REFUSED, done.output
    (series,) = sweep_file.read(out).series
    (point,) = series.points
    assert (point.users, point.fps, point.failures) == (1, 20, 0)
    assert point.dropped > 0.3
    assert "not even 1 camera at 20 frames/s keeps p95 <= 5000 ms and at most 1% of the frames dropped" in done.output
    assert "cameras of 20 frames/s each, p95 <= 5000 ms" in out.with_suffix(".html").read_text().replace("&lt;", "<")
