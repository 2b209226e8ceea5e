"""Whether the latency grows over a run, as it does where more requests come than are answered."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from triptych.measure.intervals import Interval
from triptych.measure.ratio import CONFIDENCE

FEWEST_PARTS = 5
"""Of fewer parts of a run with answers in them there is no trend."""


def growth_ms_per_s(intervals: Sequence[Interval]) -> float:
    """Return by how many milliseconds the latency grows in a second, at least; 0 where that may be chance.

    It is the lower end of the 95% interval of a line's slope through the means of a run's parts. Parts that remember
    each other make it larger than it is, and so a rate seem too high, but never low enough.

    Args:
        intervals: the equal parts of a run.
    """
    parts = [interval for interval in intervals if interval.requests]
    if len(parts) < FEWEST_PARTS:
        return 0.0
    from scipy.special import stdtrit  # here: it takes long to import

    times_s = np.array([part.start_s for part in parts])
    means_ms = np.array([part.mean_ms for part in parts])
    times_s -= times_s.mean()
    spread = float(times_s @ times_s)
    slope = float(times_s @ means_ms) / spread
    rest = means_ms - means_ms.mean() - slope * times_s
    freedom = len(parts) - 2
    error = math.sqrt(float(rest @ rest) / freedom / spread)
    return max(0.0, slope - float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error)
