"""Ratios in words, and when they have a confidence interval."""

from __future__ import annotations

import math

import pytest

from triptych.measure.ratio import Ratio, ratio_of, times


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (Ratio(4.123), "4.12x (chance unknown)"),
        (Ratio(4.123, 4.03, 4.21), "4.12x (4.03 to 4.21)"),
        (Ratio(1.0004, 0.9996, 1.0012), "1.000x (1.000 to 1.001)"),
    ],
)
def test_in_words(ratio: Ratio, text: str) -> None:
    assert str(ratio) == text


@pytest.mark.parametrize(("ratio", "text"), [(0.25, "0.25x"), (1.004, "1.004x"), (1.5, "1.50x"), (4.125, "4.1x")])
def test_as_many_digits_as_a_reader_needs(ratio: float, text: str) -> None:
    assert times(ratio) == text


def test_three_samples_of_each_side_give_an_interval() -> None:
    ratio = ratio_of(4.0, 2.0, [3.9, 4.0, 4.1], [1.9, 2.0, 2.1])
    assert ratio.significant
    assert math.sqrt(ratio.low * ratio.high) == pytest.approx(2.0)
    for few in ([4.0, 4.0], [4.0, 4.0, 0.0]):
        assert not ratio_of(4.0, 2.0, few, [1.9, 2.0, 2.1]).known
