"""The run of a video, from what the client and the server measured."""

from __future__ import annotations

from triptych.video.journal import Line
from triptych.video.pipeline import Tracked
from triptych.video.recording import Measurement
from triptych.video.stages import STAGES, Times


def test_answers_that_were_cut_off_are_counted() -> None:
    measurement = Measurement()
    times = Times(0.0, dict.fromkeys(STAGES, 1.0))
    for number, truncated in enumerate((True, False, True)):
        line = Line(number, None, 64, 48)
        measurement.add(Tracked(line, f"r-{number}", b"jpeg", times, truncated))
    assert (measurement.truncated, len(measurement.answers)) == (2, 3)
