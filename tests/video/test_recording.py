"""The run of videos, from what the client and the server measured."""

from __future__ import annotations

from triptych.video.journal import Line
from triptych.video.pipeline import Tracked
from triptych.video.recording import Frames, Measurement
from triptych.video.stages import STAGES, Times


def test_answers_that_were_cut_off_are_counted() -> None:
    frames = Frames()
    times = Times(0.0, dict.fromkeys(STAGES, 1.0))
    for number, truncated in enumerate((True, False, True)):
        line = Line(number, None, 64, 48)
        frames.add(Tracked(line, f"r-{number}", b"jpeg", times, truncated))
    assert (frames.truncated, len(frames.answers)) == (2, 3)


def test_the_images_of_a_run_do_not_depend_on_which_source_was_faster() -> None:
    times = Times(0.0, dict.fromkeys(STAGES, 1.0))
    frames = [Tracked(Line(number, None, 64, 48), f"r-{number}", b"jpeg %d" % number, times) for number in range(4)]
    one, other = Measurement([Frames(), Frames()]), Measurement([Frames(), Frames()])
    for measurement, order in ((one, (0, 1, 2, 3)), (other, (2, 0, 3, 1))):
        for number in order:
            measurement.sources[number // 2].add(frames[number])
    assert one.images() == other.images()
    assert (one.images().count, one.images().total_bytes) == (4, 24)
