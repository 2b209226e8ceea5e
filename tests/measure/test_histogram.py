"""Latencies as a histogram: added up, written down and read back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from triptych.errors import ContractError
from triptych.measure.histogram import RELATIVE_ACCURACY, Histogram


def test_percentiles_are_within_the_accuracy() -> None:
    histogram = Histogram(0.001 * 1.01**number for number in range(2000))
    for percent in (0, 12.5, 50, 99, 100):
        true = 0.001 * 1.01 ** round(percent / 100 * 1999 - 0.01)
        assert histogram.percentile_ms(percent) == pytest.approx(true, rel=RELATIVE_ACCURACY * 1.001 + 0.0101)


def test_one_latency_is_exact_and_nothing_is_too_short() -> None:
    assert Histogram([7.0]).percentile_ms(99) == 7.0
    assert Histogram([0.0]).mean_ms == pytest.approx(1e-6)


def test_histograms_add_up() -> None:
    one, other = [1.0 + 0.1 * i for i in range(500)], [100.0 + i for i in range(500)]
    merged = Histogram(one)
    merged.merge(Histogram.from_json(json.loads(json.dumps(Histogram(other).to_json()))))
    assert merged == Histogram(one + other)
    assert merged.count == 1000
    assert merged.mean_ms == pytest.approx(sum(one + other) / 1000)
    for percent, true in ((0, 1.0), (25, 26.0), (75, 349.5), (100, 599.0)):
        assert merged.percentile_ms(percent) == pytest.approx(true, rel=0.01)
    assert (Histogram().percentile_ms(99), Histogram().mean_ms) == (0, 0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"relative_accuracy": 0.01}, "relative accuracy"),
        ({"count": 7}, "says it counts 7"),
        ({"bins": 1}, r"Expected `array`, got `int` - at `\$\.bins`"),
    ],
)
def test_a_histogram_that_is_not_ours_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ContractError, match=reason):
        Histogram.from_json({**Histogram([1.0, 2.0]).to_json(), **change})
