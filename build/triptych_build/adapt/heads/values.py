"""What the numbers of a head say about how they are read: corners or centres, pixels or fractions, scores or logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.errors import BuildError
from triptych_build.adapt.heads.head import Activation, Boxes, NoObject, Unit

FEWEST_ROWS = 10
"""Fewer boxes than this say nothing about how they are read."""

MOST = 0.9
"""A reading holds if so many of the boxes make sense by it; some belong to anchors that no training ever corrected."""

LARGEST_FRACTION = 2.0
"""Boxes in 0..1 may reach beyond the image, but no detector gives boxes of two pixels only."""

LARGEST_OUTLIER = 16.0
"""A few boxes in 0..1 may be far too large, as an exponential makes them; a box in pixels is larger still."""

SLACK = 1e-3
"""How far outside 0..1 a score may lie by rounding."""


def box_reading(tables: Sequence[NDArray[Any]], habit: tuple[Boxes, Unit], size: tuple[int, int]) -> tuple[Boxes, Unit]:
    """Return how boxes are read; as the family does unless all images show another reading.

    Args:
        tables: boxes [M, 4] on each sample image.
        habit: how the family has them.
        size: width and height of the image, in pixels.

    Raises:
        BuildError: they make sense neither as corners nor as centres.
    """
    readings = {_box_reading(rows, habit, size) for rows in tables if len(rows) >= FEWEST_ROWS}
    return readings.pop() if len(readings) == 1 else habit


def _box_reading(rows: NDArray[Any], habit: tuple[Boxes, Unit], size: tuple[int, int]) -> tuple[Boxes, Unit]:
    """Return how the boxes on one image are read.

    Corners come in order and inside the image. Centres with sizes do so only where all boxes are large and in the
    middle; then both readings make sense.
    """
    sizes = np.abs(rows)
    is_small = np.quantile(sizes, 0.99) <= LARGEST_FRACTION and sizes.max() <= LARGEST_OUTLIER
    unit: Unit = "fractions" if is_small else "pixels"
    if habit[0] == "corners-yx":
        return habit[0], unit
    extent = np.array(size if unit == "pixels" else (1, 1))
    first, second = rows[:, :2], rows[:, 2:]
    ordered, positive = (second >= first).all(1), (second >= 0).all(1)

    def inside(top_left: NDArray[Any], bottom_right: NDArray[Any], margin: float) -> NDArray[np.bool_]:
        return np.asarray(((top_left >= -margin * extent) & (bottom_right <= (1 + margin) * extent)).all(1))

    are_corners = float(np.mean(ordered & inside(first, second, 0.25)))
    are_centers = float(np.mean(positive & inside(first - second / 2, first + second / 2, 0.1)))
    if are_corners >= MOST:
        return (habit[0] if are_centers >= MOST else "corners"), unit
    if np.mean(positive) >= MOST and (habit[0] == "centers" or are_centers >= MOST - 0.1):
        return "centers", unit
    if habit[0] == "corners" and np.mean(ordered) >= MOST:
        return "corners", unit
    raise BuildError(
        f"the boxes cannot be read: as corners, {1 - np.mean(ordered):.0%} of {len(rows)} boxes on sample images end "
        f"before they begin, and as centres, {1 - np.mean(positive):.0%} have a negative size; if the model is right, "
        "choose --boxes and --unit, or another --head"
    )


def are_scores(values: NDArray[Any]) -> bool:
    """Return whether all numbers are in 0..1."""
    return bool(values.size == 0 or (values.min() >= -SLACK and values.max() <= 1 + SLACK))


def score_reading(rows: NDArray[Any], classes: frozenset[int], *, hint_softmax: bool) -> tuple[Activation, NoObject]:
    """Return how the class columns [M, C] of a head become scores.

    A sigmoid's head is trained to say no nearly everywhere: most of its logits are far below 0. A softmax's head says
    so with a class of its own, which wins nearly everywhere. Untrained weights show neither; then the number of names
    and the graph decide.

    Args:
        rows: the columns, for queries or anchors of a few images.
        classes: how many classes there may be by their names; empty without names.
        hint_softmax: whether the graph looks like that of a family with softmax.
    """
    count = rows.shape[1]
    if not len(rows):
        return "none", "none"
    if are_scores(rows):
        if count > 1 and np.allclose(rows.sum(1), 1, atol=1e-2):
            return "none", "last" if rows[:, -1].mean() >= rows[:, 0].mean() else "first"
        return "none", "none"
    if count > 1:
        for place, name in ((count - 1, "last"), (0, "first")):
            others = np.delete(rows, place, axis=1).max(1)
            if np.median(rows[:, place] - others) > 1 and np.median(rows[:, place]) > 0:
                return "softmax", name  # type: ignore[return-value]  # one of the two
    is_quiet = np.median(rows) < -np.log(3)  # a score of 0.25
    if is_quiet or not (hint_softmax or count - 1 in classes):
        return "sigmoid", "none"
    return "softmax", "last"
