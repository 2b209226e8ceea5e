"""What each stage takes, in sentences."""

from __future__ import annotations

import pytest

from triptych.video.stages import Times, Totals, bound_sentence, busy_shares, latency_sentence


def test_the_busiest_bounds_the_throughput() -> None:
    means_ms = {"read": 2.0, "encode": 3.0, "wait": 50.0, "predict": 60.0, "track": 5.0, "write": 1.0}
    shares = busy_shares(means_ms, 30, in_flight=2)
    assert shares == pytest.approx({"read": 0.06, "encode": 0.09, "predict": 0.9, "track": 0.15, "write": 0.03})
    assert bound_sentence(shares, 30, live=False).startswith("predict bounds the throughput of 30.0 frames/s: busy 90%")
    shares = busy_shares({**means_ms, "predict": 20.0, "track": 30.0}, 30, in_flight=2)
    assert bound_sentence(shares, 30, live=False).startswith("track and write bounds")
    shares = busy_shares({**means_ms, "predict": 20.0}, 30, in_flight=2)
    assert bound_sentence(shares, 30, live=True).startswith("the source bounds")
    assert bound_sentence(shares, 30, live=False).startswith("nobody is busy all the time")


def test_most_of_the_latency_has_an_owner() -> None:
    means_ms = {"read": 2.0, "encode": 3.0, "wait": 5.0, "predict": 60.0, "track": 5.0, "write": 0.0}
    assert latency_sentence(means_ms) == "predict owns 80% of a frame's latency: 60.0 of 75.0 ms"


def test_totals_span_from_the_first_reading_to_the_last_line() -> None:
    totals = Totals()
    assert (totals.frames_per_s, totals.means_ms()["read"]) == (0, 0)
    totals.add(Times(10.0, {"read": 100.0, "predict": 400.0}))
    totals.add(Times(11.0, {"read": 300.0, "predict": 700.0}))
    assert totals.seconds == pytest.approx(2.0)
    assert totals.frames_per_s == pytest.approx(1.0)
    assert totals.means_ms()["read"] == pytest.approx(200.0)


def test_sources_that_work_at_the_same_time_share_their_time() -> None:
    one, other = Totals(), Totals()
    one.add(Times(10.0, {"read": 100.0, "predict": 900.0}))
    other.add(Times(9.0, {"read": 300.0, "predict": 200.0}))
    both = Totals.of([one, Totals(), other])
    assert (both.frames, both.began_s) == (2, 9.0)
    assert both.ended_s == pytest.approx(11.0)
    assert both.means_ms()["read"] == pytest.approx(200.0)
    assert Totals.of([]).frames_per_s == 0
    means_ms = {"read": 2.0, "encode": 3.0, "wait": 5.0, "predict": 60.0, "track": 5.0, "write": 1.0}
    shares = busy_shares(means_ms, 60, in_flight=2, sources=2)
    assert shares == busy_shares(means_ms, 30, in_flight=2)
    assert bound_sentence(dict.fromkeys(shares, 0.1), 60, live=True, sources=2).startswith("the sources bound the")
