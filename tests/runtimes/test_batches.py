"""Which rows of which requests run together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from triptych.runtimes._batches import in_batches


@pytest.mark.parametrize(
    ("counts", "sizes"),
    [
        ([1, 1, 1], [3]),
        ([4], [4]),
        ([1, 4, 2], [4, 3]),
        ([9], [4, 4, 1]),
        ([0, 3, 0, 1], [4]),
        ([], []),
        ([0], []),
    ],
)
def test_every_row_is_in_one_batch_in_its_order(counts: list[int], sizes: list[int]) -> None:
    rows = np.arange(sum(counts), dtype=np.uint8)[:, None]
    parts = np.split(rows, np.cumsum(counts)[:-1]) if counts else []
    batches: list[list[Any]] = list(in_batches(parts, 4))
    assert [sum(map(len, batch)) for batch in batches] == sizes
    assert all(np.shares_memory(view, rows) for batch in batches for view in batch)
    together = [view for batch in batches for view in batch]
    assert not together or np.array_equal(np.concatenate(together), rows)
