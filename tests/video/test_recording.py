"""The run of a video, from what the client and the server measured."""

from __future__ import annotations

from triptych.video.recording import since_restart
from triptych.wire.statistics import Counters


def test_counters_of_a_server_that_was_restarted_count_from_zero() -> None:
    before = {"detector": Counters(requests=90), "preprocess": Counters(requests=5), "gone": Counters(requests=3)}
    after = {"detector": Counters(requests=40), "preprocess": Counters(requests=6)}
    assert since_restart(before, after) == {"preprocess": Counters(requests=5)}
