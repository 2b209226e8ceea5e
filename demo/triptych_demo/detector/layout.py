"""Copper artwork of made-up bare boards: routed nets, buses, pad arrays, pours and meshes, free of defects.

A board is cut into one to four rectangular zones and each zone is painted in a style of its own. Everything
is drawn on a canvas larger than the picture, so that copper runs off the picture's edges as on a real crop.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.uint8]

CANVAS = 720
_SUBPIXEL_BITS = 4
_STEPS = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))
_MITRE = math.tan(math.pi / 8)
_TEXT = "ABCDEFGHJKLMNPRSTUVXYZ0123456789"


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
        return int(self.copper.shape[0])

    @property
    def width(self) -> int:
        return int(self.copper.shape[1])

    def trace(self, points: list[tuple[float, float]], width: float) -> None:
        """Draw a polyline with round ends and remember its pieces."""
        fixed = np.round(np.asarray(points) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        cv2.polylines(self.copper, [fixed], False, 255, max(2, round(width)), shift=_SUBPIXEL_BITS)
        for (x1, y1), (x2, y2) in pairwise(points):
            self.traces.append((x1, y1, x2, y2, width))

    def disc(self, x: float, y: float, radius: float, value: int = 255) -> None:
        """Draw a filled circle of copper (255) or of laminate (0)."""
        scale = 1 << _SUBPIXEL_BITS
        centre = (round(x * scale), round(y * scale))
        cv2.circle(self.copper, centre, round(radius * scale), value, -1, shift=_SUBPIXEL_BITS)

    def slab(self, x: float, y: float, half_w: float, half_h: float, rounded: bool = False) -> None:
        """Draw a filled rectangle, or an oblong with semicircular ends if `rounded`."""
        if not rounded:
            corner, far = (round(x - half_w), round(y - half_h)), (round(x + half_w), round(y + half_h))
            cv2.rectangle(self.copper, corner, far, 255, -1)
            return
        radius = min(half_w, half_h)
        dx, dy = max(half_w - radius, 0.0), max(half_h - radius, 0.0)
        ends = np.round(np.array([[x - dx, y - dy], [x + dx, y + dy]]) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        cv2.polylines(self.copper, [ends], False, 255, max(2, round(2 * radius)), shift=_SUBPIXEL_BITS)


@dataclass(frozen=True)
class Rules:
    """Design rules of one zone, in pixels."""

    width: float
    clearance: float


def draw_artwork(rng: np.random.Generator) -> Artwork:
    """Paint one canvas of CANVAS x CANVAS pixels."""
    board = Artwork(np.zeros((CANVAS, CANVAS), np.uint8))
    base = float(np.exp(rng.uniform(math.log(5.5), math.log(26.0))))
    for x0, y0, x1, y1 in _zones(rng, int(rng.choice([1, 2, 3, 4], p=[0.3, 0.3, 0.2, 0.2]))):
        width = float(np.clip(base * rng.uniform(0.75, 1.35), 4.0, 30.0))
        rules = Rules(width, max(5.0, width * rng.uniform(0.5, 1.3)))
        _paint_zone(board, rng, rules, (x0, y0, x1, y1))
    return board


def _zones(rng: np.random.Generator, count: int) -> list[tuple[int, int, int, int]]:
    """Cut the canvas into `count` rectangles (x0, y0, x1, y1)."""
    rects = [(0, 0, CANVAS, CANVAS)]
    while len(rects) < count:
        rects.sort(key=lambda r: (r[2] - r[0]) * (r[3] - r[1]))
        x0, y0, x1, y1 = rects.pop()
        ratio = rng.uniform(0.35, 0.65)
        if x1 - x0 > y1 - y0 or (x1 - x0 == y1 - y0 and rng.random() < 0.5):
            cut = int(x0 + ratio * (x1 - x0))
            rects += [(x0, y0, cut, y1), (cut, y0, x1, y1)]
        else:
            cut = int(y0 + ratio * (y1 - y0))
            rects += [(x0, y0, x1, cut), (x0, cut, x1, y1)]
    return rects


def _paint_zone(board: Artwork, rng: np.random.Generator, rules: Rules, rect: tuple[int, int, int, int]) -> None:
    x0, y0, x1, y1 = rect
    gap = math.ceil(rules.clearance / 2) + 1
    # Zones meet with a clearance between them, but reach past the canvas where they touch its edge.
    x0, x1 = x0 + gap * (x0 > 0), x1 - gap * (x1 < CANVAS)
    y0, y1 = y0 + gap * (y0 > 0), y1 - gap * (y1 < CANVAS)
    turned = bool(rng.random() < 0.5)
    shape = (x1 - x0, y1 - y0) if turned else (y1 - y0, x1 - x0)
    zone = Artwork(np.zeros(shape, np.uint8))
    names = list(_PAINTERS)
    weights = np.array([_PAINTERS[name][0] for name in names])
    _PAINTERS[names[int(rng.choice(len(names), p=weights / weights.sum()))]][1](zone, rng, rules)
    board.copper[y0:y1, x0:x1] = zone.copper.T if turned else zone.copper
    for ax, ay, bx, by, width in zone.traces:
        if turned:
            ax, ay, bx, by = ay, ax, by, bx
        board.traces.append((ax + x0, ay + y0, bx + x0, by + y0, width))


class _Router:
    """Random nets on a square grid, kept apart by construction: every grid node belongs to one net at most."""

    def __init__(self, zone: Artwork, rng: np.random.Generator, rules: Rules) -> None:
        self.zone, self.rng, self.rules = zone, rng, rules
        # A diagonal neighbour is pitch/sqrt(2) away and must still clear.
        self.pitch = math.sqrt(2.0) * (rules.width + rules.clearance)
        self.nx = int(zone.width / self.pitch) + 1
        self.ny = int(zone.height / self.pitch) + 1
        self.x0, self.y0 = (float(v) for v in rng.uniform(0.3, 0.7, 2) * self.pitch)
        self.owner = [[0] * self.nx for _ in range(self.ny)]
        self.diagonals: set[tuple[int, int]] = set()
        self.nets = 0

    def at(self, i: int, j: int) -> tuple[float, float]:
        """Pixel position of grid node column i, row j."""
        return self.x0 + i * self.pitch, self.y0 + j * self.pitch

    def claim(self, i: int, j: int, radius: float, net: int) -> bool:
        """Take all nodes that copper of `radius` pixels round node (i, j) would crowd; False if one is taken."""
        reach = (radius + self.rules.clearance + self.rules.width / 2) / self.pitch + 0.2
        span = int(reach)
        nodes = [
            (i + di, j + dj)
            for dj in range(-span, span + 1)
            for di in range(-span, span + 1)
            if di * di + dj * dj <= reach * reach
        ]
        inside = [(a, b) for a, b in nodes if 0 <= a < self.nx and 0 <= b < self.ny]
        if any(self.owner[b][a] not in (0, net) for a, b in inside):
            return False
        for a, b in inside:
            self.owner[b][a] = net
        return True

    def release(self, net: int) -> None:
        """Give back all nodes of a net that was not drawn."""
        for row in self.owner:
            for i, owner in enumerate(row):
                if owner == net:
                    row[i] = 0

    def walk(self, i: int, j: int, net: int, turn: float) -> list[tuple[int, int]]:
        """Nodes of a random path from (i, j) that keeps its direction, bending by 45 degrees now and then."""
        path = [(i, j)]
        self.owner[j][i] = net
        heading = int(self.rng.integers(4)) * 2
        draws = self.rng.random(120)
        for step in range(0, len(draws), 2):
            if draws[step] < turn:
                heading += 1 if draws[step + 1] < 0.5 else -1
            for bend in (0, 1, -1):
                nxt = self._step(path[-1], heading + bend, net)
                if nxt is not None and nxt not in path:
                    heading += bend
                    break
            else:
                break
            i, j = nxt
            if not (0 <= i < self.nx and 0 <= j < self.ny):
                path.append(nxt)
                break
            self.owner[j][i] = net
            path.append(nxt)
        return path

    def _step(self, node: tuple[int, int], heading: int, net: int) -> tuple[int, int] | None:
        dx, dy = _STEPS[heading % 8]
        i, j = node[0] + dx, node[1] + dy
        if 0 <= i < self.nx and 0 <= j < self.ny and self.owner[j][i] not in (0, net):
            return None
        if dx and dy:
            cell = (min(node[0], i), min(node[1], j))
            if cell in self.diagonals:
                return None
            self.diagonals.add(cell)
        return i, j

    def pads(self, count: int, low: float, high: float) -> list[tuple[int, int, int]]:
        """Place up to `count` pads of `low` to `high` pixels half-size; returns (column, row, net) of each."""
        placed: list[tuple[int, int, int]] = []
        discs: list[tuple[float, float, float]] = []
        for _ in range(count):
            i, j = int(self.rng.integers(self.nx)), int(self.rng.integers(self.ny))
            x, y = self.at(i, j)
            half = float(self.rng.uniform(low, high))
            shape = int(self.rng.integers(4))
            reach = half * (1.0, 1.42, 1.35, 1.0)[shape]
            gap = self.rules.clearance
            if any(math.hypot(x - a, y - b) < reach + r + gap for a, b, r in discs):
                continue
            if self.owner[j][i] or not self.claim(i, j, reach, self.nets + 1):
                continue
            self.nets += 1
            discs.append((x, y, reach))
            placed.append((i, j, self.nets))
            if shape == 1:
                self.zone.slab(x, y, half, half)
            elif shape == 2:
                self.zone.slab(x, y, half * 1.35, half * 0.7, rounded=True)
            else:
                self.zone.disc(x, y, half)
        return placed

    def route(self, starts: list[tuple[int, int, int]], nets: int, via: float, turn: float) -> None:
        """Route from pads and then from free nodes; ends get a via with chance `via` where there is room."""
        # Ends keep off other nets: two that face each other would look like an open.
        reach = 0.7 * self.pitch
        first_free = self.nets + 1
        for _ in range(nets):
            self.nets += 1
            starts.append((int(self.rng.integers(self.nx)), int(self.rng.integers(self.ny)), self.nets))
        for i, j, net in starts:
            if net >= first_free and not self.claim(i, j, reach, net):
                continue
            path = self.walk(i, j, net, turn)
            while len(path) >= 3 and not self.claim(*path[-1], reach, net):
                path.pop()
            if len(path) < 3:
                if net >= first_free:
                    self.release(net)
                continue
            width = max(4.0, self.rules.width * float(self.rng.choice([1.0, 1.0, 0.75])))
            self.zone.trace([self.at(a, b) for a, b in _corners(path)], width)
            for a, b in (path[0], path[-1]):
                radius = self.rules.width * float(self.rng.uniform(0.85, 1.5))
                if self.rng.random() < via and self.claim(a, b, radius, net):
                    self.zone.disc(*self.at(a, b), radius)


def _corners(path: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Drop the nodes of a grid path at which it does not bend."""
    kept = [path[0]]
    for before, here, after in zip(path[:-2], path[1:-1], path[2:], strict=True):
        if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1]):
            kept.append(here)
    return [*kept, path[-1]]


