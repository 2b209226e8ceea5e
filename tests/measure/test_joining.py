"""Requests of both sides, joined as they come."""

from __future__ import annotations

import numpy as np
import pytest

from triptych.contract import STAGES
from triptych.measure import joining
from triptych.measure.attribution import Answer
from triptych.measure.joining import Joined
from triptych.measure.traces import PARTS, TracedRequest


def traced(number: int) -> TracedRequest:
    return TracedRequest(str(number), 4.0, {stage.name: dict.fromkeys(PARTS, 0.25) for stage in STAGES}, 1.0, number)


def test_whichever_side_comes_first_they_are_joined() -> None:
    joined = Joined()
    joined.answer("1", Answer(10.0, 1.0))
    joined.traced([traced(1), traced(2)])
    assert list(joined.requests.total_ms) == [10.0]
    joined.answer("2", Answer(20.0, 2.0))
    joined.traced([])
    assert list(joined.requests.total_ms) == [10.0, 20.0]
    joined.traced([traced(1)])
    assert len(joined.requests) == 2, "each once"


def test_a_day_takes_no_more_memory_than_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "MOST_JOINED", 1000)
    monkeypatch.setattr(joining, "MOST_UNANSWERED", 50)
    joined = Joined()
    for first in range(100, 50_100, 100):
        for number in range(first, first + 100):
            joined.answer(str(number), Answer(10.0, float(number)))
        # One in two is traced, and somebody else's requests are.
        joined.traced([traced(number if number % 2 else -number) for number in range(first, first + 100)])
    assert 500 <= len(joined.requests) <= 1000
    assert joined.one_in == 32
    gaps = np.diff(joined.requests.at_s)
    assert set(gaps) == {64.0}, "spread evenly over the time"
    assert len(joined._answers) <= 2 * joining.WAIT_S
    assert len(joined._traces) <= 150
