"""How many times as fast: a ratio of two sides' figures, with a confidence interval from the runs of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95

FEWEST_RUNS = 4
"""Of fewer runs on a side there is no confidence interval.

Where two sides do not differ, every order of their runs is as likely. Three against three have 20, so that even the
two most extreme ones have a chance of 2 / 20 = 0.1, and no test without further assumptions can say "more than chance"
at 95%; four against four have 70, and 2 / 70 = 0.029 (Mann and Whitney, Ann. Math. Statist. 1947). Parts of one run
are no substitute: they remember each other, and all of them have what makes this run another one than the next.
"""

MOST_RUNS = 100
"""A difference that this many runs of a side would not show is not worth more of them."""


@dataclass(frozen=True)
class Ratio:
    """By how much B is better: A's milliseconds over B's, or B's rate over A's; above 1, B is.

    Attributes:
        value: of the whole sides.
        error: standard error of its logarithm; infinity where there are too few runs to know.
        freedom: degrees of freedom of the error (Welch, Biometrika 1947).
        known_to: a factor to which the ratio is known at best, however many runs there are.
    """

    value: float
    error: float = math.inf
    freedom: float = 1.0
    known_to: float = 1.0

    @property
    def known(self) -> bool:
        """Whether there is a confidence interval."""
        return self.error < math.inf

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Return a confidence interval; 0 and infinity where there are too few runs for one."""
        if not self.known:
            return 0.0, math.inf
        factor = math.exp(quantile(confidence, self.freedom) * self.error) * self.known_to
        return self.value / factor, self.value * factor

    @property
    def low(self) -> float:
        """The lower end of the 95% confidence interval."""
        return self.interval()[0]

    @property
    def high(self) -> float:
        """The upper end of the 95% confidence interval."""
        return self.interval()[1]

    @property
    def significant(self) -> bool:
        """Whether the 95% confidence interval excludes that nothing changed."""
        return not self.low <= 1 <= self.high

    def runs_to_tell(self, other: float, runs: int, confidence: float) -> int | None:
        """Return how many runs of each side would tell this ratio from another; None if more than `MOST_RUNS`.

        They are thought to vary as those do that there are.

        Args:
            other: the ratio to tell it from.
            runs: how many of each side there are.
            confidence: of the interval that shall not hold it.
        """
        distance = abs(math.log(self.value / other)) - math.log(self.known_to)
        for more in range(runs, MOST_RUNS + 1):
            if quantile(confidence, 2 * (more - 1)) * self.error * math.sqrt(runs / more) < distance:
                return more
        return None

    def __str__(self) -> str:
        """Such as `4.12x (4.03 to 4.21)`, or `4.12x (chance unknown)`."""
        return self.at(CONFIDENCE)

    def at(self, confidence: float) -> str:
        """Write the ratio with its interval of another confidence."""
        if not self.known:
            return f"{self.value:.2f}x (chance unknown)"
        low, high = self.interval(confidence)
        digits = 2 if high - low > 0.02 else 3
        return f"{self.value:.{digits}f}x ({low:.{digits}f} to {high:.{digits}f})"


def ratio_of(
    over: float, under: float, overs: Sequence[float], unders: Sequence[float], known_to: float = 1.0
) -> Ratio:
    """Return a ratio of two sides' figures, and its confidence interval from the figures of the runs of each.

    The interval is that of Welch's t-test on the logarithms (Welch, Biometrika 1947). Its middle, and what the runs
    vary about, are the figures of the whole sides ("sectioning": Asmussen and Glynn, Stochastic Simulation, 2007,
    III.5): a high percentile of few requests is lower than that of many, and so it does not shift the ratio but widens
    the interval. `known_to` is a factor to which the ratio is known at best.
    """
    value = over / under
    if min(len(overs), len(unders)) < FEWEST_RUNS or min(*overs, *unders) <= 0:
        return Ratio(value)
    variances = [_variance(overs, over), _variance(unders, under)]
    freedoms = [len(overs) - 1, len(unders) - 1]
    total = sum(variances)
    parts = sum(variance**2 / of for variance, of in zip(variances, freedoms, strict=True))
    return Ratio(value, math.sqrt(total), total**2 / parts if parts else sum(freedoms), known_to)


def _variance(figures: Sequence[float], whole: float) -> float:
    """Of the mean of the logarithms, about that of the whole."""
    return float(np.sum(np.log(np.array(figures) / whole) ** 2)) / (len(figures) - 1) / len(figures)


def quantile(confidence: float, freedom: float) -> float:
    """Return how many standard errors a two-sided interval reaches, by Student's t."""
    from scipy.special import stdtrit  # here: it takes long to import, and reports of single runs do without

    return float(stdtrit(freedom, (1 + confidence) / 2))


def times(ratio: float) -> str:
    """Write a ratio with as many digits as a reader wants.

    >>> [times(ratio) for ratio in (0.25, 1.004, 1.5, 4.125, 12.0)]
    ['0.25x', '1.004x', '1.50x', '4.1x', '12x']
    """
    digits = 3 if abs(ratio - 1) < 0.01 else 2 if ratio < 2 else 1 if ratio < 10 else 0
    return f"{ratio:.{digits}f}x"
