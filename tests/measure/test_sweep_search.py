"""The search for the most within a budget: rates of a simulated queue, and cameras of a simulated detector."""

from __future__ import annotations

import heapq
import math
import random

import pytest

from support.measured import SERVICE_MS, make_point, queue
from triptych.measure.sweep import Budget, LoadLevel, Point, Series
from triptych.measure.sweep_search import MOST_STEPS, explore, find_most_cameras, next_users


def explored(loads: list[float], budget: Budget | None) -> list[Point]:
    measured: list[Point] = []

    def measure(load: LoadLevel) -> Point:
        measured.append(queue(load))
        return measured[-1]

    explore([LoadLevel(rate_per_s=rate) for rate in loads], measure, budget)
    return measured


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


FPS = 5.0


def cameras(load: LoadLevel, service_s: float, seconds: float, seed: int) -> Point:
    """Cameras on a detector that answers one frame after the other, each in the same time, as `CameraLoop` sends them.

    Of the frames that come while a camera waits it sends the newest, and drops the others.
    """
    assert load.fps
    period_s, rng = 1 / load.fps, random.Random(seed)
    due = [
        (rng.uniform(0, period_s), camera) for camera in range(load.users)
    ]  # when each is sent; by camera, the frame's
    heapq.heapify(due)
    frame_s = {camera: at_s for at_s, camera in due}
    free_s, latencies_ms, dropped = 0.0, [], 0
    while due:
        sent_s, camera = heapq.heappop(due)
        free_s = max(free_s, sent_s) + service_s
        latencies_ms.append((free_s - frame_s[camera]) * 1000)
        came = int((free_s - frame_s[camera]) / period_s)
        dropped += max(0, came - 1)
        frame_s[camera] += max(1, came) * period_s
        if frame_s[camera] < seconds:
            heapq.heappush(due, (max(free_s, frame_s[camera]), camera))
    latencies_ms.sort()
    p95 = latencies_ms[math.ceil(0.95 * len(latencies_ms)) - 1]
    mean = sum(latencies_ms) / len(latencies_ms)
    share = dropped / (dropped + len(latencies_ms))
    return make_point(load, len(latencies_ms) / seconds, mean, p95_ms=p95, fps=load.fps, dropped=share)


@pytest.mark.parametrize("start", [1, 8, 200])
@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 10, 25, 40, 64])
def test_the_search_finds_the_most_cameras_of_a_noiseless_server_to_within_one(capacity: int, start: int) -> None:
    service_s = 1 / (FPS * (capacity + 0.5))  # one more camera sends more frames than it can answer
    budget = Budget(1000, "p95", 0.01)
    measured: list[tuple[int, bool]] = []

    def measure(load: LoadLevel, confirmed: bool = False) -> Point:
        measured.append((load.users, confirmed))
        point = cameras(load, service_s, 60 if confirmed else 20, seed=len(measured))
        return make_point(
            load,
            point.answered_per_s,
            point.mean_ms,
            p95_ms=point.p95_ms,
            fps=FPS,
            dropped=point.dropped,
            confirmed=confirmed,
        )

    find_most_cameras(LoadLevel(start, fps=FPS), measure, lambda load: measure(load, True), budget)
    most, confirmed = measured[-1]
    assert confirmed, "the last step is the longer one"
    assert abs(most - capacity) <= 1
    assert len(measured) <= 2 * math.log2(max(capacity, start)) + 6
    assert len({users for users, confirmed in measured if not confirmed}) == len([1 for _, yes in measured if not yes])


def test_a_number_that_a_longer_run_does_not_confirm_is_searched_below() -> None:
    # Short runs bear six cameras, long ones four.
    def point(load: LoadLevel, most: int, confirmed: bool) -> Point:
        return make_point(load, 1, 10, fps=FPS, dropped=0.0 if load.users <= most else 0.5, confirmed=confirmed)

    confirmed: list[int] = []

    def confirm(load: LoadLevel) -> Point:
        confirmed.append(load.users)
        return point(load, 4, True)

    find_most_cameras(LoadLevel(1, fps=FPS), lambda load: point(load, 6, False), confirm, Budget(100, "p95", 0.01))
    assert confirmed == [6, 5, 4]


def test_where_not_even_one_camera_keeps_the_budget_nothing_is_confirmed() -> None:
    measured: list[int] = []

    def measure(load: LoadLevel) -> Point:
        measured.append(load.users)
        return make_point(load, 1, 10, fps=FPS, dropped=0.5)

    confirmed: list[LoadLevel] = []

    def confirm(load: LoadLevel) -> Point:
        confirmed.append(load)
        return measure(load)

    find_most_cameras(LoadLevel(4, fps=FPS), measure, confirm, Budget(100, "p95", 0.01))
    assert (measured, confirmed) == ([4, 2, 1], [])
    assert next_users([measure(LoadLevel(1, fps=FPS))], Budget(100, "p95", 0.01)) is None
