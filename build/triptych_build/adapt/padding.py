"""How much of a detector's input is border on the user's images, and the shape that would waste least."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from triptych_build.adapt.source import STEP

SAME_SCALE = 0.99
"""A shape may show the images this much smaller, as rounding to a multiple of 32 does."""


def padding_share(sizes: Sequence[tuple[int, int]], shape: tuple[int, int]) -> float:
    """Return the share of an input that is border, 0..1, on average over images.

    Args:
        sizes: width and height of each image, in pixels.
        shape: width and height of the input, which keeps the images' aspect ratio.

    >>> padding_share([(1920, 1080)], (640, 640))
    0.4375
    """
    images = np.array(sizes, float)
    covered = images.prod(1) * _scales(images, shape) ** 2
    return max(0.0, float(np.mean(1 - covered / np.prod(shape))))  # rounding


def least_padding(sizes: Sequence[tuple[int, int]], shape: tuple[int, int]) -> tuple[int, int]:
    """Return the smallest shape that shows the images as large as `shape` does; its sides are multiples of 32.

    >>> least_padding([(1920, 1080)], (640, 640))
    (640, 384)
    """
    images = np.array(sizes, float)
    wanted = SAME_SCALE * float(_scales(images, shape).mean())
    steps = range(STEP, max(shape) + 1, STEP)
    enough = [other for other in product(steps, steps) if _scales(images, other).mean() >= wanted]
    return min(enough, key=lambda other: other[0] * other[1], default=shape)


def _scales(images: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    return np.asarray((np.array(shape, float) / images).min(1))


def describe_padding(sizes: Sequence[tuple[int, int]], shape: tuple[int, int]) -> str:
    """Return in a sentence how much of the input is border, and which shape would have the least."""
    best = least_padding(sizes, shape)
    sentence = f"size: {padding_share(sizes, shape):.0%} of {shape[0]}x{shape[1]} is border on {len(sizes)} images"
    if best == shape or best[0] * best[1] >= shape[0] * shape[1]:
        return f"{sentence}, and no shape has less"
    return (
        f"{sentence}; {best[0]}x{best[1]} shows them as large and has {padding_share(sizes, best):.0%} (export it so, "
        f"or --size {best[0]}x{best[1]} where the graph allows it)"
    )
