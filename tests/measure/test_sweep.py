"""The points of a sweep: the knee, the most within a budget, and the search for a rate."""

from __future__ import annotations

import math

import pytest
from tritonclient.grpc import model_config_pb2

from support.measured import make_point, rates, users
from triptych.measure.sweep import (
    MOST_STEPS,
    Budget,
    LoadLevel,
    Point,
    Series,
    Setting,
    best_within,
    explore,
    knee,
    next_rate,
)
from triptych.serving.queues import limit_queue

SERVICE_MS = 20.0
"""Of the simulated server, which can answer 50 requests a second."""


def simulated(load: LoadLevel) -> Point:
    """An M/M/1 queue: the mean time in it is the service time over 1 - utilisation, exponentially distributed."""
    assert load.rate_per_s
    utilisation = load.rate_per_s * SERVICE_MS / 1000
    if utilisation >= 1:
        return make_point(load, 1000 / SERVICE_MS, 5000)
    mean_ms = SERVICE_MS / (1 - utilisation)
    return make_point(load, load.rate_per_s, mean_ms, p50_ms=mean_ms * math.log(2), p95_ms=mean_ms * math.log(20))


def explored(loads: list[float], budget: Budget | None) -> list[Point]:
    measured: list[Point] = []

    def measure(load: LoadLevel) -> Point:
        measured.append(simulated(load))
        return measured[-1]

    explore([LoadLevel(rate_per_s=rate) for rate in loads], measure, budget)
    return measured


def test_the_knee_of_a_queue_is_at_half_of_what_it_can_answer() -> None:
    series = Series.of("", explored([5, 10, 15, 20, 25, 30, 35, 40, 45, 60], None), None)
    assert series.knee is not None
    assert series.points[series.knee].rate_per_s == 25


@pytest.mark.parametrize("points", [[], users((1, 10, 100)), users((1, 0, 0), (2, 0, 0))])
def test_there_is_no_knee_without_two_points_of_which_one_was_answered(points: list[Point]) -> None:
    assert knee(points) is None


@pytest.mark.parametrize("budget_ms", [70, 100, 200, 600])
@pytest.mark.parametrize("loads", [[1, 49], [5, 20, 80, 160]])
def test_the_search_finds_the_highest_rate_within_the_budget(loads: list[float], budget_ms: float) -> None:
    budget = Budget(budget_ms, "p95")
    points = explored(loads, budget)
    assert len(points) <= len(loads) + MOST_STEPS
    series = Series.of("", points, budget)
    true = (1 - SERVICE_MS * math.log(20) / budget_ms) * 1000 / SERVICE_MS
    if true < loads[0]:
        assert series.best_within_budget is None
        assert len(points) == len(loads), "nothing to halve"
    elif true > loads[-1]:
        assert series.best_within_budget == len(loads) - 1
        assert len(points) == len(loads)
    else:
        assert series.best_within_budget is not None
        best = series.points[series.best_within_budget].load.size
        # Six halvings of the widest gap, of a factor 49, leave 6%; of a factor 4, less than 5.
        assert true / 1.07 < best <= true


def test_without_a_budget_only_the_rates_that_were_asked_for_are_measured() -> None:
    assert [point.rate_per_s for point in explored([10, 20, 40, 80], None)] == [10, 20, 40, 80]


def test_users_are_never_halved() -> None:
    loads = [LoadLevel(1), LoadLevel(16)]
    measured: list[LoadLevel] = []

    def measure(load: LoadLevel) -> Point:
        measured.append(load)
        return make_point(load, 10, load.users)

    explore(loads, measure, Budget(4, "p50"))
    assert measured == loads


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
