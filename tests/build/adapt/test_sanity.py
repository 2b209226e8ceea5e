"""Candidates that cannot be right, without labels."""

from __future__ import annotations

import re

import numpy as np
import pytest

from triptych.contract import DetectorSpec
from triptych.errors import BuildError
from triptych_build.adapt.heads import Normalization
from triptych_build.adapt.heads.values import box_reading
from triptych_build.adapt.onnx_file import Adapted
from triptych_build.adapt.sanity import implausible

RECORD = Adapted("raw", "source.onnx", "0" * 64, 2, Normalization(), DetectorSpec(64, 48, ("a", "b")))
FINE = [10.0, 10, 30, 30, 0.9, 1]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (FINE, ""),
        ([0.0] * 6, ""),
        ([10.0, 10, 30, 30, 634, 1], "scores of 634 to 634, where 0 to 1 are expected"),
        ([10.0, 10, 30, 30, -2.5, 1], "--activation sigmoid"),
        ([10.0, 10, 30, 30, np.nan, 1], "some are not finite"),
        ([10.0, 10, 30, 30, 0.9, 2], "classes of 2 to 2, where there are names for 2"),
        ([10.0, 10, 30, 30, 0.9, 0.5], "classes of 0.5 to 0.5"),
        ([30.0, 30, 10, 10, 0.9, 1], "boxes that end before they begin; choose --boxes centers"),
        ([0.2, 0.2, 0.6, 0.6, 0.9, 1], "boxes of at most one pixel; .*--unit fractions"),
        ([640.0, 640, 1280, 1280, 0.9, 1], "outside the image of 64x48; .*--unit pixels"),
    ],
)
def test_what_is_wrong_with_all_candidates(row: list[float], words: str) -> None:
    found = implausible(np.array([[row, row]], np.float32), RECORD)
    assert re.search(words, found) if words else found == ""


def test_one_that_makes_sense_is_enough() -> None:
    inverted = [30.0, 30, 10, 10, 0.9, 1]
    assert implausible(np.array([[inverted, FINE]], np.float32), RECORD) == ""


def test_untrained_weights_may_give_boxes_without_a_size() -> None:
    inverted = np.array([[[30.0, 30, 10, 10, 0.9, 1]]], np.float32)
    assert implausible(inverted, RECORD, is_drawn=True) == ""


def test_corners_of_which_some_lie_far_outside_are_corners_still() -> None:
    """RTMDet on images unlike those that it was trained on: a few of its distances are far too large."""
    rng = np.random.default_rng(4)
    anchors, distances = rng.uniform(0, 320, (1000, 2)), rng.uniform(5, 60, (2, 1000, 2))
    distances[1, :150] *= 50
    rows = np.hstack([anchors - distances[0], anchors + distances[1]])
    assert box_reading([rows], ("centers", "pixels"), (320, 320)) == ("corners", "pixels")


def test_corners_of_boxes_without_a_size_are_corners_still() -> None:
    """CenterNet before it is trained: the corners lie about each other, in no order."""
    rng = np.random.default_rng(0)
    first = rng.uniform(0, 300, (100, 2))
    rows = np.hstack([first, first + rng.normal(0, 3, (100, 2))])
    assert box_reading([rows], ("corners", "pixels"), (320, 320)) == ("corners", "pixels")
    centers = np.hstack([first, rng.uniform(5, 60, (100, 2))])
    assert box_reading([centers], ("corners", "pixels"), (320, 320)) == ("centers", "pixels")
    assert box_reading([centers / 320], ("corners", "pixels"), (320, 320)) == ("centers", "fractions")
    with pytest.raises(BuildError, match="neither as corners nor as centres"):
        box_reading([rng.normal(0, 100, (100, 4))], ("corners", "pixels"), (320, 320))
