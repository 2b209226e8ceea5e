"""How a load changes over its time."""

from __future__ import annotations

from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych_loadtest.shapes import SHAPES, SPIKE, SPIKE_BASE, STEPS, Shape, due_after, share, users_at

TIMES = np.linspace(-0.1, 1.1, 241)


def shares(shape: Shape) -> npt.NDArray[np.float64]:
    return np.array([share(shape, at) for at in TIMES])


def test_every_shape_has_a_function() -> None:
    assert set(SHAPES) == set(get_args(Shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_a_share_and_reaches_the_full_load(shape: Shape) -> None:
    values = shares(shape)
    assert values.min() >= 0
    assert values.max() == 1


def test_a_ramp_grows_evenly() -> None:
    assert share("ramp", 0) == 0
    assert np.all(np.diff(shares("ramp")) >= 0)
    assert [share("ramp", at) for at in (0.25, 0.5, 1)] == [0.25, 0.5, 1]


def test_steps_are_five_of_one_height_and_length() -> None:
    levels, counts = np.unique(shares("step")[(TIMES >= 0) & (TIMES < 0.9999)].round(6), return_counts=True)
    assert levels == pytest.approx(np.arange(1, STEPS + 1) / STEPS)
    assert np.ptp(counts) <= 1
    assert np.all(np.diff(shares("step")) >= 0)


def test_a_spike_goes_back_to_its_base() -> None:
    first, last = SPIKE
    inside = [at for at in TIMES if first + 1e-9 < at < last - 1e-9]
    outside = [at for at in TIMES if not first - 1e-9 <= at <= last + 1e-9]
    assert {share("spike", at) for at in inside} == {1.0}
    assert {share("spike", at) for at in outside} == {SPIKE_BASE}


def test_a_soak_rises_soon_and_holds() -> None:
    assert share("soak", 0) == 0
    assert set(shares("soak")[TIMES >= 0.06]) == {1.0}


def test_there_is_always_a_user() -> None:
    assert [users_at("ramp", at, 5) for at in (0, 0.5, 1)] == [1, 2, 5]


@given(st.sampled_from(sorted(SHAPES)), st.floats(1, 200), st.floats(1, 20))
def test_as_many_requests_come_due_as_the_rate_has_in_it(shape: Shape, rate: float, seconds: float) -> None:
    expected = rate * seconds * np.mean([share(shape, at) for at in np.linspace(0, 1, 2001)])
    due, count = 0.0, 0
    while (due := due_after(due, 1, lambda at: rate * share(shape, at / seconds))) <= seconds:
        count += 1
    assert count == pytest.approx(expected, abs=1.1 + rate * 0.06)


@given(st.floats(0, 100), st.floats(0.01, 1000))
def test_at_a_constant_rate_requests_are_evenly_spaced(start: float, rate: float) -> None:
    assert due_after(start, 1, lambda _at: rate) == pytest.approx(start + 1 / rate, rel=1e-6)
