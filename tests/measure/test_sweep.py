"""The points of a sweep: the knee, what breaks a budget, and the most within it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tritonclient.grpc import model_config_pb2

from support.measured import confirmed, made_up, make_point, queue, rates, users, with_client
from triptych.measure.run_file import Failure
from triptych.measure.sweep import TOO_FEW, Budget, LoadLevel, Point, Series, Setting, best_within, knee
from triptych.serving.queues import limit_queue

RATE = LoadLevel(rate_per_s=20)


def test_the_knee_of_a_queue_is_at_half_of_what_it_can_answer() -> None:
    loads = [LoadLevel(rate_per_s=rate) for rate in (5, 10, 15, 20, 25, 30, 35, 40, 45, 60)]
    series = Series.of("", map(queue, loads), None)
    assert series.knee is not None
    assert series.points[series.knee].rate_per_s == 25


@pytest.mark.parametrize("points", [[], users((1, 10, 100)), users((1, 0, 0), (2, 0, 0))])
def test_there_is_no_knee_without_two_points_of_which_one_was_answered(points: list[Point]) -> None:
    assert knee(points) is None


def test_what_is_within_the_budget_beyond_the_first_that_is_not_is_luck() -> None:
    """10 is borne, 20 is not, 40 is again."""
    assert best_within(rates((10, 5), (20, 90), (40, 5)), Budget(100, "p95")) == 0
    assert best_within(users((1, 10, 5), (2, 10, 90), (4, 10, 5)), Budget(100, "p95")) == 0
    assert best_within(users((1, 10, 90), (2, 10, 5)), Budget(100, "p95")) is None


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        (make_point(LoadLevel(2), 10, 50), ""),
        (make_point(LoadLevel(2), 10, 50.5), "it is 101.0 ms"),
        (make_point(LoadLevel(2), 10, 5, failures=1), "1 request failed"),
        (make_point(RATE, 20, 5), ""),
        (make_point(RATE, 20, 5, grows_ms_per_s=0.9), ""),
        (make_point(RATE, 20, 5, grows_ms_per_s=91), "the latency grows by 91 ms or more each second"),
        (make_point(LoadLevel(2), 20, 5, grows_ms_per_s=91), ""),  # a machine that gets slower, and no queue
        (make_point(RATE, 20, 5, confirmed=True), TOO_FEW),
        (make_point(RATE, 20, 5, confirmed=True, bounds_ms={"p95": 101.0}), "it may be up to 101.0 ms"),
        (make_point(RATE, 20, 5, confirmed=True, bounds_ms={"p95": 99.0}), ""),
        (make_point(LoadLevel(2), 0, 0), "it is 0.0 ms"),
    ],
)
def test_what_breaks_a_budget(point: Point, reason: str) -> None:
    assert Budget(100, "p95").broken_by(point) == reason


CAMERAS = make_point(LoadLevel(3, fps=5), 15, 5, fps=5)


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        (CAMERAS, ""),
        (replace(CAMERAS, dropped=0.01), ""),
        (replace(CAMERAS, dropped=0.012), "1.2% of the frames are dropped"),
        (confirmed(CAMERAS), ""),
        (replace(confirmed(CAMERAS), bounds_ms={}), TOO_FEW),
        (replace(confirmed(CAMERAS), bounds_ms={"p95": 101.0}), "it may be up to 101.0 ms"),
        (replace(confirmed(CAMERAS), independent=458.0), TOO_FEW),
        (replace(confirmed(CAMERAS), independent=459.0), ""),
        (replace(confirmed(CAMERAS), independent=1000.0, dropped=0.005), "up to 1.3% of the frames may be dropped"),
        (replace(confirmed(CAMERAS), independent=5000.0, dropped=0.005), ""),
    ],
)
def test_cameras_may_drop_a_share_of_their_frames(point: Point, reason: str) -> None:
    budget = Budget(100, "p95", 0.01)
    assert budget.broken_by(point) == reason
    assert str(budget) == "p95 <= 100 ms and at most 1% of the frames dropped"
    assert str(point.load) == "3 cameras"


def test_that_no_frame_is_ever_dropped_is_shown_by_no_run() -> None:
    budget = Budget(100, "p95", 0.0)
    assert not budget.broken_by(confirmed(CAMERAS))
    assert budget.broken_by(replace(CAMERAS, dropped=0.001)) == "0.1% of the frames are dropped"


@pytest.mark.parametrize(
    ("budget", "fewest"),
    [
        (Budget(100, "p50"), 1),
        (Budget(100, "p95"), 130),
        (Budget(100, "p95", 0.01), 459),
        (Budget(100, "p99", 0.05), 662),
        (Budget(100, "p50", 0.05), 90),
    ],
)
def test_what_a_budget_is_about_takes_so_many_requests(budget: Budget, fewest: int) -> None:
    assert budget.fewest == fewest


def test_of_a_run_of_cameras_dropped_frames_are_no_failures() -> None:
    failures = {"FrameDropped": Failure(100, "late"), "DeadlineExceeded": Failure(2, "no answer")}
    run = with_client(made_up(requests=198), failures=failures, dependence=3.0)
    point = Point.of(run, LoadLevel(4, fps=5), Setting(), confirmed=True)
    assert (point.failures, round(point.dropped, 3), point.fps, point.confirmed) == (2, 0.333, 5, True)
    assert point.independent == 100
    assert 0.40 < point.dropped_at_most < 0.50
    unsent = Point.of(with_client(run, unsent=7), LoadLevel(rate_per_s=50), Setting())
    assert unsent.failures == 9, "a rate that cannot be sent keeps no budget"


@pytest.mark.parametrize("loads", [[LoadLevel(count, fps=5) for count in (1, 2)], [LoadLevel(rate_per_s=5), RATE]])
def test_a_search_has_an_answer_once_a_longer_run_has_confirmed_it(loads: list[LoadLevel]) -> None:
    points = [make_point(load, 10, 10, fps=load.fps) for load in loads]
    budget = Budget(100, "p95", 0.01)
    assert Series.of("", points, budget).best_within_budget is None
    points[1] = confirmed(points[1])
    series = Series.of("", points, budget)
    assert series.best_within_budget == 1
    assert (series.knee is None) == bool(loads[0].fps)


def test_a_setting_changes_what_it_names_and_nothing_else() -> None:
    config = model_config_pb2.ModelConfig(name="detector", max_batch_size=16)
    config.instance_group.add(count=3)
    limit_queue(config, 64)
    assert Setting().applied(config) == config
    two = Setting(2).applied(config)
    assert (two.instance_group[0].count, config.instance_group[0].count) == (2, 3)
    assert list(two.dynamic_batching.preferred_batch_size) == [1], "no batches, as it is served"
    at_once = Setting(None, 0).applied(config)
    assert not at_once.dynamic_batching.preferred_batch_size, "a delay of 0 is batching all the same"
    assert at_once.dynamic_batching.default_queue_policy.max_queue_size == 64
    unlimited = model_config_pb2.ModelConfig(name="detector", max_batch_size=16)
    assert Setting(None, 0).applied(unlimited).HasField("dynamic_batching")
    assert Setting(None, 500).applied(at_once).dynamic_batching.max_queue_delay_microseconds == 500


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (Setting(), "as served"),
        (Setting(1), "1 instance"),
        (Setting(2, 0), "2 instances, batching delay 0 µs"),
    ],
)
def test_a_setting_in_words(setting: Setting, text: str) -> None:
    assert str(setting) == text
