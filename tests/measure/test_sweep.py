"""The points of a sweep: the knee, what breaks a budget, and the most within it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tritonclient.grpc import model_config_pb2

from support.measured import made_up, make_point, queue, rates, users, with_client
from triptych.measure.run_file import Failure
from triptych.measure.sweep import Budget, LoadLevel, Point, Series, Setting, best_within, knee
from triptych.measure.sweep_search import next_rate
from triptych.serving.queues import limit_queue


def test_the_knee_of_a_queue_is_at_half_of_what_it_can_answer() -> None:
    loads = [LoadLevel(rate_per_s=rate) for rate in (5, 10, 15, 20, 25, 30, 35, 40, 45, 60)]
    series = Series.of("", map(queue, loads), None)
    assert series.knee is not None
    assert series.points[series.knee].rate_per_s == 25


@pytest.mark.parametrize("points", [[], users((1, 10, 100)), users((1, 0, 0), (2, 0, 0))])
def test_there_is_no_knee_without_two_points_of_which_one_was_answered(points: list[Point]) -> None:
    assert knee(points) is None


def test_a_rate_that_is_not_kept_up_with_is_beyond_the_budget_however_short_the_answers_take() -> None:
    points = [*rates((10, 5)), make_point(LoadLevel(rate_per_s=20), 15, 5)]
    assert best_within(points, Budget(100, "p95")) == 0
    assert next_rate(points, Budget(100, "p95")) == 14.1


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        (make_point(LoadLevel(2), 10, 50), ""),
        (make_point(LoadLevel(2), 10, 50.5), "it is 101.0 ms"),
        (make_point(LoadLevel(2), 10, 5, failures=1), "1 request failed"),
        (make_point(LoadLevel(rate_per_s=20), 17.5, 5), "17.5 requests/s are answered"),
        (make_point(LoadLevel(2), 0, 0), "it is 0.0 ms"),
    ],
)
def test_what_breaks_a_budget(point: Point, reason: str) -> None:
    assert Budget(100, "p95").broken_by(point) == reason


@pytest.mark.parametrize(("dropped", "reason"), [(0.0, ""), (0.01, ""), (0.012, "1.2% of the frames are dropped")])
def test_cameras_may_drop_a_share_of_their_frames(dropped: float, reason: str) -> None:
    budget = Budget(100, "p95", 0.01)
    point = make_point(LoadLevel(3, fps=5), 15 * (1 - dropped), 5, fps=5, dropped=dropped)
    assert budget.broken_by(point) == reason
    assert str(budget) == "p95 <= 100 ms and at most 1% of the frames dropped"
    assert str(point.load) == "3 cameras"


def test_of_a_run_of_cameras_dropped_frames_are_no_failures() -> None:
    failures = {"FrameDropped": Failure(100, "late"), "DeadlineExceeded": Failure(2, "no answer")}
    run = with_client(made_up(requests=198), failures=failures)
    point = Point.of(run, LoadLevel(4, fps=5), Setting(), confirmed=True)
    assert (point.failures, round(point.dropped, 3), point.fps, point.confirmed) == (2, 0.333, 5, True)


def test_the_most_cameras_are_the_answer_once_a_longer_run_has_confirmed_them() -> None:
    loads = [LoadLevel(count, fps=5) for count in (1, 2)]
    points = [make_point(load, load.users * 5, 10, fps=5) for load in loads]
    budget = Budget(100, "p95", 0.01)
    assert Series.of("", points, budget).best_within_budget is None
    points[1] = replace(points[1], confirmed=True)
    series = Series.of("", points, budget)
    assert (series.best_within_budget, series.knee) == (1, None)


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
