"""A run cut into equal parts of its time."""

from __future__ import annotations

import numpy as np
import pytest

from support.measured import traced_requests
from triptych.measure.intervals import Answer, cut


def test_each_request_is_in_the_part_in_which_it_ended() -> None:
    traced = traced_requests(np.array([10.0, 20.0, 30.0, 40.0]))
    ends_s = (100.5, 101.5, 101.6, 104.0)  # the last one after the end
    answers = {str(number): Answer(float(10 * number), at_s) for number, at_s in enumerate(ends_s)}
    parts = cut(answers, [100.1, 103.9], traced, began_s=100.0, seconds=3.0, count=3)
    assert [part.requests for part in parts] == [1, 2, 1]
    assert [part.failures for part in parts] == [1, 0, 1]
    assert [part.start_s for part in parts] == [0.0, 1.0, 2.0]
    assert [part.mean_ms for part in parts] == [0.0, 15.0, 30.0]
    assert [part.owners_ms["detector"] for part in parts] == pytest.approx([10, 25, 40])
    assert parts[1].rate_per_s == 2.0


def test_a_part_without_answers_has_no_figures() -> None:
    traced = traced_requests(np.array([]))
    (first, second) = cut({"0": Answer(5.0, 0.1)}, [], traced, began_s=0.0, seconds=2.0, count=2)
    assert (first.requests, first.owners_ms) == (1, {})
    assert (second.requests, second.mean_ms, second.p99_ms) == (0, 0.0, 0.0)
