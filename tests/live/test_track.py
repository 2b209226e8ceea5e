"""`triptych track` on the real Triton: a video to its end, killed and resumed, and through a server's death."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest

from support import RUN_SCHEMA
from triptych.measure import run_file
from triptych.serving.server import Ports, TritonServer
from triptych.video.stages import OWN_STAGES
from triptych_demo.detector.boards import generate

pytestmark = [pytest.mark.triton, pytest.mark.slow, pytest.mark.timeout(600)]

TRACK = [sys.executable, "-m", "triptych", "track"]

FRAMES = 500
SIZE = 480
STEP = 2
"""Pixels that the camera moves over the boards from frame to frame."""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera that moves over a strip of boards with defects."""
    path = tmp_path_factory.mktemp("video") / "boards.avi"
    strip = np.hstack([generate(5, index).image for index in range(3)])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (SIZE, SIZE))
    for frame in range(FRAMES):
        writer.write(np.ascontiguousarray(strip[80 : 80 + SIZE, frame * STEP : frame * STEP + SIZE, ::-1]))
    writer.release()
    return path


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


@pytest.fixture(scope="module")
def whole(video: Path, demo_server: TritonServer) -> tuple[list[dict], run_file.Run, str]:
    """The lines, the run and the output of the video to its end."""
    out, run = video.with_name("whole.jsonl"), video.with_name("run.json")
    command = [*TRACK, video, "--out", out, "--address", demo_server.grpc_address, "--run", run]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    jsonschema.validate(json.loads(run.read_text()), RUN_SCHEMA)
    return lines(out), run_file.read(run), done.stdout


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def await_lines(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_ids_persist_over_500_frames(whole: tuple[list[dict], run_file.Run, str]) -> None:
    written, _, output = whole
    assert [line["frame"] for line in written] == list(range(FRAMES))
    assert not [line["error"] for line in written if line["error"]]
    lives = Counter(found["track_id"] for line in written for found in line["objects"] if found["track_id"])
    # A defect is in view for (480 + its size) / 2, that is some 250 frames; the strip has about 20 of them in all.
    assert len(lives) < 40
    assert max(lives.values()) > 150
    in_long_tracks = sum(seen for seen in lives.values() if seen > 50)
    assert in_long_tracks > 0.8 * sum(len(line["objects"]) for line in written)
    for line in written:
        ids = [found["track_id"] for found in line["objects"] if found["track_id"]]
        assert len(ids) == len(set(ids))
    assert f"{FRAMES} frames in " in output
    assert "bounds the throughput" in output or "nobody is busy all the time" in output


def test_boxes_of_a_track_move_with_the_camera(whole: tuple[list[dict], run_file.Run, str]) -> None:
    written = whole[0]
    steps = []
    for before, after in itertools.pairwise(written):
        left = {found["track_id"]: found["box_xyxy"] for found in before["objects"] if found["track_id"]}
        for found in after["objects"]:
            box = left.get(found["track_id"])
            if box and min(box[0], box[1]) > 20 and max(box[2], box[3]) < SIZE - 20:
                steps.append(box[0] - found["box_xyxy"][0])
    assert len(steps) > 500
    assert np.median(steps) == pytest.approx(STEP, abs=0.3)


def test_the_parts_of_a_frame_add_up_to_what_the_client_measured(
    whole: tuple[list[dict], run_file.Run, str],
) -> None:
    run = whole[1]
    assert run.workload.loop == "video"
    assert run.workload.images.count == run.client.latencies.count == FRAMES
    assert run.attribution.source == "traces"
    assert run.attribution.requests > 0.98 * FRAMES
    for breakdown in run.attribution.breakdowns.values():
        assert set(breakdown.client) == set(OWN_STAGES)
        assert sum(breakdown.owners().values()) == pytest.approx(breakdown.total_ms)
        assert breakdown.client["track"] > 0
        assert breakdown.stages["detector"]["infer"] > 1
        assert breakdown.network_and_client_ms > 0
    assert run.attribution.breakdowns["mean"].total_ms == pytest.approx(run.client.latencies.mean_ms, rel=0.02)
    assert sum(interval.requests for interval in run.intervals) == FRAMES
    assert run.server["detector"].requests == FRAMES
    assert run.environment.detector is not None
    assert "track" in run.attribution.percentiles_ms


def test_kill_9_in_the_middle_and_resume_give_the_same_file(
    start: Start, video: Path, whole: tuple[list[dict], run_file.Run, str], demo_server: TritonServer
) -> None:
    out = video.with_name("killed.jsonl")
    arguments = (video, "--out", out, "--address", demo_server.grpc_address, "--frames", 200)
    process = start(*arguments)
    await_lines(out, 120, process)
    process.kill()
    process.wait()
    killed_at = out.read_bytes().count(b"\n")
    assert killed_at < 200
    with out.open("ab") as file:
        file.write(b'{"frame":')  # the worst that a kill can leave
    resumed = start(*arguments[:-1], 200 - killed_at, "--resume")
    assert resumed.wait() == 0, resumed.communicate()
    assert lines(out) == whole[0][:200]


def test_ctrl_c_ends_well(start: Start, video: Path, demo_server: TritonServer) -> None:
    out = video.with_name("stopped.jsonl")
    process = start(video, "--out", out, "--address", demo_server.grpc_address)
    await_lines(out, 10, process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "go on with --resume" in stdout
    assert "Traceback" not in stderr
    assert [line["frame"] for line in lines(out)] == list(range(len(lines(out))))


def test_no_frame_is_lost_while_the_server_is_killed_and_restarted(
    start: Start, video: Path, whole: tuple[list[dict], run_file.Run, str], demo_repository: Path, tmp_path: Path
) -> None:
    ports = Ports.free()
    out, run = tmp_path / "tracks.jsonl", tmp_path / "run.json"
    with TritonServer(demo_repository, ports=ports, log_path=tmp_path / "log1") as server:
        arguments = ("--address", server.grpc_address, "--frames", 150, "--retry-s", 120, "--run", run)
        process = start(video, "--out", out, *arguments)
        await_lines(out, 40, process)
        server.kill()
    assert process.poll() is None
    with TritonServer(demo_repository, ports=ports, log_path=tmp_path / "log2"):
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert "trying again for 120 s" in stderr
    assert "the server answers again" in stderr
    assert lines(out) == whole[0][:150]
    measured = run_file.read(run)
    assert measured.client.latencies.count == 150
    assert 0 < measured.server["detector"].requests < 150  # of the second server
    assert measured.attribution.breakdowns["mean"].client["wait"] > 0
