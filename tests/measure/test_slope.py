"""The slope of what grows, and that its interval is not too narrow for what processes do without growing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from triptych.measure.slope import BLOCKS, FEWEST_SAMPLES, Slope, slope_of

Floats = npt.NDArray[np.float64]
Generator = np.random.Generator

MINUTES = 10
SECONDS = np.arange(60.0 * MINUTES)


def slope(values: Floats) -> Slope:
    found = slope_of(SECONDS[: len(values)].tolist(), values.tolist())
    assert found
    return found


def autocorrelated(rng: Generator) -> Floats:
    values = np.zeros(len(SECONDS))
    for index in range(1, len(values)):
        values[index] = 0.98 * values[index - 1] + rng.normal()
    return values


def one_jump(rng: Generator) -> Floats:
    return np.where(rng.uniform(0, SECONDS[-1]) < SECONDS, 64.0, 0.0)


WITHOUT_GROWTH: dict[str, Callable[[Generator], Floats]] = {
    "noise": lambda rng: rng.normal(0, 5, len(SECONDS)),
    "autocorrelated": autocorrelated,
    "random walk": lambda rng: rng.normal(0, 1, len(SECONDS)).cumsum(),
    "one jump": one_jump,
}


@pytest.mark.parametrize("kind", WITHOUT_GROWTH)
def test_the_interval_holds_what_does_not_grow(kind: str) -> None:
    rng = np.random.default_rng(1)
    slopes = [slope(WITHOUT_GROWTH[kind](rng)) for _ in range(300)]
    outside = np.mean([not one.low <= 0 <= one.high for one in slopes])
    assert outside < 0.08, "95% intervals"


def test_a_leak_is_found_in_noise() -> None:
    rng = np.random.default_rng(2)
    found = slope(300 + 12 * SECONDS / 60 + rng.normal(0, 3, len(SECONDS)))
    assert found.low < 12 < found.high
    assert found.low > 8


def test_the_beginning_does_not_count() -> None:
    found = slope(500 * (1 - np.exp(-SECONDS / 20)))
    assert found.low < 0.1
    assert found.per_min < 1


def test_what_stands_still_has_no_slope() -> None:
    assert slope(np.full(len(SECONDS), 7.0)) == Slope(0, 0, 0)


def test_of_few_samples_there_is_no_slope() -> None:
    times_s = [float(second) for second in range(FEWEST_SAMPLES)]
    assert slope_of(times_s[:-1], times_s[:-1]) is None
    exact = slope_of(times_s, times_s)
    assert exact
    assert exact.per_min == pytest.approx(60)
    assert len(times_s) * 0.8 >= 2 * BLOCKS
