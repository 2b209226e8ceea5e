"""The loops against the real server, by the clock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.steady import SERVICE_MS, measured_in_peace
from support.types import Loadtest
from triptych.measure import run_file
from triptych.measure.run_file import Run

pytestmark = [pytest.mark.triton, pytest.mark.slow, pytest.mark.timing]

Measure = Callable[..., Run]


@pytest.fixture
def measure(steady_address: str, images: Path, loadtest: Loadtest, tmp_path: Path) -> Measure:
    def run(*arguments: object) -> Run:
        out = tmp_path / "run.json"
        done = loadtest("--address", steady_address, "--images", images, "--warmup-s", 0.5, "--out", out, *arguments)
        assert out.exists(), done.stdout + done.stderr
        return run_file.read(out)

    return run


def test_a_slow_camera_loses_no_frame(measure: Measure) -> None:
    run = measure("--users", 1, "--fps", 5, "--duration-s", 4)
    assert run.workload.loop == "camera"
    assert run.client.latencies.count == pytest.approx(20, abs=1)
    # A machine that stands still for 400 ms may lose one; a camera that waits in vain would lose every other.
    assert run.client.failed <= 1
    assert run.client.latencies.percentile_ms(50) < 200


def test_a_camera_that_is_faster_than_the_answers_loses_frames(measure: Measure) -> None:
    run = measure("--users", 1, "--fps", 100, "--duration-s", 4)
    sent, dropped = run.client.latencies.count, run.client.failures["FrameDropped"].count
    assert list(run.client.failures) == ["FrameDropped"]
    assert sent + dropped == pytest.approx(400, abs=8), "every frame has one of two fates"
    assert dropped > sent
    service_ms = run.server["detection"].mean_ms("total")
    assert service_ms > SERVICE_MS
    # One at a time, and each begins at once with the newest frame: nothing but the service bounds the rate.
    assert 0.7 * 1000 / service_ms < run.client.rate_per_s < 1000 / service_ms
    # Latencies count from when a frame was due, at most a period before it was sent.
    assert run.client.latencies.mean_ms > service_ms + 2
    assert "the answer to an earlier frame had not come after 10 ms" in run.client.failures["FrameDropped"].example


def test_an_open_loop_in_steps(measure: Measure) -> None:
    run = measure("--shape", "step", "--rate", 20, "--duration-s", 5, "--intervals", 5)
    counts = [interval.requests for interval in run.intervals]
    assert counts == pytest.approx([4, 8, 12, 16, 20], abs=2)
    assert sum(counts) == pytest.approx(60, abs=2)


def test_a_closed_loop_that_ramps_has_more_users_towards_its_end(measure: Measure) -> None:
    run = measure("--shape", "ramp", "--users", 6, "--duration-s", 5, "--intervals", 5)
    # The detector has two instances, so the first users raise the rate, and the later ones wait.
    assert run.intervals[-1].p50_ms > 1.5 * run.intervals[0].p50_ms
    assert run.intervals[-1].requests > 1.2 * run.intervals[0].requests


def test_several_processes_see_what_one_sees(measure: Measure) -> None:
    """The same rate from one process and from a master with two workers: p50 within 5%."""
    load = ("--rate", 15, "--duration-s", 5, "--no-traces")

    def check() -> None:
        one, two = (measure(*load, "--processes", processes).client for processes in (1, 2))
        for client in (one, two):
            assert client.latencies.count == pytest.approx(75, abs=6)
            assert not client.failures
        assert two.latencies.percentile_ms(50) == pytest.approx(one.latencies.percentile_ms(50), rel=0.05)

    measured_in_peace(check)
