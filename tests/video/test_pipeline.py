"""The pipeline: the order of its results, what it does at the same time, and what each stage of a frame takes."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.videos import make_pictures
from triptych.detections import Detection, Detections
from triptych.errors import ServerUnavailable
from triptych.video import pipeline
from triptych.video.detecting import Answer
from triptych.video.pipeline import in_order
from triptych.video.sources import Pictures
from triptych.video.stages import STAGES, Totals
from triptych.video.tracker import Tracker


def test_results_come_in_order_however_long_they_take() -> None:
    delays = random.Random(1)
    most, running, lock = 0, 0, threading.Lock()

    def slow(item: int) -> int:
        nonlocal most, running
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(delays.uniform(0, 0.01))
        with lock:
            running -= 1
        return item * 2

    assert list(in_order(slow, iter(range(60)), 4, 1)) == [(item, item * 2) for item in range(60)]
    assert 1 < most <= 4


def test_the_next_item_is_worked_on_while_the_caller_is_busy() -> None:
    entered = [threading.Event() for _ in range(3)]
    results = in_order(lambda item: entered[item].set(), iter(range(3)), 1, 0)
    for item, _ in results:
        assert item == 2 or entered[item + 1].wait(10)


def test_what_fails_is_raised_in_its_turn_and_nothing_is_begun_after_it() -> None:
    begun = []

    def fail_at_three(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise ServerUnavailable("gone", None)
        return item

    given: list[int] = []
    with pytest.raises(ServerUnavailable):
        given.extend(item for item, _ in in_order(fail_at_three, iter(range(100)), 2, 1))
    assert given == [0, 1, 2]
    assert max(begun) <= 6


def test_the_times_of_a_frame_add_up_and_name_who_took_them(tmp_path: Path) -> None:
    class SlowTracker(Tracker):
        def update(self, objects: Sequence[Detection]) -> list[int | None]:
            time.sleep(0.03)
            return []

    def detect(_encoded: bytes, _request_id: str) -> Answer:
        sent_s = time.perf_counter()
        time.sleep(0.02)
        return Answer(Detections.failed(""), "", sent_s, time.perf_counter())

    source = Pictures(make_pictures(tmp_path, 8))
    totals, began_s = Totals(), time.perf_counter()
    for tracked in pipeline.run(
        source,
        0,
        detect,
        SlowTracker(30, 0.25),
        lambda _line: time.sleep(0.01),
        score_threshold=0.25,
        in_flight=2,
        quality=90,
        prefix="p-",
    ):
        assert list(tracked.times.ms) == list(STAGES)
        assert min(tracked.times.ms.values()) >= 0
        assert tracked.times.ms["track"] >= 30
        assert tracked.times.ms["predict"] >= 20
        assert tracked.times.ms["write"] >= 10
        assert tracked.times.ms["encode"] == 0
        assert tracked.request_id == f"p-{tracked.line.frame}"
        totals.add(tracked.times)
    took_s = time.perf_counter() - began_s
    assert totals.frames == 8
    assert 8 * 0.04 <= totals.seconds <= took_s
    assert sum(totals.ms.values()) / 1000 <= 4 * took_s  # two with the server, one made ahead, one being tracked
