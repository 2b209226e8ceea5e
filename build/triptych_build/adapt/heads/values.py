"""What the numbers of a head say about how they are read: corners or centres, pixels or fractions, scores or logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from triptych.errors import BuildError
from triptych_build.adapt.heads.head import MOST_QUERIES, SCENES, Activation, Boxes, NoObject, Unit

T = TypeVar("T")

FEWEST_ROWS = 10
"""Fewer boxes than this say nothing about how they are read."""

MOST = 0.9
"""A reading holds if so many of the boxes make sense by it; some belong to anchors that no training ever corrected."""

LARGEST_FRACTION = 2.0
"""Boxes in 0..1 may reach beyond the image, but no detector gives boxes of two pixels only."""

QUIET = -np.log(3)
"""The logit of a score of 0.25: a detector sees nothing in most places."""

LARGEST_OUTLIER = 16.0
"""A few boxes in 0..1 may be far too large, as an exponential makes them; a box in pixels is larger still."""

SLACK = 1e-3
"""How far outside 0..1 a score may lie by rounding."""


def box_reading(
    tables: Sequence[NDArray[Any]],
    habit: tuple[Boxes, Unit],
    size: tuple[int, int],
    in_fractions: Boxes | None = None,
) -> tuple[Boxes, Unit]:
    """Return how boxes are read; as the family does unless all images show another reading.

    Args:
        tables: boxes [M, 4] on each sample image.
        habit: how the family has them.
        size: width and height of the image, in pixels.
        in_fractions: how it has them where they turn out to be in 0..1; by default as in pixels.

    Raises:
        BuildError: they make sense neither as corners nor as centres.
    """
    habits: dict[Unit, Boxes] = {"pixels": habit[0], "fractions": in_fractions or habit[0]}
    readings = [_box_reading(rows, habits, size) if len(rows) >= FEWEST_ROWS else habit for rows in tables]
    if tables and not any(readings):
        raise BuildError(
            "the boxes make sense neither as corners nor as centres: most end before they begin, and have negative "
            "sizes, on sample images; if the model is right, choose --boxes and --unit, or another --head"
        )
    return _agreed(readings) or habit


def _agreed(seen: Sequence[T | None]) -> T | None:
    """Return what all images show that show anything; None if they differ."""
    shown = {one for one in seen if one is not None}
    return shown.pop() if len(shown) == 1 else None


def _box_reading(rows: NDArray[Any], habits: Mapping[Unit, Boxes], size: tuple[int, int]) -> tuple[Boxes, Unit] | None:
    """Return how the boxes on one image are read; None if they make no sense.

    Corners come in order and inside the image. Centres with sizes do so only where all boxes are large and in the
    middle; then both readings make sense.
    """
    sizes = np.abs(rows)
    is_small = np.quantile(sizes, 0.99) <= LARGEST_FRACTION and sizes.max() <= LARGEST_OUTLIER
    unit: Unit = "fractions" if is_small else "pixels"
    habit = habits[unit]
    if habit == "corners-yx":
        return habit, unit
    extent = size if unit == "pixels" else (1, 1)
    first, second = rows[:, :2], rows[:, 2:]
    ordered, positive = (second >= first).all(1), (second >= 0).all(1)
    are_corners = float(np.mean(ordered & inside(first, second, extent, 0.25)))
    are_centers = float(np.mean(positive & inside(first - second / 2, first + second / 2, extent, 0.1)))
    if are_corners >= MOST and are_centers >= MOST:
        return habit, unit
    # On images that are not its own, a DETR's boxes are so large, and reach so far beyond the image, that their
    # centres and sizes are in order too.
    is_detr = habit == "centers" and unit == "fractions" and len(rows) <= MOST_QUERIES
    if are_corners >= MOST and (not is_detr or _go_together(first, second)):
        return "corners", unit
    # Of anchors all over the image, centres and sizes would be in order only near its first corner.
    if unit == "pixels" and np.mean(ordered) >= MOST and are_corners > are_centers:
        return "corners", unit
    # Far too large, as weights give them that never saw such images: a centre would still be in the image.
    if np.mean(ordered) >= MOST and np.mean(inside(first, first, extent, 0.1)) < MOST:
        return "corners", unit
    # Boxes without a size, as untrained weights give them; of a few queries that say all the same, it proves nothing.
    if (habit == "corners" or unit == "pixels") and _go_together(first, second):
        return "corners", unit
    if np.mean(positive) >= MOST and (habit == "centers" or are_centers >= MOST - 0.1):
        return "centers", unit
    return ("corners", unit) if habit == "corners" and np.mean(ordered) >= MOST else None


def inside(
    top_left: NDArray[Any], bottom_right: NDArray[Any], extent: tuple[int, int], margin: float
) -> NDArray[np.bool_]:
    """Return which boxes [n], by two corners [n, 2], lie in an image of an extent, but for a share of it all around."""
    size = np.array(extent)
    return np.asarray(((top_left >= -margin * size) & (bottom_right <= (1 + margin) * size)).all(1))


def _go_together(first: NDArray[Any], second: NDArray[Any]) -> bool:
    """Return whether two corners of a box move together, as they do all over an image; a size does not."""
    spread = first.std(0) * second.std(0)
    together = ((first - first.mean(0)) * (second - second.mean(0))).mean(0)
    return bool((together > MOST * spread).all())


def are_scores(values: NDArray[Any]) -> bool:
    """Return whether all numbers are in 0..1."""
    return bool(values.size == 0 or (values.min() >= -SLACK and values.max() <= 1 + SLACK))


def score_reading(
    tables: Sequence[NDArray[Any]], classes: frozenset[int], *, hint_softmax: bool
) -> tuple[Activation, NoObject]:
    """Return how the class columns of a head become scores.

    A sigmoid's head is trained to say no nearly everywhere: most of its logits are far below 0. A softmax's head says
    so with a class of its own, which wins nearly everywhere. Untrained weights show neither; then the number of names
    and the graph decide.

    Args:
        tables: the columns [M, C] on each sample image.
        classes: how many classes there may be by their names; empty without names.
        hint_softmax: whether the graph looks like that of a family with softmax.
    """
    tables = [rows for rows in tables if len(rows)]
    if not tables:
        return "none", "none"
    count = tables[0].shape[1]
    if all(map(are_scores, tables)):
        if count > 1 and all(np.allclose(rows.sum(1), 1, atol=1e-2) for rows in tables):
            dim = np.concatenate(tables[:SCENES])
            return "none", "first" if dim[:, 0].mean() > dim[:, -1].mean() else "last"
        return "none", "none"
    if count in classes and count - 1 not in classes:
        return "sigmoid", "none"
    winner: NoObject | None = _agreed([_winner(rows) for rows in tables])
    if winner is not None and winner != "none":
        return "softmax", winner
    is_quiet = all(np.median(rows) < QUIET for rows in tables[:SCENES])
    return ("softmax", "last") if not is_quiet and (hint_softmax or count - 1 in classes) else ("sigmoid", "none")


def _winner(rows: NDArray[Any]) -> NoObject:
    """Return whether the first or the last class wins nearly everywhere, by far."""
    places: tuple[tuple[int, NoObject], ...] = ((rows.shape[1] - 1, "last"), (0, "first"))
    for place, name in places if rows.shape[1] > 1 else ():
        others = np.delete(rows, place, axis=1).max(1)
        if np.median(rows[:, place] - others) > 1 and np.median(rows[:, place]) > 0:
            return name
    return "none"
