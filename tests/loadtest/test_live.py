"""The table of the last seconds, as the tab in Locust's web page shows it."""

from __future__ import annotations

import grpc
import pytest

from triptych.contract import DETECTION, STAGES
from triptych.errors import ServerUnavailable
from triptych.wire.statistics import Counters
from triptych_loadtest.live import POLLS, Live

NS = 1_000_000


def counters(requests: int, detector_ms: float = 20, failures: int = 0) -> dict[str, Counters]:
    """Return what a server has counted after so many requests: 2 ms in each stage but the detector."""
    stages = {
        stage.name: Counters(
            requests=requests,
            failures=failures,
            inferences=requests,
            executions=requests // 2,
            total_ns=int(requests * ms * NS),
            queue_ns=int(requests * ms * NS / 4),
            infer_ns=int(requests * ms * NS / 4 * 3),
        )
        for stage in STAGES
        for ms in [detector_ms if stage.name == "detector" else 2]
    }
    total_ns = sum(stage.total_ns for stage in stages.values()) + requests * NS
    return {**stages, DETECTION.name: Counters(requests=requests, total_ns=total_ns)}


def test_the_table_is_of_the_last_seconds_alone() -> None:
    live = Live()
    live.poll(0, counters(1000, detector_ms=500))
    for second in range(1, POLLS + 5):
        live.count([30.0] * 20, failures=1)
        live.poll(2.0 * second, counters(1000 + 20 * second, 500))
    table = {row["stage"]: row for row in live.rows()}
    assert [*table] == [
        *("preprocess", "detector", "postprocess", "ensemble overhead", "network and client", "client, end to end")
    ]
    assert table["preprocess"]["rate"] == pytest.approx(10)
    assert table["detector"]["batch"] == 2
    assert table["client, end to end"]["failures"] == POLLS - 1
    assert table["client, end to end"]["total"] == pytest.approx(30)


def test_the_parts_are_the_client_s_mean_and_the_owner_is_named() -> None:
    live = Live()
    live.poll(0, counters(50))
    live.count([30.0] * 10, failures=0)
    live.poll(4, counters(60))
    *parts, client = live.rows()
    assert sum(row["total"] for row in parts) == pytest.approx(client["total"]) == pytest.approx(30)
    assert sum(row["share"] for row in parts) == pytest.approx(1)
    assert {row["stage"]: row["total"] for row in parts}["ensemble overhead"] == pytest.approx(1)
    assert [row["note"] for row in parts if "note" in row] == [
        "detector owns 67% of the mean: 15.0 ms in the model, 5.0 ms waiting for a free instance"
    ]


def test_while_there_is_nothing_to_show_it_says_why() -> None:
    live = Live()
    (row,) = live.rows()
    assert row["note"] == "the server has not been asked yet"
    live.poll(0, counters(5))
    assert live.why_empty == "no request was answered in the last seconds"
    live.count([30.0], 0)
    live.poll(2, counters(6))
    assert live.why_empty == ""
    live.poll(4, ServerUnavailable("no server answers", grpc.StatusCode.UNAVAILABLE))
    (row,) = live.rows()
    assert row["note"] == "no server answers"


def test_a_server_that_was_restarted_is_not_held_against_the_one_before() -> None:
    live = Live()
    for second, requests in enumerate((500, 520, 3)):
        live.count([30.0] * 20, 0)
        live.poll(2.0 * second, counters(requests))
    assert live.why_empty
    live.count([30.0] * 5, 0)
    live.poll(6, counters(8))
    assert live.rows()[0]["rate"] == pytest.approx(5 / 2)
