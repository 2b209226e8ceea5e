"""The search for the most that a server bears: which loads to measure, by whether each was borne. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from triptych.measure.sweep import TOO_FEW, Budget, LoadLevel, Point

CLOSE_ENOUGH = 1.05
"""The search for a rate ends where the lowest that is not borne is at most so many times the highest that is."""

CONFIRM_TIMES = 3
"""How many times as long the most within a budget is measured once more, at least."""

ENOUGH_REQUESTS = 1.5
"""...and so many times the fewest requests that bound what the budget is about..."""

LONGER_TIMES = 2.0
"""...and where they depend on each other, for as long as that takes, each time at least so many times as long..."""

LONGEST_TIMES = 10.0
"""...but for no more than so many times as long as at first."""

Between = Callable[[float, float], float | None]


@dataclass(frozen=True)
class Found:
    """Between which loads the most lies.

    Attributes:
        borne: the heaviest that was borne, and confirmed; 0 if there is none.
        beyond: the lightest that was not; infinity if there is none.
    """

    borne: float
    beyond: float


def find_most(
    loads: Iterable[float], bears: Callable[[float], bool], confirms: Callable[[float], bool], between: Between
) -> Found:
    """Find the heaviest load that a server bears.

    The loads are tried from the lightest on, up to the first that is not borne: what is borne beyond it was luck. Then
    the gap is closed, and what was found is tried once more, for longer. If that fails, the search goes on below it.

    Args:
        loads: rates, or numbers of users; at least one.
        bears: measures a load, and says whether the server bore it.
        confirms: measures it for longer, and says the same.
        between: says which load to try between the heaviest that was borne (0 if none was) and the lightest that was
            not (infinity if there is none); None where they are close enough. `closer_rate` and `closer_count` do.
    """
    borne, beyond = [0.0], math.inf
    for first in sorted(loads):
        if not bears(first):
            beyond = first
            break
        borne.append(first)
    while True:
        while (load := between(borne[-1], beyond)) is not None:
            if bears(load):
                borne.append(load)
            else:
                beyond = load
        if not borne[-1] or confirms(borne[-1]):
            return Found(borne[-1], beyond)
        beyond = borne.pop()


def closer_rate(borne: float, beyond: float) -> float | None:
    """Return the middle of a gap between two rates, on a scale of ratios, to three digits.

    Only between rates that were measured: neither below the lightest nor above the heaviest.
    """
    if not borne or math.isinf(beyond) or beyond <= CLOSE_ENOUGH * borne:
        return None
    return float(f"{math.sqrt(borne * beyond):.3g}")


def closer_count(borne: float, beyond: float) -> float | None:
    """Return the middle of a gap between two numbers, down to one; twice the number while there is no end of it."""
    if math.isinf(beyond):
        return 2 * borne
    return (borne + beyond) // 2 if beyond > borne + 1 else None


class Measure(Protocol):
    """What measures a load, for the usual time or for longer, to confirm it."""

    def __call__(self, load: LoadLevel, confirm_s: float | None = None) -> Point:
        """Return what was measured."""


def search_most(loads: Sequence[LoadLevel], measure: Measure, budget: Budget, duration_s: float) -> None:
    """Measure rates, or numbers of cameras, until the most within a budget is known and confirmed.

    Args:
        loads: rates to try first, or the number of cameras to begin with.
        measure: measures a load.
        budget: what it must keep.
        duration_s: how long a load is measured if it is not to be confirmed.
    """
    fps = loads[0].fps

    def load_of(size: float) -> LoadLevel:
        return LoadLevel(int(size), fps=fps) if fps else LoadLevel(rate_per_s=size)

    def confirms(size: float) -> bool:
        load = load_of(size)
        confirm_s = max(CONFIRM_TIMES * duration_s, ENOUGH_REQUESTS * budget.fewest / load.due_per_s)
        longest_s = LONGEST_TIMES * confirm_s
        point = measure(load, confirm_s)
        while budget.broken_by(point) == TOO_FEW:
            confirm_s *= max(LONGER_TIMES, ENOUGH_REQUESTS * budget.fewest / point.independent)
            if confirm_s > longest_s:
                return False
            point = measure(load, confirm_s)
        return not budget.broken_by(point)

    find_most(
        [load.size for load in loads],
        lambda size: not budget.broken_by(measure(load_of(size))),
        confirms,
        closer_count if fps else closer_rate,
    )