def _drill(zone: Artwork, spots: list[tuple[float, float]], radius: float) -> None:
    for x, y in spots:
        zone.disc(x, y, radius, 0)


def _paint_routed(zone: Artwork, rng: np.random.Generator, rules: Rules) -> None:
    """Nets in all eight directions with pads and vias at their ends, sparse to dense."""
    router = _Router(zone, rng, rules)
    low = max(rules.width * 0.9, 9.0)
    pads = router.pads(int(rng.integers(0, 22)), low, max(low + 4, rng.uniform(16.0, 44.0)))
    nodes = router.nx * router.ny
    router.route(list(pads), int(rng.uniform(0.03, 0.25) * nodes) + 3, float(rng.random()), rng.uniform(0.05, 0.3))
    if rng.random() < 0.5:
        _drill(zone, [router.at(i, j) for i, j, _ in pads], low * rng.uniform(0.4, 0.65))


def _paint_bus(zone: Artwork, rng: np.random.Generator, rules: Rules) -> None:
    """Parallel conductors that jog together at 45 degrees; some are missing, some end in a via."""
    jogs: list[tuple[float, float]] = []
    # All jogs go one way: only then do mitred neighbours keep their distance from jog to jog.
    way = 1.0 if rng.random() < 0.5 else -1.0
    x = float(rng.uniform(-300.0, 500.0))
    while x < zone.width + 300.0:
        jogs.append((x, way * float(rng.uniform(8.0, min(120.0, zone.height * 0.4)))))
        x += abs(jogs[-1][1]) + float(rng.uniform(60.0, 420.0))
    drift = sum(dy for _, dy in jogs)
    drop, stop = float(rng.uniform(0.05, 0.35)), float(rng.uniform(0.0, 0.4))
    clearance = rules.clearance
    if rng.random() < 0.8:
        clearance = max(clearance, rules.width * float(rng.uniform(1.1, 1.7)))
    else:
        # Where lines are no thinner than gaps, only their ends tell copper from laminate.
        stop += 0.25
    y = -30.0 - max(drift, 0.0) - float(rng.uniform(0.0, 30.0))
    last = 0.0
    while y < zone.height + 30.0 - min(drift, 0.0):
        width = float(np.clip(rules.width * rng.choice([1.0, 1.0, 1.0, 0.7, 1.6]), 4.0, 30.0))
        y += last / 2 + clearance + width / 2
        last = width
        if rng.random() < drop:
            continue
        line = _jogged(y, jogs, zone.width)
        if rng.random() < stop:
            _cut_short(zone, rng, line, width, clearance)
        else:
            zone.trace(line, width)


