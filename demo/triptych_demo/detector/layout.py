"""Copper artwork of made-up bare boards: routed nets, buses, pad arrays, pours and meshes, free of defects.

A board is cut into one to four rectangular zones and each zone is painted in a style of its own. Everything
is drawn on a canvas larger than the picture, so that copper runs off the picture's edges as on a real crop.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from triptych_demo.detector.artwork import COPPER, LAMINATE, Artwork, Mask, Rules
from triptych_demo.detector.routing import Router

CANVAS = 720
_MITRE = math.tan(math.pi / 8)
_TEXT = "ABCDEFGHJKLMNPRSTUVXYZ0123456789"


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


def _drill(zone: Artwork, spots: list[tuple[float, float]], radius: float) -> None:
    for x, y in spots:
        zone.disc(x, y, radius, LAMINATE)


def _paint_routed(zone: Artwork, rng: np.random.Generator, rules: Rules) -> None:
    """Paint nets in all eight directions with pads and vias at their ends, sparse to dense."""
    router = Router(zone, rng, rules)
    low = max(rules.width * 0.9, 9.0)
    pads = router.pads(int(rng.integers(0, 22)), low, max(low + 4, rng.uniform(16.0, 44.0)))
    nodes = router.nx * router.ny
    router.route(list(pads), int(rng.uniform(0.03, 0.25) * nodes) + 3, float(rng.random()), rng.uniform(0.05, 0.3))
    if rng.random() < 0.5:
        _drill(zone, [router.at(i, j) for i, j, _ in pads], low * rng.uniform(0.4, 0.65))


def _paint_bus(zone: Artwork, rng: np.random.Generator, rules: Rules) -> None:
    """Paint parallel conductors that jog together at 45 degrees; some are missing, some end in a via."""
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
    """Return the polyline at height y that follows `jogs` (x, dy) in parallel to its neighbours."""
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
    """Paint a ball-grid array: round or square pads on a grid, dog bones to vias, nets between the rows."""
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
                zone.disc(x, y, radius * 0.5, LAMINATE)
        room = pitch - 2 * radius
        if channels and not bones and room > thin + 10.0 and rng.random() < 0.6:
            end = float(rng.uniform(0.3, 1.4)) * zone.width
            zone.trace([(-20.0, y + pitch / 2), (end, y + pitch / 2)], thin)


def _paint_rows(zone: Artwork, rng: np.random.Generator, rules: Rules) -> None:
    """Paint rows of oblong pads as under leaded packages and connectors, with nets that leave them."""
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
                zone.disc(x, y, min(half_w, half_h) * 0.5, LAMINATE)
        # The next row starts past this row's nets on one side and past its own on the other.
        y += 2 * half_h + 2 * 110.0 + rules.clearance if rng.random() < 0.5 else 2 * half_h + reach + 125.0


def _paint_pour(zone: Artwork, rng: np.random.Generator, rules: Rules) -> None:
    """Paint solid or hatched copper round nets and pads, a clearance away from them, with plain drilled holes."""
    router = Router(zone, rng, rules)
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
        holes.disc(x * zone.width, y * zone.height, float(rng.uniform(9.0, 18.0)), LAMINATE)
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
    """Return a copper mesh, straight or at 45 degrees, that covers `shape`."""
    mesh = np.zeros(shape, np.uint8)
    step, width = int(rng.integers(24, 64)), int(rng.integers(6, 16))
    height, length = shape[:2]
    slant = height if rng.random() < 0.5 else 0
    for x in range(-height, length + height, step):
        cv2.line(mesh, (x, 0), (x + slant, height), COPPER, width)
        if slant:
            cv2.line(mesh, (x + slant, 0), (x, height), COPPER, width)
    if not slant:
        for y in range(0, height, step):
            cv2.line(mesh, (0, y), (length, y), COPPER, width)
    return mesh


def _paint_large(zone: Artwork, rng: np.random.Generator, rules: Rules) -> None:
    """Paint a few large pads, mounting holes and wide conductors on open laminate."""
    router = Router(zone, rng, Rules(min(30.0, max(14.0, rules.width * 1.5)), max(12.0, rules.clearance)))
    pads = router.pads(int(rng.integers(2, 9)), 24.0, 90.0)
    router.route(list(pads), int(rng.integers(0, 5)), 0.3, 0.1)
    if rng.random() < 0.6:
        _drill(zone, [router.at(i, j) for i, j, _ in pads], float(rng.uniform(9.0, 16.0)))


def _paint_text(zone: Artwork, rng: np.random.Generator, rules: Rules) -> None:
    """Paint lettering in copper above a sparse bus."""
    split = int(zone.height * rng.uniform(0.2, 0.4))
    rest = Artwork(np.zeros((zone.height - split, zone.width), np.uint8))
    _paint_bus(rest, rng, rules)
    zone.copper[split:] = rest.copper
    zone.traces += [(x1, y1 + split, x2, y2 + split, w) for x1, y1, x2, y2, w in rest.traces]
    size = float(rng.uniform(1.6, 3.4))
    words = "".join(_TEXT[int(k)] for k in rng.integers(len(_TEXT), size=int(rng.integers(4, 10))))
    baseline = max(20, split - int(rng.integers(12, 30)))
    thickness = max(5, int(size * rng.uniform(2.0, 3.4)))
    cv2.putText(zone.copper, words, (12, baseline), cv2.FONT_HERSHEY_SIMPLEX, size, COPPER, thickness)


_PAINTERS: dict[str, tuple[float, Callable[[Artwork, np.random.Generator, Rules], None]]] = {
    "routed": (4.0, _paint_routed),
    "bus": (3.0, _paint_bus),
    "array": (1.2, _paint_array),
    "rows": (1.2, _paint_rows),
    "pour": (1.2, _paint_pour),
    "large": (1.2, _paint_large),
    "text": (0.5, _paint_text),
}
