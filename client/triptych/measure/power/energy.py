"""Energy between two moments, from the readings of a counter that nobody reads at exactly those moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WORST = 0.5
"""An energy that may be wrong by more than this share of itself is not one."""


@dataclass(frozen=True)
class Energy:
    """What a counter says of a stretch of time.

    Attributes:
        joules: None where it does not say.
        uncertainty_j: by how much that may be wrong.
        unknown: why it does not say; empty if it does.
    """

    joules: float | None = None
    uncertainty_j: float | None = None
    unknown: str = ""


def energy_between(times_s: Sequence[float], joules: Sequence[float], began_s: float, ended_s: float) -> Energy:
    """Return the energy between two moments.

    A counter that is renewed every two seconds stands still between two readings and then leaps. So only the readings
    count at which it moved. Between two of them it is taken to have risen evenly: what it was at a moment is known to
    that step. After the last one it is taken to have gone on as before.

    Args:
        times_s: when it was read, in order.
        joules: what it said.
        began_s: the first moment, in the same clock.
        ended_s: the second one.
    """
    if not times_s or times_s[0] > began_s or times_s[-1] < ended_s:
        return Energy(unknown="its counter could not be read all the time")
    steps_j = np.diff(joules, prepend=-np.inf)
    if (steps_j < 0).any():
        return Energy(unknown="its counter began anew meanwhile")
    at_s, at_j = np.array(times_s)[steps_j > 0], np.array(joules)[steps_j > 0]
    if at_s[-1] <= began_s:
        return Energy(unknown=f"its counter did not move within the {ended_s - began_s:.1f} s")
    if at_s[-1] < ended_s:
        per_s = (at_j[-1] - at_j[0]) / (at_s[-1] - at_s[0])
        at_s, at_j = np.append(at_s, ended_s), np.append(at_j, at_j[-1] + per_s * (ended_s - at_s[-1]))
    moments = [began_s, ended_s]
    began_j, ended_j = np.interp(moments, at_s, at_j)
    around = np.maximum(np.searchsorted(at_s, moments), 1)
    uncertainty_j = float((at_j[around] - at_j[around - 1]).sum())
    if uncertainty_j > WORST * (ended_j - began_j):
        every_s = float(np.diff(at_s).mean())
        return Energy(
            unknown=f"the {ended_s - began_s:.1f} s are too short for its counter, which moves every {every_s:.1f} s"
        )
    return Energy(float(ended_j - began_j), uncertainty_j)
