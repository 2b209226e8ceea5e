"""Energy between two moments, out of counters that move when they like: the truth is planted."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.measure.power.energy import energy_between


def readings(
    every_s: float, renewed_every_s: float, watts: float, until_s: float = 14.0
) -> tuple[list[float], list[float]]:
    """A counter of a device that takes `watts`, renewed and read now and then, from 0 s on."""
    times_s = [number * every_s for number in range(int(until_s / every_s) + 1)]
    joules = [1e6 + watts * math.floor(at_s / renewed_every_s + 1e-9) * renewed_every_s for at_s in times_s]
    return times_s, joules


def test_a_counter_that_is_read_often_says_it_closely() -> None:
    energy = energy_between(*readings(0.1, 0.02, 400.0), 1.03, 11.07)
    assert energy.joules == pytest.approx(400 * 10.04, abs=1)
    assert energy.uncertainty_j == pytest.approx(2 * 40, abs=1), "what it took in the two steps"
    assert not energy.unknown


@given(
    began_s=st.floats(0.5, 3.0),
    seconds=st.floats(9.0, 10.0),
    renewed_every_s=st.sampled_from([0.02, 0.1, 0.7, 2.0]),
    watts=st.floats(10.0, 700.0),
)
def test_the_truth_lies_within_the_uncertainty(
    began_s: float, seconds: float, renewed_every_s: float, watts: float
) -> None:
    energy = energy_between(*readings(0.5, renewed_every_s, watts), began_s, began_s + seconds)
    assert energy.joules is not None
    assert energy.uncertainty_j is not None
    assert abs(energy.joules - watts * seconds) <= energy.uncertainty_j + 1e-6
    assert energy.uncertainty_j <= 2 * watts * (renewed_every_s + 0.5) + 1e-6


def test_the_load_alone_counts_not_the_rest_before_and_after() -> None:
    """50 W at rest, 500 W from 2 s to 12 s: the window is exactly the load."""
    times_s = [number / 10 for number in range(141)]
    joules = [50 * at_s + 450 * min(max(at_s - 2, 0), 10) for at_s in times_s]
    assert energy_between(times_s, joules, 2, 12).joules == pytest.approx(5000)


@pytest.mark.parametrize(
    ("times_s", "joules", "reason"),
    [
        ([0, 1, 2, 3], [70, 80, 5, 15], "its counter began anew meanwhile"),
        ([0, 1, 2, 3], [0, 0, 0, 0], "its counter did not move within the 2.0 s"),
        ([0, 0.5, 2, 3], [0, 10, 10, 10], "its counter did not move within the 2.0 s"),
        ([], [], "its counter could not be read all the time"),
        ([1.5, 2, 3], [1, 2, 3], "its counter could not be read all the time"),
        ([0, 1, 2], [1, 2, 3], "its counter could not be read all the time"),
        ([0, 1.9, 3.8], [0, 760, 1520], "the 2.0 s are too short for its counter, which moves every 1.9 s"),
    ],
)
def test_what_is_not_known_is_no_figure(times_s: list[float], joules: list[float], reason: str) -> None:
    energy = energy_between(times_s, joules, 1.0, 3.0)
    assert (energy.joules, energy.uncertainty_j) == (None, None)
    assert energy.unknown == reason


def test_without_a_moment_of_load_there_is_no_energy() -> None:
    assert energy_between([0, 1, 2], [0, 10, 20], 1.5, 1.5).joules is None
