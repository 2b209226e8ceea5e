"""A run, put together from what was measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from triptych.measure.run_file import ImageSet, Run
from triptych.measure.window import Window
from triptych_loadtest.load_test import LoadTest
from triptych_loadtest.recorder import Recorder

MakeRun = Callable[..., tuple[Run, Window]]


def test_the_parts_of_traced_requests_are_the_client_s_mean(make_run: MakeRun) -> None:
    run, _ = make_run()
    assert run.attribution.source == "traces"
    owners = run.attribution.breakdowns["mean"].owners()
    assert owners == pytest.approx(
        {"preprocess": 1, "detector": 1, "postprocess": 1, "ensemble overhead": 1, "network and client": 16}
    )
    assert run.client.latencies.mean_ms == pytest.approx(20)


def test_without_traces_the_statistics_explain_the_mean(make_run: MakeRun) -> None:
    run, _ = make_run(with_traces=False)
    assert (run.attribution.source, list(run.attribution.breakdowns)) == ("statistics", ["mean"])
    assert sum(run.attribution.breakdowns["mean"].owners().values()) == pytest.approx(20)


def test_what_the_clients_saw(make_run: MakeRun) -> None:
    run, window = make_run([10.0, 20.0, 30.0, 40.0], failures=3, names=("detect 8x6", "detect 4x2"))
    client = run.client
    assert client.latencies.count == len(window.latencies_ms) == 4
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
    workload = make_run(test=LoadTest(Path("DIR"), sizes_wh=((64, 48),), **options))[0].workload
    assert (workload.loop, workload.users, workload.rate_per_s) == expected
    assert list(workload.sizes) == ["64x48"]
    assert workload.processes == options.get("processes", 1)
    assert workload.images == ImageSet.of([b"one", b"two"])


def test_recorders_of_several_processes_add_up() -> None:
    own, other = Recorder(), Recorder()
    for number, recorder in enumerate((own, other, other)):
        recorder("detect", 10.0 * (number + 1), None, {"request_id": str(number)})
    other("detect", 1.0, ValueError("it was refused"), {"request_id": ""})
    total = Recorder()
    total.merge(own.take())
    total.merge(other.take())
    assert {request_id: answer.latency_ms for request_id, answer in total.answers.items()} == {
        "0": 10,
        "1": 20,
        "2": 30,
    }
    assert total.all_latencies.mean_ms == pytest.approx(20)
    assert total.failures["ValueError"].count == len(total.failed_at_s) == 1
    assert not other.answers, "what was taken is not there any more"
