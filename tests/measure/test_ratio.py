"""Ratios in words, and when they have a confidence interval."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from triptych.measure.ratio import FEWEST_RUNS, Ratio, ratio_of, times


def with_low(value: float, low: float) -> Ratio:
    """Return a ratio whose 95% interval begins there, with six degrees of freedom."""
    return Ratio(value, math.log(value / low) / stats.t(6).ppf(0.975), 6)


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (Ratio(4.123), "4.12x (chance unknown)"),
        (with_low(4.123, 4.03), "4.12x (4.03 to 4.22)"),
        (with_low(1.0004, 0.9996), "1.000x (1.000 to 1.001)"),
    ],
)
def test_in_words(ratio: Ratio, text: str) -> None:
    assert str(ratio) == text


@pytest.mark.parametrize(("ratio", "text"), [(0.25, "0.25x"), (1.004, "1.004x"), (1.5, "1.50x"), (4.125, "4.1x")])
def test_as_many_digits_as_a_reader_needs(ratio: float, text: str) -> None:
    assert times(ratio) == text


def test_four_runs_of_each_side_give_an_interval() -> None:
    ratio = ratio_of(4.0, 2.0, [3.9, 4.0, 4.1, 4.0], [1.9, 2.0, 2.1, 2.0])
    assert ratio.significant
    assert math.sqrt(ratio.low * ratio.high) == pytest.approx(2.0)
    for few in ([4.0, 4.0, 4.0], [4.0, 4.0, 4.0, 0.0]):
        assert not ratio_of(4.0, 2.0, few, [1.9, 2.0, 2.1, 2.0]).known


def test_no_rank_test_of_fewer_runs_can_say_more_than_chance() -> None:
    def smallest_p(runs: int) -> float:
        return float(stats.mannwhitneyu(range(runs), range(runs, 2 * runs), method="exact").pvalue)

    assert smallest_p(FEWEST_RUNS - 1) == pytest.approx(0.1)
    assert smallest_p(FEWEST_RUNS) == pytest.approx(0.029, abs=0.001)


def test_how_many_runs_would_tell() -> None:
    ratio = with_low(1.51, 1.39)
    more = ratio.runs_to_tell(1.43, 4, 0.95)
    assert more == 8
    narrower = Ratio(1.51, ratio.error * math.sqrt(4 / more), 2 * (more - 1))
    assert narrower.low > 1.43
    assert ratio.runs_to_tell(1.509, 4, 0.95) is None
