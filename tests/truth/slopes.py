"""Footprints: how fast a process grows, and whether what does not grow is said to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from triptych.measure.footprint import Footprint, ProcessFootprint, Trend, growths
from triptych.measure.ratio import CONFIDENCE
from triptych.measure.remarks import GROWTH_PER_MIN, GROWTH_WITHIN_S
from truth.claims import Experiment, Held

Floats = npt.NDArray[np.float64]
Memory = Callable[[np.random.Generator, Floats], Floats]

PIECE_MB = 4.0


def noise(rng: np.random.Generator, seconds: Floats) -> Floats:
    """Measurements that vary and remember nothing."""
    return rng.normal(0, 5, len(seconds))


def memory_of_before(rng: np.random.Generator, seconds: Floats) -> Floats:
    """Each second is much as the one before, about a level."""
    values = np.zeros(len(seconds))
    steps = rng.normal(0, 1, len(seconds))
    for index in range(1, len(seconds)):
        values[index] = 0.98 * values[index - 1] + steps[index]
    return values


def sawtooth(rng: np.random.Generator, seconds: Floats) -> Floats:
    """A garbage collector lets memory grow for a while, and takes it back."""
    return np.asarray(20 * ((seconds / rng.uniform(15, 45) + rng.random()) % 1))


def start_up(rng: np.random.Generator, seconds: Floats) -> Floats:
    """Caches fill at first."""
    return np.asarray(500 * (1 - np.exp(-seconds / (seconds[-1] / 40))) + noise(rng, seconds))


def jumps(rng: np.random.Generator, seconds: Floats) -> Floats:
    """An allocator asks for more at times, and gives other things back, by chance."""
    at = rng.random(len(seconds)) < 1 / 60
    return np.cumsum(np.where(at, rng.choice([-16.0, 16.0], len(seconds)), 0.0))


def in_pieces(leak_per_min: float) -> Memory:
    """A leak for which the allocator takes a piece at a time."""

    def memory(rng: np.random.Generator, seconds: Floats) -> Floats:
        leaked = leak_per_min * seconds / 60 + PIECE_MB * rng.random()
        return np.asarray(np.floor(leaked / PIECE_MB) * PIECE_MB)

    return memory


def leaking(leak_per_min: float, memory: Memory) -> Memory:
    """A leak besides whatever else the memory does."""
    return lambda rng, seconds: leak_per_min * seconds / 60 + memory(rng, seconds)


def growth(planted: str, memory: Memory, true_per_min: float, minutes: float) -> Experiment:
    """The interval holds the true slope, and what does not grow is not said to."""
    seconds = np.arange(60.0 * minutes)
    grows_not = true_per_min <= GROWTH_PER_MIN

    def trial(seed: int) -> Held:
        values = 300 + memory(np.random.default_rng(seed), seconds)
        trend = Trend.of(seconds.tolist(), values.tolist())
        slope, still = trend.slope, Trend.of(seconds.tolist(), [0.0] * len(seconds))
        process = ProcessFootprint("detector", "1", 1, 0.0, float(seconds[-1]), trend, still, still)
        said = list(growths(Footprint(1.0, float(seconds[-1]), [process], []), GROWTH_WITHIN_S, GROWTH_PER_MIN))
        held: dict[str, bool | None] = {"slope": None if slope is None else slope.low <= true_per_min <= slope.high}
        return held | ({"not said to grow": not said} if grows_not else {})

    stated = {"slope": CONFIDENCE} | ({"not said to grow": (1 + CONFIDENCE) / 2} if grows_not else {})
    return Experiment("loadtest", f"memory: {planted}, {minutes:g} min", trial, stated, quick=40)


EXPERIMENTS = [
    growth("noise", noise, 0.0, 3),
    growth("autocorrelated", memory_of_before, 0.0, 5),
    growth("a sawtooth", sawtooth, 0.0, 10),
    growth("caches that fill", start_up, 0.0, 10),
    growth("jumps up and down", jumps, 0.0, 10),
    growth("a leak of 12 MB a minute in noise", leaking(12, noise), 12.0, 3),
    growth("a leak of 12 MB a minute in pieces of 4 MB", in_pieces(12), 12.0, 10),
    growth("a leak of 3 MB a minute in pieces of 4 MB", in_pieces(3), 3.0, 10),
    growth("a leak of 6 MB a minute under a sawtooth", leaking(6, sawtooth), 6.0, 10),
    growth("a leak of 6 MB a minute among jumps", leaking(6, jumps), 6.0, 30),
]
