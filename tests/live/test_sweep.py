"""`triptych sweep` against the real server, whose detector sleeps 80 ms: two instances need no second core."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.steady import steady_repository
from triptych.contract import DETECTOR
from triptych.measure import sweep_file
from triptych.measure.sweep_search import CLOSE_ENOUGH
from triptych.measure.traces import Tracing
from triptych.serving.server import Ports, TritonServer
from triptych.wire.model_control import ModelControl

pytestmark = [pytest.mark.triton, pytest.mark.slow]

SERVICE_S = 0.08
"""Long next to all else, so that other work on the machine does not decide what is measured."""

# A shell that runs the tests in the background has SIGINT ignored, and children inherit that.
MAIN = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from triptych.cli.app import main; main()"
)

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def steady(make_repository: Callable[..., Path]) -> Iterator[TritonServer]:
    """A server with three instances of the steady detector, a count that no test asks for."""
    repository = steady_repository(make_repository, SERVICE_S * 1000)
    with TritonServer(
        repository, ports=Ports.free(), log_path=repository.parent / "log", instances={DETECTOR.name: 3}
    ) as server:
        yield server


@pytest.fixture
def control(steady: TritonServer) -> Iterator[ModelControl]:
    with closing(ModelControl(steady.grpc_address)) as opened:
        yield opened


@pytest.fixture
def start(steady: TritonServer, images: Path) -> Start:
    """Start a sweep with these arguments."""

    def begin(*arguments: object) -> subprocess.Popen[str]:
        plain = ("--address", steady.grpc_address, "--images", images, "--warmup-s", 0.5)
        return subprocess.Popen(
            [sys.executable, "-c", MAIN, "sweep", *map(str, (*plain, *arguments))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"COLUMNS": "140", "PATH": ""},
        )

    return begin


@pytest.mark.timing
def test_users_and_instances(start: Start, control: ModelControl, tmp_path: Path) -> None:
    before = control.config(DETECTOR.name)
    out = tmp_path / "sweep.json"
    with start(
        "--users", "1,2,4", "--instances", "1,2", "--duration-s", 2, "--out", out, "--budget-ms", 5000
    ) as process:
        stdout, stderr = process.communicate()
    assert process.returncode == 0, stdout + stderr
    result = sweep_file.read(out)
    one, two = result.series
    assert [one.label, two.label] == ["1 instance", "2 instances"]
    assert [point.users for point in one.points] == [1, 2, 4]
    assert one.knee in (0, 1), "one user keeps one instance busy but for the way, and two do"
    # The detector is busy at any more than that; what the machine does besides can only make it slower.
    for point in one.points[1:]:
        assert 0.5 / SERVICE_S < point.answered_per_s < 1.02 / SERVICE_S
        assert max(point.owners_ms, key=lambda owner: point.owners_ms[owner]) == "detector"
    assert 1.4 < two.most_per_s / one.most_per_s < 2.6
    assert {point.mean_batch for series in result.series for point in series.points} == {1.0}
    assert one.best_within_budget == 2
    assert result.environment.detector is not None
    assert result.environment.detector.instances == 3, "as it was served before"
    assert result.images.count == 3
    for sentence in result.sentences:
        assert sentence in stdout
    assert control.config(DETECTOR.name) == before


@pytest.mark.timing
def test_the_highest_rate_within_a_budget_with_batching(start: Start, control: ModelControl, tmp_path: Path) -> None:
    before = control.config(DETECTOR.name)
    out, runs = tmp_path / "sweep.json", tmp_path / "runs"
    with start(
        *("--rates", "6,24", "--instances", 1, "--max-queue-delay-us", 0, "--duration-s", 2, "--budget-ms", 600),
        *("--out", out, "--keep-runs", runs),
    ) as process:
        stdout, stderr = process.communicate()
    assert process.returncode == 0, stdout + stderr
    (series,) = sweep_file.read(out).series
    assert series.best_within_budget is not None
    best, beyond = series.points[series.best_within_budget : series.best_within_budget + 2]
    assert best.p95_ms <= 600
    assert best.confirmed
    assert best.load.size <= 1.05 / SERVICE_S
    assert beyond.load.size <= CLOSE_ENOUGH * best.load.size
    assert max(point.mean_batch for point in series.points) > 1.2, "what has to wait is batched"
    assert len(list(runs.glob("*.json"))) >= len(series.points)
    assert control.config(DETECTOR.name) == before


@pytest.mark.timing
@pytest.mark.timeout(600)
def test_the_most_cameras(start: Start, control: ModelControl, tmp_path: Path) -> None:
    out = tmp_path / "sweep.json"
    with start(
        *("--fps", 2.2, "--users", 4, "--instances", 1, "--duration-s", 4, "--budget-ms", 1000),
        *("--max-dropped", "5%", "--out", out),
    ) as process:
        stdout, stderr = process.communicate()
    assert process.returncode == 0, stdout + stderr
    (series,) = sweep_file.read(out).series
    assert series.best_within_budget is not None
    most = series.points[series.best_within_budget]
    assert most.confirmed
    assert most.dropped_at_most <= 0.05
    # One instance answers 12.5 frames/s at most: five cameras' worth. What the machine does besides makes it slower.
    assert 4 <= most.users <= 5
    assert f"{most.users} cameras at 2.2 frames/s each are the most within p95 <= 1000 ms" in stdout


def test_no_load_within_the_budget_is_an_exit_code(start: Start) -> None:
    with start("--users", "1", "--duration-s", 1, "--budget-ms", 5) as process:
        stdout, stderr = process.communicate()
    assert process.returncode == 1, stdout + stderr
    assert "no concurrency keeps p95 <= 5 ms: at 1 user it is " in stdout
    assert stderr == ""


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_stopped_amid_a_load_it_leaves_the_server_as_it_was(
    steady: TritonServer, start: Start, control: ModelControl, stop: signal.Signals
) -> None:
    before = control.config(DETECTOR.name)
    with (
        Tracing(steady.grpc_address) as tracing,
        start("--users", "1", "--instances", 1, "--duration-s", 60) as process,
    ):
        traces = tracing._set({})
        while tracing._set({}) == traces:  # its load test has begun to measure
            assert process.poll() is None
            time.sleep(0.05)
        assert control.config(DETECTOR.name) != before
        process.send_signal(stop)
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 130, stdout + stderr
        assert "Traceback" not in stderr
        assert tracing._set({}) == traces
    assert control.config(DETECTOR.name) == before