def _jogged(y: float, jogs: list[tuple[float, float]], length: int) -> list[tuple[float, float]]:
    """Polyline at height y that follows `jogs` (x, dy) in parallel to its neighbours."""
    points = [(-1500.0, y)]
    here = y
    for x, dy in jogs:
        start = x - math.copysign(_MITRE, dy) * y
        points += [(start, here), (start + abs(dy), here + dy)]
        here += dy
    return [*points, (length + 1500.0, here)]


def _cut_short(
    zone: Artwork, rng: np.random.Generator, line: list[tuple[float, float]], width: float, clearance: float
) -> None:
    """Draw only the part of a bus line left of a random point, ended by a cap or a small via."""
    x = float(rng.uniform(0.0, 1.0)) * zone.width
    keep = next(k for k, point in enumerate(line) if point[0] > x)
    (ax, ay), (bx, by) = line[keep - 1], line[keep]
    end = (x, ay + (x - ax) / (bx - ax) * (by - ay))
    zone.trace([*line[:keep], end], width)
    room = width / 2 + clearance * 0.4
    if rng.random() < 0.6 and room > width / 2 + 2:
        zone.disc(*end, room)


def _paint_array(zone: Artwork, rng: np.random.Generator, rules: Rules) -> None:
    """A ball-grid array: round or square pads on a grid, dog bones to vias, nets between the rows."""
    pitch = float(rng.uniform(34.0, 84.0))
    radius = pitch * float(rng.uniform(0.22, 0.34))
    thin = max(4.0, min(rules.width, (pitch - 2 * radius) * 0.4))
    square, drilled = rng.random() < 0.25, rng.random() < 0.35
    bones, channels = rng.random() < 0.5, rng.random() < 0.5
    missing = float(rng.uniform(0.0, 0.3))
    via = min(radius * 0.7, pitch * 0.707 - radius - 6.0)
    for y in np.arange(pitch * rng.uniform(0.1, 1.0), zone.height + pitch, pitch):
        for x in np.arange(pitch * 0.6, zone.width + pitch, pitch):
            if rng.random() < missing:
                continue
            if square:
                zone.slab(x, y, radius * 0.9, radius * 0.9)
            else:
                zone.disc(x, y, radius)
            if bones and via > thin * 0.6 and rng.random() < 0.5:
                zone.trace([(x, y), (x + pitch / 2, y + pitch / 2)], thin)
                zone.disc(x + pitch / 2, y + pitch / 2, via)
            if drilled:
                zone.disc(x, y, radius * 0.5, 0)
        room = pitch - 2 * radius
        if channels and not bones and room > thin + 10.0 and rng.random() < 0.6:
            end = float(rng.uniform(0.3, 1.4)) * zone.width
            zone.trace([(-20.0, y + pitch / 2), (end, y + pitch / 2)], thin)


