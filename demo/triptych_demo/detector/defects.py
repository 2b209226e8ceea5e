"""The six standard defects of bare boards, put into a copper mask so that each label is true by construction.

A defect is proposed as a ragged polygon at a random site, applied to a small window of the mask, and kept only
if the copper's connectivity there says what the label says: an `open` parts a conductor in two, a `short` joins
two bodies that were separate on the whole board, a `mouse bite` and a `spur` touch one edge of one body, a
`pin hole` lies wholly inside copper, `spurious copper` touches none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from triptych_demo.detector import connectivity
from triptych_demo.detector.artwork import Mask
from triptych_demo.detector.connectivity import Change
from triptych_demo.detector.outlines import Points, band, blob, bump

CLASS_NAMES = ("open", "short", "mouse bite", "spur", "spurious copper", "pin hole")
OPEN, SHORT, MOUSE_BITE, SPUR, SPURIOUS_COPPER, PIN_HOLE = range(6)

MARGIN_PX = 8.0
"""What is added to a defect's extent on each side to give its box, as a person draws it."""
MIN_SIDE_PX = (30.0, 30.0, 26.0, 26.0, 26.0, 26.0)
"""Smallest box side by class."""

_TRIES = 25
_BORDER = 6
_RAY = 64


@dataclass(frozen=True)
class Defect:
    """One defect: class id, box (x1, y1, x2, y2) in pixels, and the tight extent of the changed copper."""

    label: int
    box_xyxy: tuple[float, float, float, float]
    extent_xyxy: tuple[int, int, int, int]


