"""MLPerf's scenarios: early stopping as LoadGen has it, and the search for the server's rate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from triptych.measure.histogram import RELATIVE_ACCURACY, Histogram
from triptych.measure.scenario import RULES, Scenario, estimate_ms, keeps, missing, most_over


@pytest.mark.parametrize(
    ("percent", "queries", "discarded"),
    [(90, 64, 0), (90, 128, 4), (90, 2048, 172), (90, 2116, 178), (90, 2145, 181), (99, 662, 0), (99, 1179125, 11539)],
)
def test_so_many_queries_are_discarded_as_logs_of_loadgen_say(percent: float, queries: int, discarded: int) -> None:
    assert most_over(percent, queries) == discarded + 1


def test_below_the_fewest_queries_there_is_no_estimate() -> None:
    for name, rules in RULES.items():
        if rules.percent:
            enough, too_few = (
                most_over(rules.percent, rules.min_queries),
                most_over(rules.percent, rules.min_queries - 1),
            )
            # A bound may hold without a single slow query; an estimate needs one that is longer.
            assert (enough, too_few) == ((0, -1) if name == "server" else (1, 0))


def test_the_estimate_is_the_longest_but_those_that_are_discarded() -> None:
    latencies = Histogram(range(1, 2049))
    assert estimate_ms(latencies, 90) == pytest.approx(2048 - 172, rel=2 * RELATIVE_ACCURACY)
    assert estimate_ms(Histogram(range(1, 64)), 90) is None


@pytest.mark.parametrize("percent", [90, 99])
def test_the_estimate_is_not_below_the_truth_more_often_than_it_says(percent: float) -> None:
    rng = np.random.default_rng(3)
    truth = -np.log(1 - percent / 100)
    below = 0
    for _ in range(400):
        estimate = estimate_ms(Histogram(rng.exponential(size=1000)), percent)
        assert estimate is not None
        below += estimate < truth
    assert below / 400 <= 0.02


@pytest.mark.parametrize(
    ("over", "queries", "kept"), [(0, 458, False), (0, 459, True), (1, 661, False), (1, 662, True)]
)
def test_a_bound_holds_as_loadgen_decides(over: int, queries: int, kept: bool) -> None:
    assert keeps(over, queries, 99) == kept


def test_what_a_valid_length_lacks() -> None:
    assert missing("multi-stream", 662, 600.0) == []
    assert missing("multi-stream", 661, 12.0) == ["12 s of 600 s", "661 queries of 662"]
    assert missing("offline", 480, 601.0) == ["480 images of 24,576"]


LONG = Scenario("single-stream", 25.31, "", 24.9, 23_000, 600.2, [], None, [])


@pytest.mark.parametrize(
    ("scenario", "sentence"),
    [
        (LONG, "single-stream: p90 25.3 ms, as measured 24.9 ms (23,000 queries in 600 s)"),
        (
            replace(LONG, name="server", value=38.04, budget_ms=100.0),
            "server: 38 queries/s within 100 ms at p99 (23,000 queries in 600 s)",
        ),
        (replace(LONG, name="offline", value=80.25), "offline: 80.2 images/s (23,000 images in 600 s)"),
        (
            replace(LONG, name="multi-stream", value=None, problem="too few queries", queries=8, seconds=10),
            "multi-stream: no result, too few queries (8 queries in 10 s)",
        ),
    ],
)
def test_the_sentence(scenario: Scenario, sentence: str) -> None:
    assert scenario.sentence == sentence
