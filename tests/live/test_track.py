"""`triptych track` on the real Triton: a video to its end, killed and resumed, and through a server's death."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from support.videos import read_lines, serve_camera
from triptych.measure import run_file
from triptych.serving.server import Ports, TritonServer
from triptych.video.sources import file_stem
from triptych.video.stages import OWN_STAGES
from triptych_demo.detector.boards import generate

pytestmark = [pytest.mark.triton, pytest.mark.timeout(600)]

TRACK = [sys.executable, "-m", "triptych", "track"]

LONG = 500
SHORT = 120
SIZE = 480
STEP = 2
"""Pixels that the camera moves over the boards from frame to frame."""

Start = Callable[..., "subprocess.Popen[str]"]


@dataclass(frozen=True)
class Whole:
    """What a run over a whole video left.

    Attributes:
        lines: of the file of tracks.
        run: the run file.
        output: what was printed.
    """

    lines: list[dict[str, Any]]
    run: run_file.Run
    output: str


def film(path: Path, frames: int, times: int = 1) -> Path:
    """Write what a camera sees that moves over a strip of boards with defects, so many times."""
    strip = np.hstack([generate(5, index).image for index in range(3)])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=30, options={"qmin": "2", "qmax": "2"})
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuvj420p"
        views = [
            av.VideoFrame.from_ndarray(
                np.ascontiguousarray(strip[80 : 80 + SIZE, frame * STEP : frame * STEP + SIZE]), "rgb24"
            ).reformat(format="yuvj420p")
            for frame in range(frames)
        ]
        for number in range(frames * times):
            view = views[number % frames]
            view.pts = number
            container.mux(stream.encode(view))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few seconds of boards."""
    return film(tmp_path_factory.mktemp("video") / "boards.avi", SHORT)


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that no busy machine lets end before the test has seen its first lines."""
    return film(tmp_path_factory.mktemp("video") / "long.avi", SHORT, times=10)


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the command with these arguments."""
    begun: list[subprocess.Popen[str]] = []

    def begin(*arguments: object) -> subprocess.Popen[str]:
        command = [*TRACK, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def track_whole(video: Path, server: TritonServer) -> Whole:
    out, run = video.with_name("whole.jsonl"), video.with_name("run.json")
    command = [*TRACK, video, "--out", out, "--address", server.grpc_address, "--run", run]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Whole(read_lines(out), run_file.read(run), done.stdout)


@pytest.fixture(scope="module")
def whole(video: Path, demo_server: TritonServer) -> Whole:
    """The video to its end."""
    return track_whole(video, demo_server)


def await_lines(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lives(lines: list[dict[str, Any]]) -> Counter[int]:
    """Count the frames of each track; no frame may have one twice."""
    for line in lines:
        ids = [item["track_id"] for item in line["objects"] if item["track_id"]]
        assert len(ids) == len(set(ids))
    return Counter(item["track_id"] for line in lines for item in line["objects"] if item["track_id"])


def share_of_long_tracks(lines: list[dict[str, Any]]) -> float:
    """Return which share of all objects belongs to tracks of more than 50 frames."""
    return sum(frames for frames in lives(lines).values() if frames > 50) / sum(len(line["objects"]) for line in lines)


def test_ids_persist(whole: Whole) -> None:
    assert [line["frame"] for line in whole.lines] == list(range(SHORT))
    assert not [line["error"] for line in whole.lines if line["error"]]
    assert [line["time_s"] for line in whole.lines] == pytest.approx([n / 30 for n in range(SHORT)], abs=1e-4)
    assert len(lives(whole.lines)) < 20
    assert max(lives(whole.lines).values()) > 100
    assert share_of_long_tracks(whole.lines) > 0.7
    assert f"{SHORT} frames in " in whole.output
    assert "bounds the throughput" in whole.output or "nobody is busy all the time" in whole.output


@pytest.mark.slow
def test_ids_persist_over_500_frames(demo_server: TritonServer, tmp_path: Path) -> None:
    long = track_whole(film(tmp_path / "boards.avi", LONG), demo_server)
    assert [line["frame"] for line in long.lines] == list(range(LONG))
    # A defect is in view for (480 + its size) / 2, that is some 250 frames; the strip has about 20 of them in all.
    assert len(lives(long.lines)) < 40
    assert max(lives(long.lines).values()) > 150
    assert share_of_long_tracks(long.lines) > 0.8


def test_boxes_of_a_track_move_with_the_camera(whole: Whole) -> None:
    steps = []
    for before, after in itertools.pairwise(whole.lines):
        boxes = {item["track_id"]: item["box_xyxy"] for item in before["objects"] if item["track_id"]}
        for item in after["objects"]:
            box = boxes.get(item["track_id"])
            if box and min(box[0], box[1]) > 20 and max(box[2], box[3]) < SIZE - 20:
                steps.append(box[0] - item["box_xyxy"][0])
    assert len(steps) > 200
    assert np.median(steps) == pytest.approx(STEP, abs=0.3)


def test_the_parts_of_a_frame_add_up_to_what_the_client_measured(whole: Whole) -> None:
    run = whole.run
    assert run.workload.loop == "video"
    assert run.workload.images.count == run.client.latencies.count == SHORT
    assert run.attribution.source == "traces"
    assert run.attribution.requests > 0.98 * SHORT
    for breakdown in run.attribution.breakdowns.values():
        assert set(breakdown.client) == set(OWN_STAGES)
        assert sum(breakdown.owners().values()) == pytest.approx(breakdown.total_ms)
        assert breakdown.client["track"] > 0
        assert breakdown.stages["detector"]["infer"] > 0
        assert breakdown.network_and_client_ms > 0
    assert run.attribution.breakdowns["mean"].total_ms == pytest.approx(run.client.latencies.mean_ms, rel=0.02)
    assert sum(interval.requests for interval in run.intervals) == SHORT
    assert run.server["detector"].requests == SHORT
    assert run.environment.detector is not None
    assert "track" in run.attribution.percentiles_ms
    assert run.power is not None
    assert run.power.seconds == pytest.approx(run.client.seconds)
    assert run.power.devices or run.power.missing, "there is a reason"


def test_kill_9_in_the_middle_and_resume_give_the_same_file(
    start: Start, long_video: Path, demo_server: TritonServer, tmp_path: Path
) -> None:
    out, whole = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    to = ("--address", demo_server.grpc_address)
    process = start(long_video, "--out", out, *to)
    await_lines(out, 25, process)
    process.kill()
    process.wait()
    killed_at = out.read_bytes().count(b"\n")
    with out.open("ab") as file:
        file.write(b'{"frame":')  # the worst that a kill can leave
    resumed = start(long_video, "--out", out, *to, "--resume", "--frames", 20)
    assert resumed.wait() == 0, resumed.communicate()
    at_once = start(long_video, "--out", whole, *to, "--frames", killed_at + 20)
    assert at_once.wait() == 0, at_once.communicate()
    assert read_lines(out) == read_lines(whole)


@pytest.mark.parametrize("thread", [0, -1])
def test_ctrl_c_ends_well(
    start: Start, long_video: Path, demo_server: TritonServer, tmp_path: Path, thread: int
) -> None:
    out = tmp_path / "stopped.jsonl"
    process = start(long_video, "--out", out, "--address", demo_server.grpc_address)
    await_lines(out, 10, process)
    # The kernel chooses which thread has it: the first of them, as a rule.
    os.kill(sorted(int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir())[thread], signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "continue with --resume" in stdout
    assert "Traceback" not in stderr
    assert [line["frame"] for line in read_lines(out)] == list(range(len(read_lines(out))))


@pytest.mark.slow
def test_four_files_share_a_server(video: Path, whole: Whole, demo_server: TritonServer) -> None:
    out, run_path, frames = video.with_name("four"), video.with_name("four.json"), 40
    videos = [video.with_name(f"{number}.avi") for number in range(4)]
    for other in videos:
        other.hardlink_to(video)
    options = ("--out", out, "--address", demo_server.grpc_address, "--frames", frames, "--run", run_path)
    done = subprocess.run([*TRACK, *map(str, (*videos, *options))], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for other in videos:
        assert read_lines(out / f"{other.stem}.jsonl") == whole.lines[:frames], "as if it was alone"
    run = run_file.read(run_path)
    assert run.workload.sources == list(map(str, videos))
    assert [side.latencies.count for side in run.client.videos] == [frames] * 4
    assert all(0 < side.frames_per_s < run.client.rate_per_s for side in run.client.videos)
    assert run.client.latencies.count == 4 * frames
    assert 4 * frames <= run.server["detector"].requests <= 4 * (frames + 2), "what is in flight at the end is left"
    assert run.workload.users == 8
    assert run.attribution.requests > 0.98 * 4 * frames
    assert f"{4 * frames} frames of 4 sources in " in done.stdout


@pytest.mark.slow
def test_a_camera_that_hangs_up_does_not_end_the_others(video: Path, demo_server: TritonServer, tmp_path: Path) -> None:
    frames = 20
    jpegs = [cv2.imencode(".jpg", generate(5, index).image[:SIZE, :SIZE])[1].tobytes() for index in range(3)]
    options = ("--out", tmp_path, "--address", demo_server.grpc_address, "--frames", frames, "--retry-s", 0)
    run_path = tmp_path / "run.json"
    with serve_camera(1000 * jpegs, 500) as steady, serve_camera(5 * jpegs, 10) as short, serve_camera([], 1) as dead:
        sources = (video, steady, short, dead)
        command = [*TRACK, *map(str, (*sources, *options, "--run", run_path))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    places = [url.replace("user:secret@", "").removesuffix("?token=secret") for url in (steady, short, dead)]
    assert done.returncode == 1, done.stderr
    assert "error: 2 of 4 sources ended too early: " in done.stderr, done.stderr
    assert f"{places[1]} cannot be read further: it was closed; the other sources go on" in done.stderr
    assert f"{places[2]} cannot be opened as a video" in done.stderr
    assert "secret" not in done.stderr + done.stdout + run_path.read_text() + run_path.with_suffix(".html").read_text()
    run = run_file.read(run_path)
    assert run.workload.sources == [str(video), *places]
    file, fast, ended, missing = run.client.videos
    assert (file.latencies.count, file.dropped, file.lost) == (frames, 0, "")
    assert (fast.latencies.count, fast.lost) == (frames, "")
    assert fast.dropped > 0, "500 frames/s are more than anybody takes"
    assert 0 < ended.latencies.count + ended.dropped <= 15, "it sent so many"
    assert "it was closed" in ended.lost
    assert (missing.latencies.count, missing.seconds) == (0, 0)
    numbers = [line["frame"] for line in read_lines(tmp_path / f"{file_stem(steady)}.jsonl")]
    assert len(numbers) == frames
    assert numbers[-1] + 1 == frames + fast.dropped


@pytest.mark.slow
def test_no_frame_is_lost_while_the_server_is_killed_and_restarted(
    start: Start, long_video: Path, whole: Whole, demo_repository: Path, tmp_path: Path
) -> None:
    ports, frames = Ports.free(), 2 * SHORT
    out, run = tmp_path / "tracks.jsonl", tmp_path / "run.json"
    with TritonServer(demo_repository, ports=ports, log_path=tmp_path / "log1") as server:
        arguments = ("--address", server.grpc_address, "--retry-s", 120, "--run", run, "--frames", frames)
        process = start(long_video, "--out", out, *arguments)
        await_lines(out, 40, process)
        server.kill()
    assert process.poll() is None
    with TritonServer(demo_repository, ports=ports, log_path=tmp_path / "log2"):
        _, stderr = process.communicate(timeout=300)
    assert "trying again for 120 s" in stderr
    assert "the server answers again" in stderr
    lines = read_lines(out)
    assert [line["frame"] for line in lines] == list(range(frames))
    assert lines[0].pop("video") != whole.lines[0]["video"], "the hash of the file, in its first line"
    assert lines[:SHORT] == [{key: line[key] for key in line if key != "video"} for line in whole.lines]
    assert process.returncode == 1, "the second server cannot say what the first one did with its frames"
    assert "was loaded again while it was measured" in stderr
    assert not run.exists()
