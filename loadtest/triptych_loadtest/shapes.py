"""How a load changes while it is measured: its share of the full load, as a function of time."""

from __future__ import annotations

import math
from collections.abc import Callable

STEPS = 5
"""So many equal steps up to the full load."""

SPIKE_BASE = 0.2
"""What a spike rises from and falls back to..."""

SPIKE = (0.4, 0.6)
"""...between these two points of the time."""

SOAK_RISE = 0.05
"""How much of a soak's time the load takes to rise; then it stays, so that what drifts slowly shows."""

RESOLUTION_S = 0.05
"""A rate that changes is taken as constant for so long."""


def _step(at: float) -> float:
    return (min(STEPS - 1, math.floor(at * STEPS)) + 1) / STEPS


def _spike(at: float) -> float:
    return 1.0 if SPIKE[0] <= at < SPIKE[1] else SPIKE_BASE


SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda _at: 1.0,
    "ramp": lambda at: at,
    "step": _step,
    "spike": _spike,
    "soak": lambda at: min(1.0, at / SOAK_RISE),
}
"""By name: the share of the full load, 0..1, at a point of the time, 0..1."""


def share(shape: str, at: float) -> float:
    """The share of the full load at a point of the time; before it begins as at 0, beyond its end as at 1.

    >>> [share("step", at) for at in (0, 0.5, 1)]
    [0.2, 0.6, 1.0]
    """
    return SHAPES[shape](min(max(at, 0.0), 1.0))


def users_at(shape: str, at: float, users: int) -> int:
    """How many of `users` there are then; at least one."""
    return max(1, round(users * share(shape, at)))


def due_after(start_s: float, requests: float, rate_at: Callable[[float], float]) -> float:
    """When so many requests have come due since `start_s`, at a rate that changes: where its integral reaches them.

    A request alone would be too coarse a step: from a rate near 0 it reaches far into the time when there should
    have been many.

    Args:
        start_s: seconds on the clock of `rate_at`.
        requests: a fraction as well; drawn from the exponential distribution of mean 1, they make a Poisson process.
        rate_at: requests a second at a time; it must not stay 0.

    >>> round(due_after(1.0, 10, lambda _at: 5.0), 6)
    3.0
    """
    at_s = start_s
    while requests > (rate := rate_at(at_s)) * RESOLUTION_S:
        requests -= rate * RESOLUTION_S
        at_s += RESOLUTION_S
    return at_s + requests / rate if requests else at_s
