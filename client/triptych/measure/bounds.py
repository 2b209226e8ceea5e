"""How long a percentile may truly be, as the requests of one run show it; of too few requests nobody can say.

A percentile of a run is an estimate. Its upper bound is one of the longer latencies of the same run, by the binomial
distribution of how many requests lie below the true percentile (David and Nagaraja, Order Statistics, 2003, 7.1). As in
MLPerf's LoadGen, at least one latency must be longer than the bound, so that no single request decides it ("early
stopping", mlcommons/inference).

The distribution counts requests that do not depend on each other, and those in a queue do: one that is late makes the
next one late. `dependence` says of how many requests one tells something of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from triptych.measure.histogram import RELATIVE_ACCURACY, SHORTEST_MS, Histogram

CONFIDENCE = 0.99
"""That of MLPerf's LoadGen."""

PERCENTS = (50, 90, 95, 99)
"""The percentiles that are shown."""

BOUNDED = (90, 95, 99)
"""Those of them that have a bound."""

CAUTION = 2.0
"""How many times what requests show of their dependence is taken for true: then 1% of the bounds are too low, or fewer
(`tests/measure/test_bounds.py`), and those of runs that are too short are none."""


@lru_cache
def fewest(percent: float) -> int:
    """Return how many requests it takes to bound a percentile, none of which depends on another.

    >>> [fewest(percent) for percent in BOUNDED]
    [64, 130, 662]
    """
    count = 1
    while rank(percent, count) is None:
        count += 1
    return count


def rank(percent: float, count: int) -> int | None:
    """Return which latency, from the shortest on, is the upper bound of a percentile; None if there are too few.

    It is the first one that lies above the true percentile with 99% confidence: that so many of `count` requests, or
    more, lie below it has a chance of 1% at most.

    Args:
        percent: the percentile, above 0 and below 100.
        count: requests, of which none depends on another.
    """
    from scipy.special import bdtrc  # here: it takes long to import

    first, last = max(1, math.floor(percent * count / 100)), count - 1
    if last < first or bdtrc(last - 1, count, percent / 100) > 1 - CONFIDENCE:
        return None
    while first < last:
        middle = (first + last) // 2
        if bdtrc(middle - 1, count, percent / 100) > 1 - CONFIDENCE:
            first = middle + 1
        else:
            last = middle
    return last


def bound_ms(latencies: Histogram, percent: float, dependence: float = 1.0) -> float | None:
    """Return the upper bound of a percentile, in milliseconds; None if there are too few requests.

    Args:
        latencies: of one run.
        percent: the percentile.
        dependence: of how many requests one tells something of its own, 1 and above.
    """
    independent = int(latencies.count / dependence)
    at = rank(percent, independent)
    return None if at is None else latencies.longest_ms_of(math.ceil(at / independent * latencies.count))


def bounds_of(latencies: Histogram, dependence: float = 1.0) -> dict[str, float]:
    """Return the upper bounds of the percentiles that have one, such as `p95`, in milliseconds; see `bound_ms`."""
    found = {f"p{percent}": bound_ms(latencies, percent, dependence) for percent in BOUNDED}
    return {at: bound for at, bound in found.items() if bound is not None}


def share_at_most(share: float, count: float) -> float:
    """Return the upper bound of a share, 0..1, as Clopper and Pearson have it (Biometrika 1934).

    Args:
        share: that was seen, 0..1.
        count: of how many, of which none depends on another: a number that dependence divided need not be whole (Korn
            and Graubard, Survey Methodology 1998).
    """
    from scipy.special import betaincinv  # here: it takes long to import

    return float(betaincinv(share * count + 1, (1 - share) * count, CONFIDENCE)) if share < 1 and count else 1.0


def fewest_of_share(share: float) -> int:
    """Return of how many none must be seen to bound a share, 0..1; none of them depends on another.

    >>> [fewest_of_share(share) for share in (0.01, 0.05, 1)]
    [459, 90, 1]
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-share)) if share < 1 else 1


def dependence(latencies_ms: Sequence[float] | npt.NDArray[np.float64]) -> float:
    """Return of how many requests one tells something of its own; 1 where none depends on another.

    It is the longest time over which whether they lie above one of the percentiles is remembered: the sum of the
    autocorrelations, up to where neighbouring ones no longer sum up to more than zero (Geyer, "Practical Markov chain
    Monte Carlo", Statistical Science 1992). What is above 1 counts `CAUTION` times, since few parts that do not depend
    on each other show too little of it. What a histogram would not tell from the median counts as the median: else the
    slow drift of a steady server's clock or temperature were a memory.

    Args:
        latencies_ms: in the order in which the requests ended.
    """
    if len(latencies_ms) < 2:
        return 1.0
    latencies = np.maximum(np.asarray(latencies_ms, dtype=np.float64), SHORTEST_MS)
    latencies = np.round(latencies / (2 * RELATIVE_ACCURACY * np.median(latencies)))
    longer = [(latencies > np.percentile(latencies, percent)).astype(np.float64) for percent in BOUNDED]
    return 1 + CAUTION * (max(map(_memory, longer)) - 1)


def too_few(count: int, percent: float, dependence: float = 1.0) -> str:
    """Say how many requests there are to bound a percentile, and how many it takes."""
    depends = f", of which one in {dependence:.1f} tells something of its own" if dependence >= 1.05 else ""
    return f"too few requests to bound the p{percent:g}: {count:,}{depends}; it takes {needed(percent, dependence):,}"


def needed(percent: float, dependence: float = 1.0) -> int:
    """Return how many requests it takes to bound a percentile."""
    return math.ceil(fewest(percent) * dependence)


def _memory(values: npt.NDArray[np.float64]) -> float:
    """Return the integrated autocorrelation time of a series of two or more, in steps; at least 1."""
    count, centred = len(values), values - values.mean()
    if not centred.any():
        return 1.0
    spectrum = np.fft.rfft(centred, 2 ** math.ceil(math.log2(2 * count)))
    covariances = np.fft.irfft(np.abs(spectrum) ** 2)[:count]
    pairs = covariances[: count // 2 * 2].reshape(-1, 2).sum(axis=1)
    positive = pairs[: np.argmax(pairs <= 0)] if (pairs <= 0).any() else pairs
    return max(1.0, float(2 * positive.sum() / covariances[0] - 1))
