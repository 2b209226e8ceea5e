"""What one server bears: read from runs and sweeps whose truth is known, and refused where they do not show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.measured import made_up, rates, users, with_client, with_environment, with_workload
from triptych.errors import MeasurementError
from triptych.measure import sweep_file
from triptych.measure.capacity import Capacity, of_run, of_sweep
from triptych.measure.run_file import Failure, Run
from triptych.measure.sweep import LoadLevel, Point, Series
from triptych.measure.sweep_file import Sweep

SAVED = sweep_file.read(Path(__file__).parent / "data" / "sweep-1.json")
ELSEWHERE = replace(SAVED.environment, address="gpu:8001")


def swept(*series: Sequence[Point]) -> Sweep:
    named = [Series.of(f"setting {number}", points, None) for number, points in enumerate(series)]
    return replace(SAVED, series=named, environment=ELSEWHERE, command=["triptych", "sweep"])


def busy(**changes: Any) -> Run:
    """A closed loop of two users, each of whom waits for the other."""
    return with_workload(made_up(queue_ms=100.0), users=2, **changes)


# --- A sweep

SATURATED = users((1, 10, 100), (2, 19, 105), (4, 20, 200), (8, 20, 400))


def test_of_users_it_is_the_knee() -> None:
    bears = of_sweep(swept(SATURATED), "s.json", 1000)
    assert (bears.images_per_s, bears.p95_ms, bears.at, bears.closed) == (19, 210, "2 users (the knee)", True)


def test_of_users_it_is_less_where_the_latency_asks_for_less() -> None:
    assert of_sweep(swept(SATURATED), "s.json", 205).at == "1 user"


def test_of_rates_it_is_the_highest_within_the_latency() -> None:
    bears = of_sweep(swept(rates((10, 20), (20, 25), (40, 45), (60, 90))), "s.json", 100)
    assert bears == Capacity(40, 90, "a rate of 40/s", 40 * 0.75 * 45 / 1000, closed=False)


def test_the_best_of_several_settings_is_named() -> None:
    sweep = swept(rates((10, 20), (20, 90)), rates((10, 20), (20, 30), (30, 90)))
    assert of_sweep(sweep, "s.json", 100).at == "a rate of 20/s, setting 1"


def test_images_are_counted_and_not_requests() -> None:
    points = [replace(point, batch=8) for point in SATURATED]
    assert of_sweep(swept(points), "s.json", 1000).images_per_s == 8 * 19


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (
            users((1, 10, 100), (2, 10, 200)),
            r"no number of servers keeps a p95 of 100 ms: at 1 user, .* it is 200\.0 ms; make an answer faster",
        ),
        (users((4, 10, 100), (8, 10, 200)), r"at 4 users, .*; measure lighter loads, down to --users 1"),
        (rates((100, 80), (200, 90)), r"at a rate of 100/s, .*; measure lighter loads"),
        ([replace(point, failures=3) for point in SATURATED], "3 requests failed; mend that and measure again"),
        (users((1, 10, 20), (2, 20, 20)), "ends before the limit: 2 users was the heaviest, kept 100 ms"),
        (rates((10, 20), (20, 20)), "than the one before; measure more --rates"),
        (users((1, 10, 20)), "ends before the limit"),
        ([replace(point, fps=5.0) for point in SATURATED], "is of cameras, which drop frames"),
    ],
)
def test_a_sweep_that_shows_no_limit_is_refused(points: Sequence[Point], message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        of_sweep(swept(points), "s.json", 100)


def test_a_rate_that_was_not_kept_up_with_is_not_planned_with() -> None:
    points = [*rates((10, 20)), replace(rates((20, 20))[0], grows_ms_per_s=400.0)]
    assert points[1].load == LoadLevel(rate_per_s=20)
    assert of_sweep(swept(points), "s.json", 100).images_per_s == 10


def test_a_rate_that_no_longer_run_confirmed_is_not_planned_with() -> None:
    points = [replace(point, confirmed=False) for point in rates((10, 20), (20, 90))]
    with pytest.raises(
        MeasurementError, match=r"no longer run confirms that a rate of 10/s keeps 100 ms; .* --rates 10"
    ):
        of_sweep(swept(points), "s.json", 100)


# --- A run


def test_a_run_in_which_requests_wait_shows_what_a_server_bears() -> None:
    run = busy(batch=4)
    bears = of_run(run, "r.json", 300)
    assert bears.images_per_s == pytest.approx(4 * run.client.rate_per_s)
    assert bears.at == "2 users"
    # 200 ms an answer of which 3 are network, one answer at a time.
    assert bears.inflight == pytest.approx(0.985, abs=0.01)
    assert bears.gpus == ()


def test_the_gpus_are_known_where_the_load_generator_was_on_the_servers_machine() -> None:
    here = with_environment(busy(), gpus=["NVIDIA L4"] * 2)
    assert of_run(here, "r.json", 300).gpus == ("NVIDIA L4", "NVIDIA L4")
    assert of_run(with_environment(here, address="gpu:8001"), "r.json", 300).gpus == ()


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (made_up(), r"waited for a free instance for 0% of the mean, so the server was far from what it bears"),
        (with_workload(busy(), loop="camera"), "is of a camera, whose frames come at its own pace"),
        (with_workload(busy(), shape="ramp"), r"changes over the time \(ramp\)"),
        (with_client(busy(), failures={"DeadlineExceeded": Failure(5, "late")}), "5 of 205 requests failed"),
        (made_up(slower=4), r"no number of servers keeps a p95 of 300 ms: without any waiting an answer takes 397"),
        (made_up(queue_ms=300), r"the p95 of r\.json is 4\d\d\.\d ms, .*measure lighter ones with `triptych sweep"),
    ],
)
def test_a_run_that_shows_no_limit_is_refused(run: Run, message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        of_run(run, "r.json", 300)
