"""What a change does to the copper around it: it parts, joins, bites, grows or touches nothing.

A defect is kept only where the copper's connectivity agrees with its label.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from triptych_demo.detector.artwork import Mask

_SMALLEST_PART = 40
"""In pixels: a conductor that is parted leaves two parts of at least this size."""

_SMALLEST_DEPTH = 4.0
"""In pixels: how far a notch or a protrusion stands out from its edge."""


@dataclass(frozen=True)
class Change:
    """A change of some copper, in a window round it.

    Attributes:
        copper: the window before, uint8 of 0 and 1.
        pixels: those that change, uint8 of 0 and 1.
        bodies: the conductor that each pixel belongs to on the whole board; 0 for laminate.
    """

    copper: Mask
    pixels: Mask
    bodies: npt.NDArray[np.int32]

    def near(self, reach: int) -> Mask:
        """Return the pixels that change, and those up to `reach` from them."""
        return grown(self.pixels, reach)

    def bodies_near(self, reach: int) -> set[int]:
        """Return the conductors up to `reach` from what changes."""
        return set(np.unique(self.bodies[self.near(reach) == 1]).tolist()) - {0}


def parts_in_two(change: Change) -> bool:
    """Return whether taking the pixels away parts one conductor in two."""
    before = cv2.connectedComponents(change.copper, connectivity=8, ltype=cv2.CV_32S)[1]
    after_count, after, stats, _ = cv2.connectedComponentsWithStats(change.copper & (1 - change.pixels), connectivity=8)
    near = np.unique(after[(change.near(2) == 1) & (after > 0)])
    return (
        after_count > 2
        and len(near) == 2
        and bool((stats[near, cv2.CC_STAT_AREA] >= _SMALLEST_PART).all())
        and len(np.unique(before[change.pixels == 1])) == 1
        and bool((before[change.near(2) == 1] > 0).any())
    )


def bridges_two(change: Change) -> bool:
    """Return whether copper in the pixels joins two conductors that are separate on the whole board."""
    touched = change.bodies_near(1)
    return len(touched) == 2 and change.bodies_near(4) == touched and clusters(change.near(1) & change.copper) == 2


def bites_one_edge(change: Change) -> bool:
    """Return whether taking the pixels away leaves a notch in one edge, and the conductor in one piece."""
    bare = _bare(change.copper)
    return (
        clusters(change.near(1) & bare) == 1
        and clusters(change.near(3) & bare) == 1
        # What is left must still be one piece round the bite.
        and clusters(change.near(2) & change.copper & _bare(change.pixels)) == 1
        and _deep_enough(change.copper, change.pixels)
    )


def leaves_one_edge(change: Change) -> bool:
    """Return whether copper in the pixels grows out of one edge of one conductor, and comes near no other."""
    return (
        len(change.bodies_near(4)) == 1
        and clusters(change.near(1) & change.copper) == 1
        and clusters(change.near(3) & change.copper) == 1
        and _deep_enough(_bare(change.copper), change.pixels)
    )


def touches_nothing(change: Change) -> bool:
    """Return whether copper in the pixels is alone."""
    return not (change.near(3) & change.copper).any()


def is_enclosed(change: Change) -> bool:
    """Return whether the pixels lie wholly inside copper."""
    return not (change.near(2) & _bare(change.copper)).any()


def grown(mask: Mask, reach: int) -> Mask:
    """Return `mask` dilated by `reach` pixels, in all eight directions for 1 and round beyond."""
    shape = cv2.MORPH_RECT if reach == 1 else cv2.MORPH_ELLIPSE
    kernel = cv2.getStructuringElement(shape, (2 * reach + 1, 2 * reach + 1))
    return np.asarray(cv2.dilate(mask, kernel), np.uint8)


def clusters(mask: Mask) -> int:
    """Return the number of 8-connected groups of set pixels."""
    return int(cv2.connectedComponents(mask, connectivity=8)[0]) - 1


def _bare(mask: Mask) -> Mask:
    return np.asarray(1 - mask, np.uint8)


def _deep_enough(host: Mask, pixels: Mask) -> bool:
    return float(cv2.distanceTransform(host, cv2.DIST_L2, 3)[pixels == 1].max()) >= _SMALLEST_DEPTH
