"""The run of a video, from what the client and the server measured."""

from __future__ import annotations

from triptych.video.journal import Line
from triptych.video.pipeline import Tracked
from triptych.video.recording import Measurement, since_restart
from triptych.video.stages import STAGES, Times
from triptych.wire.statistics import Counters


def test_counters_of_a_server_that_was_restarted_count_from_zero() -> None:
    before = {"detector": Counters(requests=90), "preprocess": Counters(requests=5), "gone": Counters(requests=3)}
    after = {"detector": Counters(requests=40), "preprocess": Counters(requests=6)}
    assert since_restart(before, after) == {"preprocess": Counters(requests=5)}


def test_answers_that_were_cut_off_are_counted() -> None:
    measurement = Measurement()
    times = Times(0.0, dict.fromkeys(STAGES, 1.0))
    for number, truncated in enumerate((True, False, True)):
        line = Line(number, None, 64, 48)
        measurement.add(Tracked(line, f"r-{number}", b"jpeg", times, truncated))
    assert (measurement.truncated, len(measurement.answers)) == (2, 3)
