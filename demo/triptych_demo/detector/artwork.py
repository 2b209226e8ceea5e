"""Copper being drawn: the strokes, discs and slabs that a board's artwork is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.uint8]

COPPER = (255,)
LAMINATE = (0,)
_SUBPIXEL_BITS = 4


@dataclass
class Artwork:
    """Copper of one canvas (or of one zone, while it is being painted).

    copper: uint8 [H, W], 255 where there is copper.
    traces: straight pieces of conductor as (x1, y1, x2, y2, width), in pixels.
    """

    copper: Mask
    traces: list[tuple[float, float, float, float, float]] = field(default_factory=list)

    @property
    def height(self) -> int:
        """Its height in pixels."""
        return int(self.copper.shape[0])

    @property
    def width(self) -> int:
        """Its width in pixels."""
        return int(self.copper.shape[1])

    def trace(self, points: list[tuple[float, float]], width: float) -> None:
        """Draw a polyline with round ends and remember its pieces."""
        fixed = np.round(np.asarray(points) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        cv2.polylines(self.copper, [fixed], False, COPPER, max(2, round(width)), shift=_SUBPIXEL_BITS)
        for (x1, y1), (x2, y2) in pairwise(points):
            self.traces.append((x1, y1, x2, y2, width))

    def disc(self, x: float, y: float, radius: float, value: tuple[int] = COPPER) -> None:
        """Draw a filled circle, of copper or of laminate."""
        scale = 1 << _SUBPIXEL_BITS
        centre = (round(x * scale), round(y * scale))
        cv2.circle(self.copper, centre, round(radius * scale), value, -1, shift=_SUBPIXEL_BITS)

    def slab(self, x: float, y: float, half_w: float, half_h: float, rounded: bool = False) -> None:
        """Draw a filled rectangle, or an oblong with semicircular ends if `rounded`."""
        if not rounded:
            corner, far = (round(x - half_w), round(y - half_h)), (round(x + half_w), round(y + half_h))
            cv2.rectangle(self.copper, corner, far, COPPER, -1)
            return
        radius = min(half_w, half_h)
        dx, dy = max(half_w - radius, 0.0), max(half_h - radius, 0.0)
        ends = np.round(np.array([[x - dx, y - dy], [x + dx, y + dy]]) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        cv2.polylines(self.copper, [ends], False, COPPER, max(2, round(2 * radius)), shift=_SUBPIXEL_BITS)


@dataclass(frozen=True)
class Rules:
    """Design rules of one zone, in pixels."""

    width: float
    clearance: float