def _paint_rows(zone: Artwork, rng: np.random.Generator, rules: Rules) -> None:
    """Rows of oblong pads as under leaded packages and connectors, with nets that leave them."""
    half_w = float(rng.uniform(7.0, 24.0))
    half_h = half_w * float(rng.uniform(1.0, 2.6))
    pitch = 2 * half_w + max(rules.clearance, 7.0)
    thin = max(4.0, min(rules.width, half_w * 1.6))
    rounded, drilled = bool(rng.random() < 0.4), rng.random() < 0.3
    y = float(rng.uniform(0.2, 1.0)) * half_h * 2
    while y < zone.height + half_h:
        reach = float(rng.uniform(25.0, 110.0))
        side = -1.0 if rng.random() < 0.5 else 1.0
        fan = float(rng.uniform(0.0, 1.0))
        for x in np.arange(pitch * rng.uniform(0.1, 1.0), zone.width + pitch, pitch):
            if rng.random() < 0.06:
                continue
            zone.slab(x, y, half_w, half_h, rounded)
            if rng.random() < 0.75:
                far = y + side * (half_h + reach * (1.0 if fan < 0.5 else float(rng.uniform(0.3, 1.0))))
                zone.trace([(x, y), (x, far)], thin)
                if rng.random() < 0.5:
                    zone.disc(x, far, min(half_w, thin * 0.9))
            if drilled:
                zone.disc(x, y, min(half_w, half_h) * 0.5, 0)
        # The next row starts past this row's nets on one side and past its own on the other.
        y += 2 * half_h + 2 * 110.0 + rules.clearance if rng.random() < 0.5 else 2 * half_h + reach + 125.0


