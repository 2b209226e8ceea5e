"""Nets that are routed at random on a square grid, and keep their distance from each other."""

from __future__ import annotations

import math

import numpy as np

from triptych_demo.detector.artwork import Artwork, Rules

_STEPS = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))


class Router:
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
        """Return the pixel position of the grid node in column i and row j."""
        return self.x0 + i * self.pitch, self.y0 + j * self.pitch

    def claim(self, i: int, j: int, radius: float, net: int) -> bool:
        """Take all nodes that copper of `radius` pixels round node (i, j) would crowd; return False if one is taken."""
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
        """Return the nodes of a random path from (i, j) that bends by 45 degrees now and then."""
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
        """Place up to `count` pads of `low` to `high` pixels half-size; return (column, row, net) of each."""
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
