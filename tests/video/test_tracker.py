"""Tracks: which object is which of the frames before, and under which id."""

from __future__ import annotations

import math

import pytest

from support.videos import detection
from triptych.detections import Detection
from triptych.video.tracker import Tracker


def test_ids_stay_with_what_moves_and_count_from_one() -> None:
    for _ in range(2):  # also a second tracker of this process
        tracker = Tracker(30, 0.25)
        ids = [tracker.update([detection(3 * frame), detection(300 - 3 * frame)]) for frame in range(30)]
        assert ids == [[1, 2]] * 30


def test_what_appears_later_gets_its_id_with_its_second_frame() -> None:
    tracker = Tracker(30, 0.25)
    assert tracker.update([]) == []
    assert [tracker.update([detection(3 * frame)]) for frame in range(3)] == [[None], [1], [1]]


def test_low_scores_continue_a_track_and_begin_none() -> None:
    tracker = Tracker(30, 0.5)
    assert tracker.update([detection(0), detection(200, 0.2)]) == [1, None]
    assert tracker.update([detection(2, 0.2), detection(202, 0.2)]) == [1, None]
    assert tracker.update([]) == []
    assert tracker.update([detection(4)]) == [1]


@pytest.mark.parametrize(("away", "expected"), [(28, 1), (40, 2)])
def test_a_track_is_remembered_for_a_second(away: int, expected: int) -> None:
    tracker = Tracker(30, 0.25)
    for _ in range(10):
        tracker.update([detection(50)])
    for _ in range(away):
        tracker.update([])
    assert [tracker.update([detection(50)]) for _ in range(2)][1] == [expected]


def test_a_track_can_begin_whatever_the_threshold() -> None:
    tracker = Tracker(30, 0.95)
    assert [tracker.update([detection(frame, 0.99)]) for frame in range(2)] == [[1], [1]]


def test_a_box_without_area_is_no_track_and_harms_none() -> None:
    tracker = Tracker(30, 0.25)
    flat = Detection("person", 0, 0.9, (200.0, 10.0, 200.0, 50.0))
    assert [tracker.update([flat, detection(frame)]) for frame in range(3)] == [[None, 1]] * 3


def test_replayed_tracks_keep_their_ids_and_new_ones_count_on() -> None:
    tracker = Tracker(30, 0.25)
    tracker.replay([([detection(3 * frame), detection(300)], [7, 4]) for frame in range(20)], last_id=9)
    assert tracker.update([detection(300), detection(60)]) == [4, 7]
    new = [tracker.update([detection(300), detection(60), detection(600)]) for _ in range(3)]
    assert new[-1] == [4, 7, 10]


def test_many_objects_that_cross_keep_their_ids() -> None:
    """Twelve objects on circles of different speeds: every frame has each once, and no id changes hands."""
    tracker = Tracker(30, 0.25)
    owners: dict[int, set[int]] = {}
    for frame in range(200):
        angles = [frame * (0.01 + 0.002 * number) + number for number in range(12)]
        boxes = [(640 + 45 * (n + 2) * math.cos(a), 640 + 45 * (n + 2) * math.sin(a)) for n, a in enumerate(angles)]
        objects = [Detection("person", 0, 0.8, (x, y, x + 40, y + 40)) for x, y in boxes]
        for number, track_id in enumerate(tracker.update(objects)):
            assert track_id is not None
            owners.setdefault(track_id, set()).add(number)
    assert sorted(owners) == list(range(1, 13))
    assert all(len(numbers) == 1 for numbers in owners.values())
