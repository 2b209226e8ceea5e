"""Warnings, and what they are given for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support import ROOT
from support.measured import (
    in_turn,
    made_up,
    traced_requests,
    users,
    with_client,
    with_environment,
    with_workload,
    without_traces,
)
from triptych.measure import remarks
from triptych.measure.attribution import from_requests
from triptych.measure.footprint import Footprint, ProcessFootprint, Trend
from triptych.measure.pool import Side
from triptych.measure.remarks import Remark, differences, of_pair, of_run, of_sides, of_sweep
from triptych.measure.run_file import Failure, ImageSet, Run, ServedDetector
from triptych.measure.scenario import Scenario
from triptych.measure.slope import Slope
from triptych.measure.sweep import Series
from triptych.measure.sweep_file import Sweep

Change = Callable[[Run], Run]


def test_every_remark_is_in_the_docs() -> None:
    source = Path(remarks.__file__).read_text()
    ids = set(re.findall(r'(?:Remark\(\s*|^\s*\(?)"([a-z]+(?:-[a-z]+)+)"', source, re.MULTILINE))
    assert len(ids) > 18
    listed = re.findall(r"^\| `([a-z-]+)`", (ROOT / "docs" / "measure.md").read_text(), re.MULTILINE)
    assert sorted(ids) == sorted(listed)


# --- one run ---------------------------------------------------------------------------------------------------------


def test_a_busy_generator() -> None:
    run = with_workload(made_up(), processes=2)
    assert of_run(run) == []
    busy = with_client(run, busiest=0.93)
    (remark,) = of_run(busy)
    assert remark.id == "generator-busy"
    assert "used 93% of a core" in remark.text
    assert remark.advice == "share the load with --processes 3", "it had 2"
    assert of_run(with_workload(busy, loop="video")) == []


def test_a_scenario_that_was_too_short() -> None:
    scenario = Scenario("offline", 40.0, "", None, 480, 12.0, ["12 s of 600 s", "480 images of 24,576"], None, [])
    (remark,) = of_run(replace(made_up(), scenario=scenario))
    assert remark.id == "scenario-short"
    assert remark.text == "not a valid MLPerf length: 12 s of 600 s and 480 images of 24,576"
    assert of_run(replace(made_up(), scenario=replace(scenario, missing=[]))) == []


def test_answers_that_were_cut_off() -> None:
    (remark,) = of_run(with_client(made_up(), truncated=12))
    assert (remark.id, remark.text.split(",")[0]) == (
        "answers-cut-off",
        "12 of 200 requests had an answer that was cut off",
    )


def test_requests_without_a_whole_trace() -> None:
    run = made_up()
    (remark,) = of_run(replace(run, attribution=replace(run.attribution, requests=190)))
    assert remark.id == "traces-incomplete"
    assert remark.text.startswith("10 of 200 traced requests left no whole trace")
    sampled = replace(run, attribution=replace(run.attribution, requests=50, trace_rate=4))
    assert of_run(sampled) == [], "1 request in 4 was traced"
    (remark,) = of_run(replace(sampled, attribution=replace(sampled.attribution, requests=40)))
    assert remark.text.startswith("10 of 50 traced requests left no whole trace")
    assert of_run(without_traces(run)) == []


def test_what_grows() -> None:
    def trend(low: float) -> Trend:
        return Trend(100, 150, 150, Slope(12, low, 24 - low))

    def seen(memory_mb: Trend) -> Run:
        still = Trend(9, 9, 9, Slope(0, 0, 0))
        process = ProcessFootprint("detector", "1", 7, 0.0, 300.0, memory_mb, still, still)
        return replace(made_up(), footprint=Footprint(1.0, 300.0, [process], []))

    assert of_run(seen(trend(0.9))) == []
    (remark,) = of_run(seen(trend(8)))
    assert (remark.id, remark.text) == (
        "footprint-grows",
        "detector 1 (process 7) grows by 12 (8 to 16) MB a minute",
    )


def long_tails(count: int, **late: float) -> list[Remark]:
    """Return the long tails of requests of which every fiftieth is late, in a stage or in the network."""
    seldom = np.where(np.arange(count) % 50 == 0, 1.0, 0.0)
    traced = traced_requests(np.full(count, 30.0), **{owner: ms * seldom for owner, ms in late.items()})
    run = made_up(requests=count)
    return of_run(replace(run, attribution=from_requests(traced, run.client.latencies)))


def test_a_long_tail_is_its_stage_s_alone() -> None:
    (tail,) = long_tails(1000, postprocess=20)
    assert tail.id == "long-tail"
    assert tail.text == "postprocess has a long tail: p95 1.0 ms, p99 21.0 ms, mostly in the model"
    assert tail.advice.startswith("look for inputs that cost more")
    assert str(tail) == f"{tail.text}; {tail.advice}"
    assert long_tails(1000) == []
    assert long_tails(100, postprocess=20) == [], "two of 100 may be chance"


def test_a_long_tail_of_the_network() -> None:
    (tail,) = long_tails(1000, network=40)
    assert tail.text.startswith("network and client has a long tail: p95 2.0 ms, p99 42.0 ms")
    assert tail.advice.startswith("look at the network")


def test_the_json_of_a_run_has_its_remarks() -> None:
    data = json.loads(remarks.to_json(with_client(made_up(), busiest=0.93)))
    assert [remark["id"] for remark in data["remarks"]] == ["generator-busy"]
    assert data["version"] == 2


# --- a sweep ---------------------------------------------------------------------------------------------------------


def test_a_busy_generator_of_a_sweep() -> None:
    points = users((1, 20, 44), (4, 78, 50), (8, 80, 100))
    run = made_up()

    def sweep(busiest: float) -> Sweep:
        series = [Series.of("a", [points[0], replace(points[1], busiest=busiest), points[2]], None)]
        return Sweep(run.started, run.environment, run.workload.images, None, "p95", series, [], [])

    assert of_sweep(sweep(0.5)) == []
    (remark,) = of_sweep(sweep(0.91))
    assert remark.id == "generator-busy"
    assert remark.text.startswith("the load generator used 91% of a core at 4 users")
    assert json.loads(remarks.to_json(sweep(0.91)))["remarks"][0]["id"] == "generator-busy"


# --- runs side by side -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "name", "text"),
    [
        (
            lambda run: with_environment(run, cpu="another"),
            "processors-differ",
            "processors differ: a CPU in A, another in B",
        ),
        (lambda run: with_environment(run, cores=8), "cores-differ", "cores differ: 2 in A, 8 in B"),
        (lambda run: with_environment(run, gpus=["a GPU"]), "gpus-differ", "GPUs differ: none in A, a GPU in B"),
        (
            lambda run: with_environment(run, address="gpu:8001"),
            "servers-differ",
            "server machines differ: 127.0.0.1 in A, gpu in B",
        ),
        (
            lambda run: with_environment(run, versions={"triton": "2.55.0", "numpy": "2"}),
            "versions-differ",
            "versions differ between A and B: triton 2.51.0 and 2.55.0, numpy none and 2",
        ),
        (
            lambda run: with_environment(run, detector=ServedDetector(2, "tensorrt", 1, 16)),
            "instances-differ",
            "detector instances differ: 2 in A, 1 in B",
        ),
        (
            lambda run: with_environment(run, detector=None),
            "instances-differ",
            "detector instances differ: 2 in A, unknown in B",
        ),
        (lambda run: with_workload(run, users=8), "users-differ", "users differ: 1 in A, 8 in B"),
        (lambda run: with_workload(run, rate_per_s=5.0), "rates-differ", "rates asked for differ: none in A, 5.0 in B"),
        (
            lambda run: with_workload(run, shape="ramp"),
            "shapes-differ",
            "shapes of the load differ: constant in A, ramp in B",
        ),
        (
            lambda run: with_workload(run, batch=4),
            "batches-differ",
            "batch sizes of the requests differ: 1 in A, 4 in B",
        ),
        (
            lambda run: with_workload(run, sizes=["8x8"]),
            "sizes-differ",
            "sizes of the images differ: as they are in A, 8x8 in B",
        ),
        (
            lambda run: with_workload(run, processes=2),
            "generators-differ",
            "numbers of load generators differ: 1 in A, 2 in B",
        ),
        (
            lambda run: with_workload(run, images=ImageSet.of([b"x", b"y"])),
            "images-differ",
            "images differ: 1 in A are not the 2 in B",
        ),
        (without_traces, "sources-differ", "sources of the attribution differ: traces in A, statistics in B"),
        (
            lambda run: with_client(run, failures={"DeadlineExceeded": Failure(3, "late")}),
            "requests-failed",
            "3 of 203 requests failed in B (DeadlineExceeded): its latencies are of the others",
        ),
        (
            lambda run: with_client(run, busiest=0.95),
            "generator-busy",
            "the load generator used 95% of a core in B: it may be what was measured",
        ),
    ],
)
def test_what_makes_a_comparison_unfair(change: Change, name: str, text: str) -> None:
    run = made_up(seed=1)
    assert of_pair(run, made_up(seed=2)) == []
    (remark,) = of_pair(run, change(made_up(seed=2)))
    assert (remark.id, remark.text) == (name, text)
    assert remark.advice


def test_the_detector_itself_may_differ() -> None:
    other = with_environment(made_up(seed=2), detector=ServedDetector(7, "tensorrt", 2, 8, {"precision": "int8"}))
    assert differences(made_up(seed=1), other) == []


def side(name: str, *runs: Run) -> Side:
    return Side(name, runs, [Path(f"{name}{number}.json") for number in range(len(runs))])


def test_runs_of_one_side_should_be_the_same() -> None:
    other = with_environment(made_up(seed=2, noise=0.05, slower=1.1), cores=8)
    one = side("a", made_up(seed=1, noise=0.05), other)
    listed = {remark.id: remark.text for remark in of_sides([one, side("b", made_up(seed=3))])}
    assert listed["cores-differ"] == "of one side, but cores differ: 2 in a0.json, 8 in a1.json"
    assert list(listed) == ["cores-differ", "chance-unknown"]
    assert listed["chance-unknown"].endswith("missing: 2 of a, 3 of b")


def test_four_runs_of_each_side_in_turn_are_evidence() -> None:
    assert of_sides(in_turn()) == []
    (remark,) = of_sides([side(name, *(made_up(first + n) for n in range(4))) for name, first in (("a", 0), ("b", 4))])
    assert remark.id == "chance-unknown"
    assert "not taken in turn" in remark.text


def test_each_remark_comes_once() -> None:
    sides = [side("a", with_client(made_up(0), busiest=0.9)), side("b", made_up(1)), side("c", made_up(2))]
    assert [remark.id for remark in of_sides(sides)] == ["generator-busy", "chance-unknown", "chance-unknown"]
