"""Streams that run at the same time: who is called how often, and who ends whom. Nothing here reads a clock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from triptych.errors import ContractError
from triptych_build.compare.measure import SCENARIOS, WARM_UP, time_streams

Pixels = NDArray[np.uint8]


@pytest.mark.parametrize(("streams", "batch"), SCENARIOS)
def test_every_call_counts(streams: int, batch: int) -> None:
    seen: list[list[int]] = [[] for _ in range(streams)]

    def detector(number: int) -> Callable[[Pixels], None]:
        return lambda pixels: seen[number].append(len(pixels))

    latencies_ms, seconds = time_streams(
        [detector(number) for number in range(streams)],
        np.zeros((4, 1, 1, 3), np.uint8),
        batch,
        10,
    )
    assert seen == [[batch] * (WARM_UP + 10)] * streams
    assert len(latencies_ms) == 10 * streams
    assert 0 < max(latencies_ms) / 1000 <= seconds


def test_streams_run_at_the_same_time() -> None:
    """Each call waits for the other stream's: one stream after the other would wait for ever."""
    together = threading.Barrier(2, timeout=30)

    def detect(pixels: Pixels) -> Any:
        together.wait()

    latencies_ms, _ = time_streams([detect, detect], np.zeros((4, 1, 1, 3), np.uint8), 1, 5)
    assert len(latencies_ms) == 10


def test_each_stream_begins_at_another_image() -> None:
    first: list[int] = []

    def detect(pixels: Pixels) -> None:
        first.append(int(pixels[0, 0, 0, 0]))

    pixels = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    time_streams([detect], pixels, 1, 5)
    assert first == [0, 1, 2, 3, 0, 1, 2, 3]


def test_a_stream_that_fails_ends_the_others() -> None:
    def broken(pixels: Pixels) -> None:
        raise ContractError("one at a time")

    with pytest.raises(ContractError, match="one at a time"):
        time_streams([broken, lambda pixels: None], np.zeros((4, 1, 1, 3), np.uint8), 1, 5)
