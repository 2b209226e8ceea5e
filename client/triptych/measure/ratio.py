"""How many times as fast: a ratio of two runs' figures, with a confidence interval from samples of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95

FEWEST_SAMPLES = 3
"""Of fewer intervals (or runs) on a side there is no confidence interval."""


@dataclass(frozen=True)
class Ratio:
    """By how much B is better: A's milliseconds over B's, or B's rate over A's; above 1, B is.

    Attributes:
        value: of the whole runs.
        low, high: 95% confidence interval; 0 and infinity where there are too few samples for one.
    """

    value: float
    low: float = 0.0
    high: float = math.inf

    @property
    def known(self) -> bool:
        """Whether there is a confidence interval."""
        return self.high < math.inf

    @property
    def significant(self) -> bool:
        """Whether the confidence interval excludes that nothing changed."""
        return not self.low <= 1 <= self.high

    def __str__(self) -> str:
        """Such as `4.12x (4.03 to 4.21)`, or `4.12x (chance unknown)`."""
        if not self.known:
            return f"{self.value:.2f}x (chance unknown)"
        digits = 2 if self.high - self.low > 0.02 else 3
        return f"{self.value:.{digits}f}x ({self.low:.{digits}f} to {self.high:.{digits}f})"


def ratio_of(
    over: float, under: float, overs: Sequence[float], unders: Sequence[float], known_to: float = 1.0
) -> Ratio:
    """Return a ratio of two figures of whole runs, and its confidence interval from samples of each.

    The interval is that of Welch's t-test on the logarithms of the samples (Welch, Biometrika 1947). Its middle, and
    what the samples vary about, are the figures of the whole runs ("sectioning": Asmussen and Glynn, Stochastic
    Simulation, 2007, III.5): a high percentile of few requests is lower than that of many, and so it does not shift
    the ratio but widens the interval. `known_to` is a factor to which the ratio is known at best.
    """
    value = over / under
    if min(len(overs), len(unders)) < FEWEST_SAMPLES or min(*overs, *unders) <= 0:
        return Ratio(value)
    variances = [_variance(overs, over), _variance(unders, under)]
    from scipy.special import stdtrit  # here: it takes long to import, and reports of single runs do without

    half = 0.0
    if total := sum(variances):
        freedoms = [len(overs) - 1, len(unders) - 1]
        freedom = total**2 / sum(variance**2 / of for variance, of in zip(variances, freedoms, strict=True))
        half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(total)
    factor = math.exp(half) * known_to
    return Ratio(value, value / factor, value * factor)


def _variance(figures: Sequence[float], whole: float) -> float:
    """Of the mean of the logarithms, about that of the whole."""
    return float(np.sum(np.log(np.array(figures) / whole) ** 2)) / (len(figures) - 1) / len(figures)


def times(ratio: float) -> str:
    """Write a ratio with as many digits as a reader wants.

    >>> [times(ratio) for ratio in (0.25, 1.004, 1.5, 4.125, 12.0)]
    ['0.25x', '1.004x', '1.50x', '4.1x', '12x']
    """
    digits = 3 if abs(ratio - 1) < 0.01 else 2 if ratio < 2 else 1 if ratio < 10 else 0
    return f"{ratio:.{digits}f}x"
