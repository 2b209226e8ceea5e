"""A run, put together from what was measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from triptych.measure.attribution import LATENESS
from triptych.measure.remarks import of_run
from triptych.measure.run_file import ImageSet, Run
from triptych_loadtest.load_test import LoadTest
from triptych_loadtest.loops import RequestUnsent
from triptych_loadtest.recorder import Report

MakeRun = Callable[..., Run]


def test_the_parts_of_traced_requests_are_the_client_s_mean(make_run: MakeRun) -> None:
    run = make_run()
    assert run.attribution.source == "traces"
    owners = run.attribution.breakdowns["mean"].owners()
    assert owners == pytest.approx(
        {"preprocess": 1, "detector": 1, "postprocess": 1, "ensemble overhead": 1, "network and client": 16}
    )
    assert run.client.latencies.mean_ms == pytest.approx(20)


def test_without_traces_the_statistics_explain_the_mean(make_run: MakeRun) -> None:
    run = make_run(with_traces=False)
    assert (run.attribution.source, list(run.attribution.breakdowns)) == ("statistics", ["mean"])
    assert sum(run.attribution.breakdowns["mean"].owners().values()) == pytest.approx(20)


def test_what_the_clients_saw(make_run: MakeRun) -> None:
    run = make_run([10.0, 20.0, 30.0, 40.0], failures=3, names=("detect 8x6", "detect 4x2"))
    client = run.client
    assert client.latencies.count == 4
    assert {name: latencies.count for name, latencies in client.by_request.items()} == {
        "detect 8x6": 2,
        "detect 4x2": 2,
    }
    assert client.failed == 3
    assert client.failures["ValueError"].example == "it was refused"
    assert (client.seconds, client.rate_per_s, client.cpu_s, client.busiest) == (2, 2, 1.5, 0.5)
    assert len(run.intervals) == 2
    assert sum(interval.requests for interval in run.intervals) == 4


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"users": 3}, ("closed", 3, None)),
        ({"users": 3, "fps": 5}, ("camera", 3, 5)),
        ({"rate_per_s": 8}, ("constant", 0, 8)),
        ({"rate_per_s": 8, "poisson": True, "processes": 2}, ("poisson", 0, 8)),
    ],
)
def test_what_was_asked(make_run: MakeRun, options: dict[str, Any], expected: tuple[object, ...]) -> None:
    workload = make_run(test=LoadTest(Path("DIR"), sizes_wh=((64, 48),), **options)).workload
    assert (workload.loop, workload.users, workload.rate_per_s) == expected
    assert list(workload.sizes) == ["64x48"]
    assert workload.processes == options.get("processes", 1)
    assert workload.images == ImageSet.of([b"one", b"two"])


def test_lateness_in_sending_is_a_row_of_its_own(make_run: MakeRun) -> None:
    test = LoadTest(Path("DIR"), rate_per_s=5, duration_s=2)
    for with_traces in (True, False):
        run = make_run([20.0] * 4, test=test, late_ms=12.0, with_traces=with_traces)
        owners = run.attribution.breakdowns["mean"].owners()
        assert owners[LATENESS] == pytest.approx(12), "and not network"
        assert owners["network and client"] == pytest.approx(4)
    assert LATENESS not in make_run().attribution.breakdowns["mean"].owners(), "a user who waits is never late"


def test_what_was_not_sent_is_in_the_run_and_the_latencies_say_what_they_leave_out(make_run: MakeRun) -> None:
    test = LoadTest(Path("DIR"), rate_per_s=5, duration_s=2)
    run = make_run([10.0] * 4, failures=1, unsent=2000, test=test)
    assert run.client.unsent == 2000
    assert run.client.left_out == (
        "of 2,005 requests that were due, the latencies leave out 1 that failed and "
        "2,000 that were due and were not sent"
    )
    (remark,) = [remark for remark in of_run(run) if remark.id == "requests-unsent"]
    assert "2,000 of 2,005 requests that were due were not sent" in remark.text
    assert make_run().client.left_out == ""


def test_every_seed_is_in_the_run(make_run: MakeRun) -> None:
    test = LoadTest(Path("DIR"))
    assert make_run(test=test).workload.seed == test.seed != LoadTest(Path("DIR")).seed
    assert make_run(test=LoadTest(Path("DIR"), seed=7)).workload.seed == 7


def test_what_a_process_saw() -> None:
    report = Report()
    report("detect", 10.0, None, {"request_id": "a", "late_ms": 2.0, "truncated": True})
    report("detect", 1.0, ValueError("it was refused"), {"request_id": "b", "late_ms": 0.0, "truncated": False})
    report("unsent", 0.0, RequestUnsent("late"), {"request_id": "", "late_ms": 0.0, "truncated": False})
    (answered,) = report.answers
    assert answered[:4] == ("detect", "a", 10.0, 2.0)
    assert report.failures[0][:2] == ("ValueError", "it was refused")
    assert (report.unsent, report.truncated) == (1, 1)
