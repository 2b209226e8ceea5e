"""Many requests' images as few batches, without a copy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from triptych.cuda import Pixels


def in_batches(parts: Iterable[Pixels], largest: int) -> Iterator[list[Pixels]]:
    """Yield lists of views on pixels [n, …], each list with `largest` rows at most, and all rows in their order."""
    batch: list[Pixels] = []
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
