"""Which loads a sweep measures: those asked for, and those that close in on the most within a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from triptych.measure.sweep import Budget, LoadLevel, Point, best_within

CLOSE_ENOUGH = 1.05
"""The search for the highest rate ends where the lowest rate beyond the budget is at most so many times it..."""

MOST_STEPS = 6
"""...or after so many rates."""

Measure = Callable[[LoadLevel], Point]


def explore(loads: Sequence[LoadLevel], measure: Measure, budget: Budget | None) -> None:
    """Measure every load; then, for rates and a budget, those that close in on the highest rate within it."""
    points = [measure(load) for load in loads]
    for _ in range(MOST_STEPS if budget and loads[0].rate_per_s is not None else 0):
        points.sort(key=lambda point: point.load.size)
        if budget is None or (rate := next_rate(points, budget)) is None:
            break
        points.append(measure(LoadLevel(rate_per_s=rate)))


def next_rate(points: Sequence[Point], budget: Budget) -> float | None:
    """Return the rate to try next for the highest one within the budget; None if the points, by rate, say enough.

    It halves the gap between the highest rate within and the next one beyond, on a scale of ratios.
    """
    best = best_within(points, budget)
    if best is None or best + 1 == len(points):
        return None
    within, beyond = points[best].load.size, points[best + 1].load.size
    return float(f"{math.sqrt(within * beyond):.3g}") if beyond > CLOSE_ENOUGH * within else None


def find_most_cameras(start: LoadLevel, measure: Measure, confirm: Measure, budget: Budget) -> None:
    """Measure numbers of cameras until the most within the budget is known, and confirm it.

    Args:
        start: the number to begin with, and what each camera sends.
        measure: measures a number of cameras.
        confirm: measures it for longer. If it does not keep the budget then, the search goes on below it.
        budget: what the cameras' frames must keep.
    """
    points = {start.users: measure(start)}
    while True:
        by_load = [points[users] for users in sorted(points)]
        users = next_users(by_load, budget)
        if users is not None:
            points[users] = measure(LoadLevel(users, fps=start.fps))
            continue
        best = best_within(by_load, budget)
        if best is None or by_load[best].confirmed:
            return
        points[by_load[best].users] = confirm(by_load[best].load)


def next_users(points: Sequence[Point], budget: Budget) -> int | None:
    """Return how many cameras to try next; None if the points, by number, say which is the most within the budget.

    It doubles the number until it is beyond the budget, and then halves the gap, down to one camera.
    """
    best = best_within(points, budget)
    if best is None:
        return points[0].users // 2 or None
    within = points[best].users
    if best + 1 == len(points):
        return 2 * within
    beyond = points[best + 1].users
    return (within + beyond) // 2 if beyond > within + 1 else None
