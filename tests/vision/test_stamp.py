"""Class names that travel with the candidates."""

from __future__ import annotations

import numpy as np
import pytest

from triptych.contract import names_id
from triptych.vision.stamp import read_stamp, stamp

NAMES = [("person",), ("cat",), ("person", "cat"), ("cat", "person"), (), ("ünïcode",)]


@pytest.mark.parametrize("names", NAMES)
def test_there_and_back(names: tuple[str, ...]) -> None:
    candidates = np.random.default_rng(1).random((3, 5, 6), np.float32)
    back, meant = read_stamp(stamp(candidates, names_id(names)), 7)
    np.testing.assert_array_equal(back, candidates)
    assert meant.dtype == np.int32
    assert meant.tolist() == [[names_id(names)]] * 3


def test_candidates_without_a_stamp() -> None:
    candidates = np.ones((2, 5, 6), np.float32)
    back, meant = read_stamp(candidates, 7)
    np.testing.assert_array_equal(back, candidates)
    assert meant.tolist() == [[7], [7]]


@pytest.mark.parametrize("shape", [(2, 0, 7), (0, 5, 7), (2, 5), (2, 5, 9)])
def test_candidates_that_cannot_say(shape: tuple[int, ...]) -> None:
    _, meant = read_stamp(np.ones(shape, np.float32), 7)
    assert meant.tolist() == [[7]] * shape[0]


def test_numbers_of_names_differ_and_fit_a_float32() -> None:
    numbers = {names_id(names) for names in NAMES}
    assert len(numbers) == len(NAMES)
    assert all(0 < number < 2**24 and int(np.float32(number)) == number for number in numbers)
