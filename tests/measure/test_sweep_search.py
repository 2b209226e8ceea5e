"""The search for the most within a budget: rates of a simulated queue, and cameras of a simulated detector."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pytest

from support.measured import make_point, open_loop
from triptych.measure.bounds import bounds_of, dependence
from triptych.measure.histogram import Histogram
from triptych.measure.sweep import Budget, LoadLevel, Point, Series, Setting
from triptych.measure.sweep_search import CLOSE_ENOUGH, closer_count, closer_rate, find_most, search_most

DURATION_S = 5.0
RATES = [[10, 20, 40], [7, 15, 33], [1, 60]]


@dataclass
class Measured:
    """What a search measured on a server of which one request after the other is answered.

    Attributes:
        service_s: returns so many service times.
        servers: that answer at a time; None: as many as it takes.
        loads: each with the seconds that it was measured.
        points: what came of it.
    """

    service_s: Callable[[int], npt.NDArray[np.float64]]
    is_a_queue: bool = True
    loads: list[tuple[float, float]] = field(default_factory=list)
    points: dict[float, Point] = field(default_factory=dict)

    def __call__(self, load: LoadLevel, confirm_s: float | None = None) -> Point:
        assert load.rate_per_s
        seconds = confirm_s or DURATION_S
        self.loads.append((load.rate_per_s, seconds))
        run = open_loop(load.rate_per_s, seconds, self.service_s(int(load.rate_per_s * seconds)), queue=self.is_a_queue)
        self.points[load.rate_per_s] = Point.of(run, load, Setting(), confirmed=confirm_s is not None)
        return self.points[load.rate_per_s]

    def answer(self, loads: Sequence[float], budget: Budget) -> float | None:
        """Search, and return the highest rate within the budget."""
        search_most([LoadLevel(rate_per_s=rate) for rate in loads], self, budget, DURATION_S)
        series = Series.of("", self.points.values(), budget)
        return None if series.best_within_budget is None else series.points[series.best_within_budget].rate_per_s


def always(service_s: float) -> Callable[[int], npt.NDArray[np.float64]]:
    return lambda count: np.full(count, service_s)


def exponential(service_s: float, rng: np.random.Generator) -> Callable[[int], npt.NDArray[np.float64]]:
    return lambda count: rng.exponential(service_s, count)


@pytest.mark.parametrize("loads", RATES)
def test_of_a_noiseless_server_the_answer_is_what_it_bears(loads: list[float]) -> None:
    """It answers 20/s. A short test of 21.8/s ends before its queue is as long as the budget."""
    measured, budget = Measured(always(0.05)), Budget(1000, "p95")
    answer = measured.answer(loads, budget)
    assert answer is not None
    assert 20 / CLOSE_ENOUGH <= answer <= 20
    assert measured.points[answer].confirmed
    assert not budget.broken_by(measured(LoadLevel(rate_per_s=answer), 120.0))


def test_a_latency_that_is_long_and_constant_is_within_a_budget_that_is_longer() -> None:
    measured = Measured(always(0.75), is_a_queue=False)
    assert measured.answer([1, 5, 20], Budget(1000, "p95")) == 20
    assert all(point.grows_ms_per_s == 0 for point in measured.points.values())


def test_the_search_stops_at_the_first_rate_beyond() -> None:
    tried: list[float] = []

    def bears(rate: float) -> bool:
        tried.append(rate)
        return rate <= 10 or rate == 40

    found = find_most([10, 20, 40], bears, lambda _rate: True, closer_rate)
    assert 40 not in tried
    assert found.borne == 10
    assert found.beyond == pytest.approx(10.5, abs=0.1)


def true_rate(budget_ms: float, capacity: float) -> float:
    """Return the rate at which a queue D/M/1 has this p95.

    The time in it is exponential with rate mu (1 - s), where s = exp(-(1 - s) / load) (Kleinrock, Queueing Systems I,
    1975, 6.4).
    """
    low, high = 0.0, capacity
    for _ in range(50):
        rate = (low + high) / 2
        sigma = 0.5
        for _ in range(500):
            sigma = math.exp(-(1 - sigma) * capacity / rate)
        low, high = (rate, high) if math.log(20) / (capacity * (1 - sigma)) < budget_ms / 1000 else (low, rate)
    return low


@pytest.mark.parametrize("budget_ms", [80, 400])
def test_of_a_noisy_server_the_answer_is_too_high_in_one_search_of_twenty(budget_ms: float) -> None:
    """Its service times are exponential, 20 ms on average, so that it answers 50 requests a second."""
    budget, true = Budget(budget_ms, "p95"), true_rate(budget_ms, 50)
    answers = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        answers.append(Measured(exponential(0.02, rng)).answer([5, 10, 20, 40, 80], budget))
    found = [answer for answer in answers if answer]
    assert sum(answer > true for answer in found) <= 7, "2 on average, and 4 standard deviations"
    assert len(found) >= 35
    assert np.median(found) > 0.6 * true


def test_the_gap_is_closed_and_what_is_not_confirmed_is_searched_below() -> None:
    confirmed: list[float] = []

    def confirms(rate: float) -> bool:
        confirmed.append(rate)
        return rate <= 12

    found = find_most([1, 50], lambda rate: rate <= 18, confirms, closer_rate)
    assert 12 / CLOSE_ENOUGH**2 <= found.borne <= 12
    assert found.beyond <= CLOSE_ENOUGH * found.borne
    assert confirmed == sorted(confirmed, reverse=True)
    nothing = find_most([10, 20], lambda _rate: True, lambda _rate: False, closer_rate)
    assert (nothing.borne, nothing.beyond) == (0.0, 10)


def test_a_longer_run_has_the_requests_that_its_percentile_takes() -> None:
    for at, fewest_requests in (("p50", 0), ("p90", 64), ("p95", 130), ("p99", 662)):
        measured = Measured(always(0.05))
        assert measured.answer([2], Budget(1000, at)) == 2  # type: ignore[arg-type]
        (_, (rate, seconds)) = measured.loads
        assert seconds >= 3 * DURATION_S
        assert rate * seconds >= 1.5 * fewest_requests - 1


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
    frames, memory, histogram = dropped + len(latencies_ms), dependence(latencies_ms), Histogram(latencies_ms)
    return make_point(
        load,
        len(latencies_ms) / seconds,
        histogram.mean_ms,
        p95_ms=histogram.percentile_ms(95),
        fps=load.fps,
        dropped=dropped / frames,
        bounds_ms=bounds_of(histogram, memory),
        independent=frames / memory,
    )


@pytest.mark.parametrize("start", [1, 8, 200])
@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 10, 25, 40, 64])
def test_the_search_finds_the_most_cameras_of_a_noiseless_server_to_within_one(capacity: int, start: int) -> None:
    service_s = 1 / (FPS * (capacity + 0.5))  # one more camera sends more frames than it can answer
    budget = Budget(1000, "p95", 0.01)
    measured: list[tuple[int, bool]] = []

    def measure(load: LoadLevel, confirm_s: float | None = None) -> Point:
        measured.append((load.users, confirm_s is not None))
        point = cameras(load, service_s, confirm_s or 20, seed=len(measured))
        return replace(point, confirmed=confirm_s is not None)

    search_most([LoadLevel(start, fps=FPS)], measure, budget, 20)
    most, confirmed = measured[-1]
    assert confirmed, "the last step is the longer one"
    assert abs(most - capacity) <= 1
    assert len(measured) <= 2 * math.log2(max(capacity, start)) + 6
    assert len({users for users, confirmed in measured if not confirmed}) == len([1 for _, yes in measured if not yes])


@pytest.mark.parametrize(
    ("most", "budget", "memory", "lengths_s"),
    [
        (LoadLevel(rate_per_s=10), Budget(100, "p95"), 1.0, [19.5]),  # one and a half times what it takes
        (LoadLevel(rate_per_s=10), Budget(100, "p95"), 1.6, [19.5, 39.0]),
        (LoadLevel(rate_per_s=10), Budget(100, "p95"), 4.0, [19.5, 78.0]),
        (LoadLevel(rate_per_s=10), Budget(100, "p95"), 20.0, [19.5]),  # nobody waits for 390 s
        (LoadLevel(rate_per_s=10), Budget(100, "p50"), 20.0, [15.0]),
        (LoadLevel(2, fps=FPS), Budget(100, "p95", 0.01), 1.0, [68.85]),
        (LoadLevel(2, fps=FPS), Budget(100, "p95", 0.01), 2.0, [68.85, 137.7]),
        (LoadLevel(2, fps=FPS), Budget(100, "p95", 0.1), 1.0, [19.5]),
    ],
)
def test_what_is_found_is_confirmed_for_as_long_as_it_takes(
    most: LoadLevel, budget: Budget, memory: float, lengths_s: list[float]
) -> None:
    """Of `memory` requests one tells something of its own."""
    measured_s: list[float] = []

    def measure(load: LoadLevel, confirm_s: float | None = None) -> Point:
        point = make_point(load, load.due_per_s, 20, fps=load.fps, failures=int(load != most))
        if confirm_s is None or point.failures:
            return point
        measured_s.append(confirm_s)
        independent = confirm_s * load.due_per_s / memory
        bounds_ms = {"p95": 50.0} if independent >= 130 else {}
        return replace(point, confirmed=True, independent=independent, bounds_ms=bounds_ms)

    search_most([most], measure, budget, DURATION_S)
    assert measured_s == pytest.approx(lengths_s)


def test_a_number_that_a_longer_run_does_not_confirm_is_searched_below() -> None:
    # Short runs bear six cameras, long ones four.
    confirmed: list[float] = []

    def confirms(count: float) -> bool:
        confirmed.append(count)
        return count <= 4

    assert find_most([1], lambda count: count <= 6, confirms, closer_count).borne == 4
    assert confirmed == [6, 5, 4]


def test_where_not_even_one_camera_keeps_the_budget_nothing_is_confirmed() -> None:
    measured: list[float] = []

    def bears(count: float) -> bool:
        measured.append(count)
        return False

    def confirms(_count: float) -> bool:
        raise AssertionError

    assert find_most([4], bears, confirms, closer_count).borne == 0
    assert measured == [4, 2, 1]
