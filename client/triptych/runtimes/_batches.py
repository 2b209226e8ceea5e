"""Many requests' images as few batches, without a copy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray


def in_batches(parts: Iterable[NDArray[np.uint8]], largest: int) -> Iterator[list[NDArray[np.uint8]]]:
    """Yield lists of views on arrays [n, …], each list with `largest` rows at most, and all rows in their order."""
    batch: list[NDArray[np.uint8]] = []
    room = largest
    for part in parts:
        rest = part
        while len(rest):
            taken, rest = rest[:room], rest[room:]
            batch.append(taken)
            room -= len(taken)
            if not room:
                yield batch
                batch, room = [], largest
    if batch:
        yield batch
