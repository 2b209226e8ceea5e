"""Bounds of percentiles: how many requests they take, and how often they hold."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from triptych.measure.bounds import (
    BOUNDED,
    CONFIDENCE,
    bound_ms,
    dependence,
    fewest,
    fewest_of_share,
    rank,
    share_at_most,
    too_few,
)
from triptych.measure.histogram import RELATIVE_ACCURACY, Histogram


def test_the_fewest_requests_are_those_of_mlperf() -> None:
    assert {percent: fewest(percent) for percent in BOUNDED} == {90: 64, 95: 130, 99: 662}
    for percent in BOUNDED:
        few = Histogram(float(number) for number in range(1, fewest(percent)))
        assert bound_ms(few, percent) is None
        few.add(10_000.0)
        assert bound_ms(few, percent) == pytest.approx(fewest(percent) - 1, rel=0.011), "one is longer"


@pytest.mark.parametrize("count", [64, 500, 12_345])
@pytest.mark.parametrize("percent", BOUNDED)
def test_the_rank_is_that_of_the_binomial_distribution(percent: float, count: int) -> None:
    at = rank(percent, count)
    below = stats.binom(count, percent / 100)
    if at is None:
        assert below.sf(count - 2) > 1 - CONFIDENCE
    else:
        assert below.sf(at - 1) <= 1 - CONFIDENCE
        assert below.sf(at - 2) > 1 - CONFIDENCE, "the lowest that holds"


def queue(count: int, load: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Latencies, in ms, of requests that come once in 50 ms; what each takes is exponential (D/M/1, Lindley 1952)."""
    service = rng.exponential(load, count)
    behind = np.concatenate([[0.0], np.cumsum(service[:-1] - 1)])
    waiting = behind - np.minimum.accumulate(behind)
    latencies: npt.NDArray[np.float64] = np.maximum(50 * (waiting + service), 0.001)
    return latencies


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_the_bound_is_too_low_in_one_run_of_a_hundred(load: float) -> None:
    """Also where requests wait for each other: a bound that takes them for independent is too low in up to half."""
    rng, runs = np.random.default_rng(int(100 * load)), 200
    true = np.percentile(queue(200_000, load, rng), BOUNDED)
    missed, naive, bounded = 0, 0, 0
    for _ in range(runs):
        latencies = queue(1000, load, rng)
        histogram = Histogram(latencies)
        bounds = [bound_ms(histogram, percent, dependence(latencies)) for percent in BOUNDED]
        bounded += bounds[0] is not None
        missed += any(bound is not None and bound < truth for bound, truth in zip(bounds, true, strict=True))
        naive += (bound_ms(histogram, 90) or math.inf) < true[0]
    assert missed <= 7, "of 200 that are each wrong with a chance of 1%, 2 on average, and 7 four deviations later"
    if load == 0.3:
        assert bounded == runs, "hardly any request waits for another"
    if load == 0.8:
        assert naive > 50


def test_requests_that_do_not_depend_on_each_other_count_nearly_in_full() -> None:
    rng = np.random.default_rng(1)
    found = [dependence(rng.exponential(50, 2000)) for _ in range(50)]
    assert 1 <= np.median(found) < 1.25
    assert dependence([]) == dependence([5.0]) == dependence([5.0] * 100) == 1.0


def test_of_a_queue_that_grows_nothing_is_known() -> None:
    ramp = [50 + 4 * number for number in range(500)]
    assert bound_ms(Histogram(ramp), 95, dependence(ramp)) is None
    assert too_few(500, 95, 12.0) == (
        "too few requests to bound the p95: 500, of which one in 12.0 tells something of its own; it takes 1,560"
    )
    assert too_few(493, 99) == "too few requests to bound the p99: 493; it takes 662"


def test_a_percentile_is_the_nearest_rank_and_its_bound_is_not_below_it() -> None:
    latencies = Histogram([float(number) for number in range(1, 1001)])
    for percent in BOUNDED:
        value, bound = latencies.percentile_ms(percent), bound_ms(latencies, percent)
        assert value == pytest.approx(10 * percent, rel=RELATIVE_ACCURACY)
        assert bound is not None
        assert bound > value


@pytest.mark.parametrize("latency_ms", [0.3, 57.5, 58.0, 58.29, 1000.0])
def test_what_a_histogram_does_not_tell_apart_is_no_memory(latency_ms: float) -> None:
    """A steady server whose answers drift by a thousandth: no sweep would ever end within its budget."""
    assert dependence(latency_ms * np.linspace(1, 1.001, 300)) == 1.0
    assert dependence(latency_ms * np.linspace(1, 1.1, 300)) > 10, "a tenth is a drift"


def test_phases_that_a_percentile_does_not_notice_cost_few_requests() -> None:
    """One in two runs of 20 requests takes half as long again, with a spread of a fifth."""
    rng = np.random.default_rng(0)
    slow = np.repeat(np.cumsum(rng.integers(0, 2, 100)) % 2, 20)
    assert dependence((1 + 0.5 * slow) * np.exp(rng.normal(0, 0.2, 2000))) < 8


@pytest.mark.parametrize(("count", "of"), [(0, 459), (3, 1000), (40, 100)])
def test_the_bound_of_a_share_is_clopper_and_pearson_s(count: int, of: int) -> None:
    exact = stats.binomtest(count, of, alternative="less").proportion_ci(CONFIDENCE, method="exact")
    assert share_at_most(count / of, of) == pytest.approx(exact.high)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05, 0.5, 1.0])
def test_so_many_without_any_bound_a_share(share: float) -> None:
    assert share_at_most(0.0, fewest_of_share(share)) <= share
    if share < 1:
        assert share_at_most(0.0, fewest_of_share(share) - 1) > share


def test_of_nothing_seen_every_share_is_possible() -> None:
    assert share_at_most(0.0, 0) == share_at_most(1.0, 50) == 1.0