def _paint_pour(zone: Artwork, rng: np.random.Generator, rules: Rules) -> None:
    """Solid or hatched copper round nets and pads, a clearance away from them, with plain drilled holes."""
    router = _Router(zone, rng, rules)
    pads = router.pads(int(rng.integers(2, 14)), 10.0, 34.0)
    router.route(list(pads), int(rng.uniform(0.0, 0.05) * router.nx * router.ny), 0.8, 0.15)
    nets = zone.copper.copy()
    reach = 2 * round(rules.clearance) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    moat = cv2.dilate(nets, kernel)
    fill = np.full_like(nets, 255)
    if rng.random() < 0.15:
        fill = _hatch(fill.shape, rng)
    inset = int(rng.integers(0, 40))
    if inset:
        fill[:inset] = 0
        fill[:, -inset:] = 0
    holes = Artwork(fill)
    for x, y in rng.uniform(0.0, 1.0, (int(rng.integers(0, 8)), 2)):
        holes.disc(x * zone.width, y * zone.height, float(rng.uniform(9.0, 18.0)), 0)
    zone.copper[:] = np.where(moat > 0, nets, holes.copper)
    if rng.random() < 0.35:
        for i, j, _ in pads:
            x, y = router.at(i, j)
            # Thermal spokes join some pads to the pour; no conductors that an open could part.
            spokes = Artwork(zone.copper)
            spokes.trace([(x - 60.0, y), (x + 60.0, y)], 8.0)
            spokes.trace([(x, y - 60.0), (x, y + 60.0)], 8.0)
    if rng.random() < 0.5:
        _drill(zone, [router.at(i, j) for i, j, _ in pads], 6.0)


def _hatch(shape: tuple[int, ...], rng: np.random.Generator) -> Mask:
    """A copper mesh, straight or at 45 degrees, that covers `shape`."""
    mesh = np.zeros(shape, np.uint8)
    step, width = int(rng.integers(24, 64)), int(rng.integers(6, 16))
    height, length = shape[:2]
    slant = height if rng.random() < 0.5 else 0
    for x in range(-height, length + height, step):
        cv2.line(mesh, (x, 0), (x + slant, height), 255, width)
        if slant:
            cv2.line(mesh, (x + slant, 0), (x, height), 255, width)
    if not slant:
        for y in range(0, height, step):
            cv2.line(mesh, (0, y), (length, y), 255, width)
    return mesh


def _paint_large(zone: Artwork, rng: np.random.Generator, rules: Rules) -> None:
    """A few large pads, mounting holes and wide conductors on open laminate."""
    router = _Router(zone, rng, Rules(min(30.0, max(14.0, rules.width * 1.5)), max(12.0, rules.clearance)))
    pads = router.pads(int(rng.integers(2, 9)), 24.0, 90.0)
    router.route(list(pads), int(rng.integers(0, 5)), 0.3, 0.1)
    if rng.random() < 0.6:
        _drill(zone, [router.at(i, j) for i, j, _ in pads], float(rng.uniform(9.0, 16.0)))


def _paint_text(zone: Artwork, rng: np.random.Generator, rules: Rules) -> None:
    """Lettering in copper above a sparse bus."""
    split = int(zone.height * rng.uniform(0.2, 0.4))
    rest = Artwork(np.zeros((zone.height - split, zone.width), np.uint8))
    _paint_bus(rest, rng, rules)
    zone.copper[split:] = rest.copper
    zone.traces += [(x1, y1 + split, x2, y2 + split, w) for x1, y1, x2, y2, w in rest.traces]
    size = float(rng.uniform(1.6, 3.4))
    words = "".join(_TEXT[int(k)] for k in rng.integers(len(_TEXT), size=int(rng.integers(4, 10))))
    baseline = max(20, split - int(rng.integers(12, 30)))
    thickness = max(5, int(size * rng.uniform(2.0, 3.4)))
    cv2.putText(zone.copper, words, (12, baseline), cv2.FONT_HERSHEY_SIMPLEX, size, 255, thickness)


_PAINTERS: dict[str, tuple[float, Callable[[Artwork, np.random.Generator, Rules], None]]] = {
    "routed": (4.0, _paint_routed),
    "bus": (3.0, _paint_bus),
    "array": (1.2, _paint_array),
    "rows": (1.2, _paint_rows),
    "pour": (1.2, _paint_pour),
    "large": (1.2, _paint_large),
    "text": (0.5, _paint_text),
}
