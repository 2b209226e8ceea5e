"""Ragged outlines of defects: float [K, 2] polygons in pixels."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]


def blob(rng: np.random.Generator, centre: tuple[float, float], radius: float, aspect: float) -> Points:
    """Return an irregular closed outline, `aspect` times as long as wide."""
    theta = np.linspace(0.0, 2 * math.pi, 28, endpoint=False)
    r = np.ones_like(theta)
    for k in range(2, 7):
        r += float(rng.normal(0.0, 0.3 / k)) * np.cos(k * theta + float(rng.uniform(0.0, 6.3)))
    r = radius * np.clip(r, 0.45, 1.6)
    stretch = math.sqrt(aspect)
    x, y = r * np.cos(theta) * stretch, r * np.sin(theta) / stretch
    return _rotated(x, y, centre, float(rng.uniform(0.0, math.pi)))


def bump(
    rng: np.random.Generator, edge: tuple[float, float], normal: tuple[float, float], height: float, span: float
) -> Points:
    """Return a ragged hump on an edge: `height` along the normal, `span` across it, round to finger-like."""
    t = np.linspace(-1.0, 1.0, 19)
    power = float(rng.choice([1.4, 2.0, 3.5]))
    profile = (1.0 - np.abs(t) ** power) ** (1.0 / power if power > 1.5 else 1.0)
    profile = profile * (1.0 + rng.normal(0.0, 0.09, t.size))
    lean = float(rng.normal(0.0, 0.25)) * height
    x = np.concatenate([t * span / 2 + lean * profile, [span / 2, -span / 2]])
    y = np.concatenate([profile * height, [-3.0, -3.0]])
    nx, ny = normal
    return np.stack([edge[0] + x * -ny + y * nx, edge[1] + x * nx + y * ny], 1)


def band(
    rng: np.random.Generator, centre: tuple[float, float], angle: float, thickness: float, length: float
) -> Points:
    """Return a strip with two ragged flanks: `thickness` along `angle`, `length` across it."""
    t = np.linspace(-0.5, 0.5, 9)
    waves = rng.normal(0.0, 0.1 * thickness, (2, t.size)) + rng.normal(0.0, 0.12 * thickness, (2, 1)) * t
    waist = float(rng.uniform(-0.25, 0.25)) * thickness * (1.0 - 4.0 * t**2)
    slant = float(rng.normal(0.0, 0.2)) * min(length, 20.0)
    right = thickness / 2 + waves[0] + waist + slant * t
    left = -thickness / 2 + waves[1] - waist + slant * t
    x, y = np.concatenate([right, left[::-1]]), np.concatenate([t, t[::-1]]) * length
    return _rotated(x, y, centre, angle)


def _rotated(x: Points, y: Points, centre: tuple[float, float], angle: float) -> Points:
    c, s = math.cos(angle), math.sin(angle)
    return np.stack([centre[0] + x * c - y * s, centre[1] + x * s + y * c], 1)
