"""Statistics differenced over a window."""

from __future__ import annotations

from collections import Counter

import pytest
from tritonclient.grpc import service_pb2

from triptych.errors import MeasurementError
from triptych.measure.attribution import from_statistics
from triptych.measure.histogram import Histogram
from triptych.measure.window import Window, batch_sentence, difference, summary_line
from triptych.wire.statistics import Counters, parse_statistics

MS = 1_000_000


def response(scale: int) -> service_pb2.ModelStatisticsResponse:
    """Statistics after `scale` requests of 1 + 2 + 10 + 3 ms in the detector, and 20 ms in the ensemble."""
    result = service_pb2.ModelStatisticsResponse()
    for name, version, parts in (
        ("detector", "1", (1, 2, 10, 3)),
        ("detector", "2", (0, 0, 0, 0)),
        ("detection", "1", None),
    ):
        model = result.model_stats.add(name=name, version=version)
        count = 0 if version == "2" else scale
        model.inference_count, model.execution_count = 2 * count, count
        stats = model.inference_stats
        stats.success.count, stats.success.ns = count, count * (20 if parts is None else sum(parts)) * MS
        for field, milliseconds in zip(
            ("queue", "compute_input", "compute_infer", "compute_output"), parts or (), strict=False
        ):
            getattr(stats, field).count, getattr(stats, field).ns = count, count * milliseconds * MS
    return result


@pytest.fixture
def window() -> Window:
    before, after = parse_statistics(response(10)), parse_statistics(response(14))
    return Window.between(before, after, Histogram([21.0, 22.0, 23.0, 26.0]), duration_s=2.0)


def test_versions_of_a_model_are_added_up() -> None:
    assert parse_statistics(response(3))["detector"].requests == 3


def test_only_the_window_counts(window: Window) -> None:
    detector = window.counters["detector"]
    assert (detector.requests, detector.inferences, detector.executions) == (4, 8, 4)
    assert [detector.mean_ms(part) for part in ("queue", "input", "infer", "output", "total")] == [1, 2, 10, 3, 16]


def test_parts_and_remainders_make_up_the_client_s_mean(window: Window) -> None:
    stages = sum(window.counters[name].mean_ms("total") for name in ("detector",))
    assert window.ensemble_overhead_ms == 4
    assert window.network_and_client_ms == 3
    assert stages + window.ensemble_overhead_ms + window.network_and_client_ms == window.latencies.mean_ms == 23


def test_a_model_loaded_since_counts_from_zero() -> None:
    assert difference({}, parse_statistics(response(2)))["detector"].requests == 2


@pytest.mark.parametrize(
    ("before", "after", "answered", "reason"),
    [
        (Counters(requests=900), Counters(requests=300), 500, "it had counted 900 requests before, and 300 after"),
        (Counters(requests=10), Counters(requests=300), 500, "it counted 290 requests, and 500 were answered"),
        (Counters(requests=10, versions=["1"]), Counters(requests=600, versions=["2"]), 590, "version 1 to 2"),
        (Counters(requests=10, versions=["1"]), None, 0, "from version 1 to none"),
    ],
)
def test_a_model_loaded_again_within_the_window(
    before: Counters, after: Counters | None, answered: int, reason: str
) -> None:
    """Reported before as shares of 121% and times of -741 ms."""
    window = Window.between(
        {"detector": before}, {"detector": after} if after else {}, Histogram([1.0] * answered), 1.0
    )
    assert reason in window.interrupted
    assert not window.counters
    with pytest.raises(MeasurementError, match="measure again"):
        from_statistics(window)


def test_requests_of_others_within_the_window_are_no_interruption() -> None:
    window = Window.between(
        {"detector": Counters(requests=10)}, {"detector": Counters(requests=99)}, Histogram([1.0] * 5), 1.0
    )
    assert not window.interrupted


def test_an_empty_window_divides_by_nothing() -> None:
    window = Window.between({}, {}, Histogram(), 0.0)
    assert (window.network_and_client_ms, Counters().mean_ms("infer")) == (0, 0)
    assert "0 requests" in summary_line(window.latencies, window.duration_s)


def test_the_window_in_one_line(window: Window) -> None:
    line = summary_line(window.latencies, window.duration_s)
    assert line.startswith("4 requests in 2.0 s: 2.0 requests/s, client p50 22.")


@pytest.mark.parametrize(
    ("batches", "sentence"),
    [
        ({}, ""),
        ({1: 9}, "the detector ran 9 times, on 1 image each time"),
        ({1: 1, 2: 2}, "the detector ran 3 times, on 1.7 images on average: 1 time on 1 image, 2 times on 2 images"),
    ],
)
def test_batches_in_words(batches: dict[int, int], sentence: str) -> None:
    assert batch_sentence({"detector": Counters(requests=9, batches=Counter(batches))}) == sentence
    assert batch_sentence({}) == ""
