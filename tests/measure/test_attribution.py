"""The arithmetic of who owns what."""

from __future__ import annotations

import numpy as np
import pytest

from support.measured import traced_requests
from triptych.contract import STAGES
from triptych.measure.attribution import (
    LATENESS,
    Answer,
    Attribution,
    Breakdown,
    Headroom,
    Requests,
    from_requests,
    from_statistics,
    owner_sentence,
)
from triptych.measure.bounds import PERCENTS
from triptych.measure.histogram import Histogram
from triptych.measure.traces import PARTS, TracedRequest
from triptych.measure.window import Window
from triptych.wire.statistics import Counters


def attributed(requests: Requests) -> Attribution:
    return from_requests(requests, Histogram(requests.total_ms))


@pytest.mark.parametrize("count", [1, 3, 40, 493])
def test_each_column_s_total_is_the_latency_that_the_clients_saw(count: int) -> None:
    """The tail is longer than what lies before it, so that the mean of the requests around the p99 is too."""
    requests = traced_requests(80 + 10 * np.random.default_rng(count).pareto(1.5, count))
    latencies = Histogram(requests.total_ms)
    breakdowns = from_requests(requests, latencies).breakdowns
    assert breakdowns["mean"].total_ms == pytest.approx(latencies.mean_ms)
    for percent in PERCENTS:
        breakdown = breakdowns[f"p{percent}"]
        assert breakdown.total_ms == pytest.approx(latencies.percentile_ms(percent))
        assert sum(breakdown.owners().values()) == pytest.approx(breakdown.total_ms)
        assert breakdown.owners()["preprocess"] == pytest.approx(1.0, rel=0.02), "as in each request"


def test_of_requests_that_were_traced_now_and_then_the_columns_are_those_of_all() -> None:
    requests = traced_requests(np.random.default_rng(5).gamma(4.0, 20.0, 800))
    latencies = Histogram(requests.total_ms)
    sampled = traced_requests(np.random.default_rng(5).gamma(4.0, 20.0, 800)[::8])
    breakdowns = from_requests(sampled, latencies).breakdowns
    assert breakdowns["p99"].total_ms == pytest.approx(latencies.percentile_ms(99))
    assert all(part >= 0 for part in breakdowns["p99"].owners().values())


def test_every_breakdown_adds_up_and_is_its_percentile() -> None:
    detector_ms = np.random.default_rng(3).gamma(4.0, 5.0, 2000)
    attribution = attributed(traced_requests(detector_ms))
    assert list(attribution.breakdowns) == ["mean", "p50", "p90", "p95", "p99"]
    for at, breakdown in attribution.breakdowns.items():
        assert sum(breakdown.owners().values()) == pytest.approx(breakdown.total_ms)
        true = detector_ms.mean() if at == "mean" else np.percentile(detector_ms, float(at[1:]))
        assert breakdown.total_ms == pytest.approx(true + 5, rel=0.02)
        assert breakdown.owners()["detector"] == pytest.approx(true, rel=0.03)
        assert breakdown.network_and_client_ms == pytest.approx(2)
    assert attribution.percentiles_ms["detector infer"]["p95"] == pytest.approx(np.percentile(detector_ms, 95))


def test_one_request_is_enough() -> None:
    attribution = attributed(traced_requests(np.array([10.0])))
    assert {breakdown.total_ms for breakdown in attribution.breakdowns.values()} == {15.0}


def test_requests_that_one_side_does_not_know_are_left_out() -> None:
    traced = [TracedRequest("other", 1.0, {stage.name: dict.fromkeys(PARTS, 0.0) for stage in STAGES}, 1.0)]
    assert len(Requests.join(traced, {"ours": Answer(5.0, 0.0)})) == 0


def test_a_request_that_was_sent_again_counts_once_by_its_last_trace() -> None:
    """Reported before as -9,980 ms of network."""
    first, last = (
        TracedRequest("frame-1", server_ms, {stage.name: dict.fromkeys(PARTS, 0.0) for stage in STAGES}, 1.0, began_ns)
        for server_ms, began_ns in ((10_000.0, 1), (15.0, 2))
    )
    for traced in ([first, last], [last, first]):
        requests = Requests.join(traced, {"frame-1": Answer(10_020.0, 0.0, {"wait": 10_000.0})})
        assert len(requests) == 1
        assert requests.network_ms == pytest.approx([5.0])


def test_the_lateness_of_a_load_is_no_part_of_the_network() -> None:
    traced = TracedRequest("1", 10.0, {stage.name: dict.fromkeys(PARTS, 0.5) for stage in STAGES}, 4.0)
    owners = Requests.join([traced], {"1": Answer(50.0, 0.0, {LATENESS: 37.0})}).breakdown().owners()
    assert (owners[LATENESS], owners["network and client"]) == (37.0, 3.0)
    counters = {"detection": Counters(requests=1, total_ns=10_000_000)}
    statistics = from_statistics(Window(Histogram([50.0]), 1.0, counters), {LATENESS: 37.0})
    owners = statistics.breakdowns["mean"].owners()
    assert (owners[LATENESS], owners["network and client"]) == (37.0, 3.0)
    assert sum(owners.values()) == 50.0


def test_statistics_explain_the_mean() -> None:
    ms = 1_000_000
    counters = {
        "detection": Counters(requests=2, total_ns=2 * 20 * ms),
        "preprocess": Counters(2, 0, 2, 2, 2 * 3 * ms, 2 * ms, 2 * ms // 2, 2 * ms // 2, 2 * ms // 2),
        "detector": Counters(2, 0, 2, 2, 2 * 12 * ms, 2 * ms, 2 * ms, 2 * 9 * ms, 2 * ms),
        "postprocess": Counters(2, 0, 2, 2, 2 * 4 * ms, 2 * ms, 2 * ms, 2 * ms, 2 * ms),
    }
    attribution = from_statistics(Window(Histogram([21.0, 25.0]), 1.0, counters))
    assert (attribution.source, list(attribution.breakdowns)) == ("statistics", ["mean"])
    mean = attribution.breakdowns["mean"]
    assert mean.owners() == pytest.approx(
        {"preprocess": 3, "detector": 12, "postprocess": 4, "ensemble overhead": 1, "network and client": 3}
    )
    assert mean.stages["preprocess"]["queue"] == pytest.approx(1.5), "what is in the total alone comes before the queue"


def test_who_owns_it() -> None:
    stages = {"detector": {"queue": 2.0, "input": 0.0, "infer": 10.0, "output": 0.0}}
    assert owner_sentence(Breakdown(20.0, 7.0, 1.0, stages), "p95") == (
        "detector owns 60% of the p95: 10.0 ms in the model, 2.0 ms waiting for a free instance"
    )
    assert owner_sentence(Breakdown(40.0, 27.0, 1.0, stages), "mean") == "network and client owns 68% of the mean: " + (
        "27.0 of 40.0 ms"
    )


def test_headroom_in_milliseconds_and_frames() -> None:
    assert (Headroom(50, 40).ms, Headroom(50, 40).frames_per_s) == (10, 5)
    assert "10.0 ms to spare" in Headroom(50, 40).sentence("p95")
    assert "over the budget of 50 ms at p95 by 12.5 ms" in Headroom(50, 62.5).sentence("p95")
    assert "4.0 frames/s less than 20.0" in Headroom(50, 62.5).sentence("p95")
