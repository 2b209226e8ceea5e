"""How fast something grows: a slope whose interval holds for samples that remember each other.

The memory of a process is no cloud about a line. It stands still, jumps when an allocator asks for more, and stands
still again, so a regression over all samples finds slopes that are not there, with intervals far too narrow. What is
left of it without a leak is a random walk, whose drift is estimated by the mean of its steps (Hamilton, Time Series
Analysis, 1994, ch. 15 and 17). The window is cut into blocks, whose medians forget what goes up and down within a block
("sectioning": Asmussen and Glynn, Stochastic Simulation, 2007, III.5). A leak takes every step; a jump takes one, which
widens the interval as much as it moves its middle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from triptych.measure.ratio import CONFIDENCE

START_UP = 0.2
"""The share of the window that is left out: caches fill and pools grow."""

BLOCKS = 10
"""Parts of the rest, whose medians are compared."""

CORRELATION = 0.25
"""Of neighbouring steps between averages over blocks of a random walk (Working, Econometrica 1960)."""

FEWEST_SAMPLES = 25
"""Of fewer there is no slope: a block needs two."""


@dataclass(frozen=True)
class Slope:
    """By how much something grows in a minute.

    Attributes:
        per_min: the estimate.
        low, high: its 95% confidence interval.
    """

    per_min: float
    low: float
    high: float


def slope_of(times_s: Sequence[float], values: Sequence[float]) -> Slope | None:
    """Return the slope of values over times in seconds; None if there are too few.

    It is the mean of the steps between the medians of neighbouring blocks, with the interval of Student's t, widened
    for their correlation.
    """
    if len(values) < FEWEST_SAMPLES:
        return None
    from scipy.special import stdtrit  # here: it takes long to import, and short runs do without

    first = int(len(values) * START_UP)
    minutes = np.array([block.mean() for block in np.array_split(np.asarray(times_s)[first:], BLOCKS)]) / 60
    levels = np.array([np.median(block) for block in np.array_split(np.asarray(values)[first:], BLOCKS)])
    steps = np.diff(levels) / np.diff(minutes)
    mean = float(steps.mean())
    error = float(steps.std(ddof=1)) * math.sqrt((1 + 2 * CORRELATION) / len(steps))
    half = float(stdtrit(len(steps) - 1, (1 + CONFIDENCE) / 2)) * error
    return Slope(mean, mean - half, mean + half)
