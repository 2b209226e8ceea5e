"""A run cut into equal parts of its time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.measured import traced_requests
from triptych.measure.intervals import Timeline


def test_each_request_is_in_the_part_in_which_it_ended() -> None:
    ends_s = (100.5, 101.5, 101.6, 104.0)  # the last one after the end
    traced = replace(traced_requests(np.array([10.0, 20.0, 30.0, 40.0])), at_s=np.array(ends_s))
    timeline = Timeline(began_s=100.0, seconds=3.0, count=3)
    for number, at_s in enumerate(ends_s):
        timeline.answer(at_s, float(10 * number))
    for at_s in (100.1, 103.9):
        timeline.failure(at_s)
    parts = timeline.intervals(traced)
    assert [part.requests for part in parts] == [1, 2, 1]
    assert [part.failures for part in parts] == [1, 0, 1]
    assert [part.start_s for part in parts] == [0.0, 1.0, 2.0]
    assert [part.mean_ms for part in parts] == pytest.approx([0.0, 15.0, 30.0], abs=1e-5)
    assert [part.owners_ms["detector"] for part in parts] == pytest.approx([10, 25, 40])
    assert parts[1].rate_per_s == 2.0


def test_a_part_without_answers_has_no_figures() -> None:
    timeline = Timeline(began_s=0.0, seconds=2.0, count=2)
    timeline.answer(0.1, 5.0)
    (first, second) = timeline.intervals(traced_requests(np.array([])))
    assert (first.requests, first.owners_ms) == (1, {})
    assert (second.requests, second.mean_ms, second.p99_ms) == (0, 0.0, 0.0)
