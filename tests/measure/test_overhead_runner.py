"""What is measured of a loop and a service, before anything is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triptych.contract import DETECTION
from triptych.detections import Detections
from triptych.errors import ContractError, MeasurementError
from triptych.measure.attribution import Requests
from triptych.measure.histogram import Histogram
from triptych.measure.overhead_runner import Plan, _mean, _rounds, _same
from triptych.measure.window import Window
from triptych.vision.boxes import Detected
from triptych.wire.statistics import Counters


def plan(**changed: Any) -> Plan:
    return Plan("127.0.0.1:8001", [b"a", b"b", b"c"], Path("model_repository"), **changed)


@pytest.mark.parametrize("numbers", [{"rounds": 3}, {"rounds": 20, "frames": 10}, {"users": 0}])
def test_numbers_that_are_too_small(numbers: dict[str, int]) -> None:
    with pytest.raises(ContractError, match="expected 4 rounds or more"):
        plan(**numbers)


def test_the_rounds_have_all_images_in_turn() -> None:
    rounds = _rounds(plan(frames=10, rounds=4))
    assert [len(images) for images in rounds] == [2, 3, 2, 3]
    assert b"".join(b"".join(images) for images in rounds) == b"abcabcabca"


def found(scores: list[float], shift: float = 0.0) -> Detected:
    count = len(scores)
    boxes = np.zeros((1, 5, 4), np.float32)
    boxes[0, :count] = np.arange(4, dtype=np.float32) + shift
    padded = np.zeros((1, 5), np.float32)
    padded[0, :count] = scores
    return Detected(
        boxes, padded, np.zeros((1, 5), np.int32), np.array([[count]], np.int32), np.zeros((1, 1), np.int32)
    )


def answered(scores: list[float]) -> Detections:
    boxes = np.tile(np.arange(4, dtype=np.float32), (len(scores), 1))
    return Detections(boxes, np.array(scores, np.float32), np.zeros(len(scores), np.int32), ("a",))


def test_both_sides_found_the_same() -> None:
    assert _same(found([0.9, 0.5]), answered([0.9, 0.501]))
    assert _same(found([]), answered([]))
    assert not _same(found([0.9]), answered([0.9, 0.5]))
    assert not _same(found([0.9]), answered([0.8]))
    assert not _same(found([0.9], shift=3), answered([0.9]))


def test_without_traces_the_statistics_count() -> None:
    counters = Counters(requests=2, total_ns=20_000_000)
    window = Window(Histogram([10.0, 14.0]), 1.0, {DETECTION.name: counters})
    source, mean = _mean(Requests.join([], {}), window, {"a": 1.0, "b": 1.0}, rate=1)
    assert source == "statistics"
    assert (mean.total_ms, mean.network_and_client_ms, mean.client) == (12.0, 1.0, {"client": 1.0})


def test_a_server_that_counts_anew_is_refused() -> None:
    with pytest.raises(MeasurementError, match="reloaded; measure again"):
        _mean(Requests.join([], {}), Window(Histogram([1.0]), 1.0, {}, "the detector was reloaded"), {"a": 1.0}, rate=1)