class DefectPainter:
    """Puts defects into one board.

    Args:
        copper: uint8 [H, W], 1 where there is copper; not changed.
        traces: float [T, 5], straight conductors as (x1, y1, x2, y2, width).
        rng: what all choices are drawn from.
    """

    def __init__(self, copper: Mask, traces: npt.NDArray[np.float64], rng: np.random.Generator) -> None:
        self.copper = copper.copy()
        self.rng = rng
        self.defects: list[Defect] = []
        self._height, self._width = copper.shape
        self._bodies = np.asarray(cv2.connectedComponents(copper, connectivity=8, ltype=cv2.CV_32S)[1], np.int32)
        inside = cv2.distanceTransform(copper, cv2.DIST_L2, 3)
        outside = cv2.distanceTransform(1 - copper, cv2.DIST_L2, 3)
        self._signed = inside - outside
        contours = cv2.findContours(copper, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]
        edges = np.concatenate(contours)[:, 0, :] if contours else np.zeros((0, 2), np.int32)
        self._edges = edges[self._within(edges[:, 0], edges[:, 1])]
        self._traces = traces
        self._makers: dict[int, Callable[[], bool]] = {
            OPEN: self._open,
            SHORT: self._short,
            MOUSE_BITE: self._mouse_bite,
            SPUR: self._spur,
            SPURIOUS_COPPER: self._spurious_copper,
            PIN_HOLE: self._pin_hole,
        }

    def add(self, label: int) -> bool:
        """Try to add a defect of class `label`; return False if there is no site for it."""
        return any(self._makers[label]() for _ in range(_TRIES))

    # Proposals: each draws one site and shape, and says whether the result agrees with its label.

    def _open(self) -> bool:
        if not len(self._traces):
            return False
        x1, y1, x2, y2, width = self._traces[int(self.rng.integers(len(self._traces)))]
        length = math.hypot(x2 - x1, y2 - y1)
        if length < 14.0:
            return False
        along = float(self.rng.uniform(0.1, 0.9))
        centre = (x1 + along * (x2 - x1), y1 + along * (y2 - y1))
        angle = math.atan2(y2 - y1, x2 - x1)
        gap = max(4.0, min(float(np.exp(self.rng.uniform(1.6, 3.1))), width * 1.6 + 4.0))
        shape = band(self.rng, centre, angle, gap, width + 6.0)
        return self._commit(OPEN, shape, connectivity.parts_in_two)

    def _short(self) -> bool:
        site = self._edge_site()
        if site is None:
            return False
        x, y, nx, ny = site
        gap = self._free_length(x, y, nx, ny, copper=False)
        if not 3.0 <= gap <= 46.0:
            return False
        thickness = max(4.0, min(float(np.exp(self.rng.uniform(1.6, 3.1))), gap * 3.0))
        centre = (x + nx * (gap + 1) / 2, y + ny * (gap + 1) / 2)
        shape = band(self.rng, centre, math.atan2(nx, -ny), thickness, gap + 5.0)
        return self._commit(SHORT, shape, connectivity.bridges_two)

    def _mouse_bite(self) -> bool:
        site = self._edge_site()
        if site is None:
            return False
        x, y, nx, ny = site
        depth_limit = self._free_length(x, y, -nx, -ny, copper=True)
        if depth_limit < 8.0:
            return False
        depth = min(float(np.exp(self.rng.uniform(1.75, 2.9))), depth_limit * 0.72)
        span = depth * float(self.rng.uniform(0.9, 2.4))
        shape = bump(self.rng, (x, y), (-nx, -ny), depth, float(np.clip(span, 8.0, 30.0)))
        return self._commit(MOUSE_BITE, shape, connectivity.bites_one_edge)

    def _spur(self) -> bool:
        site = self._edge_site()
        if site is None:
            return False
        x, y, nx, ny = site
        room = self._free_length(x, y, nx, ny, copper=False)
        if room < 9.0:
            return False
        length = min(float(np.exp(self.rng.uniform(1.8, 3.1))), room - 4.0)
        span = length * float(self.rng.uniform(0.55, 1.8))
        shape = bump(self.rng, (x, y), (nx, ny), length, float(np.clip(span, 7.0, 28.0)))
        return self._commit(SPUR, shape, connectivity.leaves_one_edge)

    def _spurious_copper(self) -> bool:
        x, y, room = self._random_point(copper=False)
        if room < 7.0:
            return False
        radius = min(float(np.exp(self.rng.uniform(1.1, 2.75))), (room - 3.0) * 1.1)
        shape = blob(self.rng, (x, y), radius, float(self.rng.uniform(1.0, 2.0)))
        return self._commit(SPURIOUS_COPPER, shape, connectivity.touches_nothing)

    def _pin_hole(self) -> bool:
        x, y, room = self._random_point(copper=True)
        if room < 5.0:
            return False
        radius = min(float(np.exp(self.rng.uniform(0.8, 2.1))), (room - 2.0) * 0.9)
        shape = blob(self.rng, (x, y), max(radius, 2.0), float(self.rng.uniform(1.0, 1.6)))
        return self._commit(PIN_HOLE, shape, connectivity.is_enclosed)

    # Sites.

    def _within(self, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        return (x >= _BORDER) & (y >= _BORDER) & (x < self._width - _BORDER) & (y < self._height - _BORDER)

    def _edge_site(self) -> tuple[float, float, float, float] | None:
        """Return a random edge pixel and the unit normal out of the copper; None where the edge has no clear side."""
        if not len(self._edges):
            return None
        x, y = (int(v) for v in self._edges[int(self.rng.integers(len(self._edges)))])
        near = self._signed[y - 4 : y + 5, x - 4 : x + 5]
        gx, gy = float((near[:, :4] - near[:, 5:]).sum()), float((near[:4] - near[5:]).sum())
        norm = math.hypot(gx, gy)
        return None if norm < 20.0 else (float(x), float(y), gx / norm, gy / norm)

    def _free_length(self, x: float, y: float, dx: float, dy: float, copper: bool) -> float:
        """Return the pixels from an edge along a direction until copper ends (or, if not `copper`, until it begins)."""
        steps = np.arange(2, _RAY)
        xs = np.clip(np.round(x + dx * steps), 0, self._width - 1).astype(np.intp)
        ys = np.clip(np.round(y + dy * steps), 0, self._height - 1).astype(np.intp)
        ended = (self.copper[ys, xs] == 1) != copper
        return float(steps[int(ended.argmax())] - 1) if ended.any() else float(_RAY)

    def _random_point(self, copper: bool) -> tuple[float, float, float]:
        """Return a pixel away from edges and its distance to the nearest one: the best of a few draws, at random."""
        xs = self.rng.integers(_BORDER, self._width - _BORDER, 24)
        ys = self.rng.integers(_BORDER, self._height - _BORDER, 24)
        room = self._signed[ys, xs] * (1.0 if copper else -1.0)
        fit = np.flatnonzero(room > (5.0 if copper else 7.0))
        k = int(fit[int(self.rng.integers(len(fit)))]) if len(fit) else 0
        return float(xs[k]), float(ys[k]), float(room[k])

    # Acceptance.

    def _commit(self, label: int, shape: Points, accept: Callable[[Change], bool]) -> bool:
        """Apply a polygon to the copper if `accept` and the room round it allow; record the defect."""
        x0, y0 = (int(v) - 26 for v in np.floor(shape.min(0)))
        x1, y1 = (int(v) + 27 for v in np.ceil(shape.max(0)))
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, self._width), min(y1, self._height)
        if x1 - x0 < 40 or y1 - y0 < 40:
            return False
        window = self.copper[y0:y1, x0:x1]
        drawn = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillPoly(drawn, [np.round((shape - (x0, y0)) * 16).astype(np.int32)], (1,), shift=4)
        adds = label in (SHORT, SPUR, SPURIOUS_COPPER)
        change = drawn & (1 - window if adds else window)
        pieces, piece_of, stats, _ = cv2.connectedComponentsWithStats(change, connectivity=8)
        if pieces < 2:
            return False
        # Specks where the outline grazes other copper are no part of the defect.
        largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
        if stats[largest, cv2.CC_STAT_AREA] < 9:
            return False
        change = (piece_of == largest).astype(np.uint8)
        left, top, w, h = (int(v) for v in stats[largest, :4])
        extent = (x0 + left, y0 + top, x0 + left + w, y0 + top + h)
        box = self._box(label, extent)
        bodies = self._bodies[y0:y1, x0:x1]
        if not self._has_room(extent, box) or not accept(Change(window, change, bodies)):
            return False
        window[change == 1] = 1 if adds else 0
        self.defects.append(Defect(label, box, extent))
        return True

    def _box(self, label: int, extent: tuple[int, int, int, int]) -> tuple[float, float, float, float]:
        x0, y0, x1, y1 = extent
        half_w = max((x1 - x0) / 2 + MARGIN_PX, MIN_SIDE_PX[label] / 2)
        half_h = max((y1 - y0) / 2 + MARGIN_PX, MIN_SIDE_PX[label] / 2)
        cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
        jitter = self.rng.uniform(-1.0, 1.0, 4)
        return (
            float(max(cx - half_w + jitter[0], 0.0)),
            float(max(cy - half_h + jitter[1], 0.0)),
            float(min(cx + half_w + jitter[2], self._width)),
            float(min(cy + half_h + jitter[3], self._height)),
        )

    def _has_room(self, extent: tuple[int, int, int, int], box: tuple[float, float, float, float]) -> bool:
        inside = extent[0] >= 4 and extent[1] >= 4 and extent[2] <= self._width - 4 and extent[3] <= self._height - 4
        return inside and not any(
            box[0] < other.box_xyxy[2] + 2
            and other.box_xyxy[0] < box[2] + 2
            and box[1] < other.box_xyxy[3] + 2
            and other.box_xyxy[1] < box[3] + 2
            for other in self.defects
        )
