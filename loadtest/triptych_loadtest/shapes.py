"""How a load changes while it is measured: its share of the full load, as a function of time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

Shape = Literal["constant", "ramp", "step", "spike", "soak"]

STEPS = 5
"""Equal steps up to the full load."""

SPIKE_BASE = 0.2
"""What a spike rises from and falls back to..."""

SPIKE = (0.4, 0.6)
"""...between these two points of the time."""

SOAK_RISE = 0.05
"""How much of a soak's time the load takes to rise. Then it stays, so that a slow drift shows."""

RESOLUTION_S = 0.05
"""How long a rate that changes is taken as constant."""


def _step(at: float) -> float:
    return (min(STEPS - 1, math.floor(at * STEPS)) + 1) / STEPS


def _spike(at: float) -> float:
    return 1.0 if SPIKE[0] <= at < SPIKE[1] else SPIKE_BASE


SHAPES: dict[Shape, Callable[[float], float]] = {
    "constant": lambda _at: 1.0,
    "ramp": lambda at: at,
    "step": _step,
    "spike": _spike,
    "soak": lambda at: min(1.0, at / SOAK_RISE),
}
"""By name: the share of the full load, 0..1, at a point of the time, 0..1."""


def share(shape: Shape, at: float) -> float:
    """Return the share of the full load at a point of the time: as at 0 before it begins, as at 1 beyond its end.

    >>> [share("step", at) for at in (0, 0.5, 1)]
    [0.2, 0.6, 1.0]
    """
    return SHAPES[shape](min(max(at, 0.0), 1.0))


def users_at(shape: Shape, at: float, users: int) -> int:
    """Return how many of `users` there are then, at least one."""
    return max(1, round(users * share(shape, at)))


def due_after(start_s: float, requests: float, rate_at: Callable[[float], float]) -> float:
    """Return when so many requests have come due since `start_s`, at a rate that changes.

    That is where the integral of the rate reaches their number. The step of the integration is a short time and not
    one request: at a rate near 0 the next request is far away, and by then the rate has risen to many.

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
