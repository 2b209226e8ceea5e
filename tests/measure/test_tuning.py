"""A try, the document of a search, and what serving reads of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from support.measured import made_up
from support.stages import CPU, GPU, h200
from triptych.errors import ContractError
from triptych.measure import tuning
from triptych.measure.run_file import Failure
from triptych.measure.tuning import StageLoad, Try, Tuning, change, mean_images_per_s, ratio_of_turns
from triptych.serving.tuned import FILE, Place, Tuned, read_tuned
from triptych.wire.statistics import NS_PER_MS, Counters

OTHER = replace(CPU, postprocess=2)
RATES = [10.0, 12.0, 12.1, 10.1, 9.9, 12.2, 11.9, 10.0]
"""Images a second of eight turns, as `take_turns` has them."""


@pytest.fixture
def document() -> Tuning:
    run = made_up()
    turns = [Try(settings, rate) for settings, rate in zip([CPU, OTHER, OTHER, CPU] * 2, RATES, strict=True)]
    return Tuning(
        started="2026-11-26T09:00:00+00:00",
        environment=run.environment,
        images=run.workload.images,
        users=8,
        batch=1,
        duration_s=5,
        tries=[Try.of(CPU, run), Try.of(OTHER, run), Try(replace(CPU, detector=3), refused="out of memory")],
        turns=turns,
        exhausted=True,
        best=OTHER,
        tuned=Tuned(OTHER, Place("a CPU", 2, [], "version 1"), "2026-11-26T09:00:00+00:00"),
        command=["triptych", "tune"],
    )


def counters(requests: int, executions: int, queue_ms: float, infer_ms: float) -> Counters:
    return Counters(
        requests=requests,
        executions=executions,
        queue_ns=round(requests * queue_ms * NS_PER_MS),
        infer_ns=round(requests * infer_ms * NS_PER_MS),
    )


@pytest.mark.parametrize(
    ("requests", "executions", "instances", "busy"),
    [(100, 100, 1, 0.5), (100, 100, 2, 0.25), (100, 25, 1, 0.125), (300, 300, 1, 1.0)],
)
def test_how_busy_a_stage_is(requests: int, executions: int, instances: int, busy: float) -> None:
    """Each execution of 5 ms counts once, however many requests it has; above 100% is a rounding."""
    load = StageLoad.of(counters(requests, executions, 3, 5), instances, 1.0)
    assert load.queue_ms == pytest.approx(3)
    assert load.busy == pytest.approx(busy)


def test_a_try() -> None:
    run = made_up(requests=200, queue_ms=50)
    one = Try.of(CPU, replace(run, workload=replace(run.workload, batch=4)))
    assert one.images_per_s == pytest.approx(4 * 200 / run.client.seconds)
    assert one.p95_ms == run.client.latencies.percentile_ms(95)
    assert one.owner.startswith("detector ")
    assert one.wall in one.stages
    assert one.refused == ""


def test_the_wall_is_the_stage_that_requests_wait_for() -> None:
    run = made_up()
    server = {"preprocess": counters(10, 10, 1, 9), "detector": counters(10, 10, 2, 1), "postprocess": Counters()}
    assert Try.of(CPU, replace(run, server=server)).wall == "detector"
    assert Try(CPU, refused="out of memory").wall == ""


def test_settings_with_which_requests_fail_are_refused() -> None:
    run = made_up(requests=20)
    failed = replace(run, client=replace(run.client, failures={"ServerOverloaded": Failure(3, "the queue is full")}))
    one = Try.of(CPU, failed)
    assert one.refused == "3 of 23 requests failed: the queue is full"
    assert one.images_per_s == 0


def test_changes() -> None:
    assert change(CPU, CPU) == ""
    assert change(CPU, replace(CPU, detector=1, threads=2)) == "detector 2 → 1, threads 1 → 2"
    assert change(GPU, replace(GPU, delay_us=500)) == "delay, µs 0 → 500"


def test_the_ratio_is_that_of_the_turns(document: Tuning) -> None:
    ratio = document.ratio
    assert ratio is not None
    assert ratio.value == pytest.approx(1.205, abs=0.001)
    assert 1.18 < ratio.low < ratio.high < 1.23
    assert document.sentence == (
        f"{OTHER}: 12.0 images/s against 10.0 in turns, {ratio} of preprocess 1, detector 2 of 1 thread, "
        "postprocess 1, no batching"
    )
    assert mean_images_per_s(document.turns, CPU) == pytest.approx(10.0, abs=0.01)


def test_turns_without_an_answer_have_no_ratio() -> None:
    assert ratio_of_turns([Try(CPU, 10), Try(OTHER, refused="it died")], CPU, OTHER) is None
    assert ratio_of_turns([], CPU, OTHER) is None


def test_nothing_better_says_how_much_was_tried(document: Tuning) -> None:
    nothing = replace(document, best=CPU, turns=[], tuned=None)
    assert nothing.sentence == f"nothing better was found than {CPU}, as served; 2 others were tried"
    late = replace(nothing, tries=nothing.tries[:1], exhausted=False)
    assert late.sentence.endswith("0 others were tried, and there are more to try: give it more --minutes")


def test_what_is_written_comes_back_and_is_what_serving_reads(
    document: Tuning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning.write(tmp_path / FILE, document)
    assert tuning.read(tmp_path / FILE) == document
    assert document.tuned is not None
    here = document.tuned.place
    monkeypatch.setattr(Place, "here", lambda _repository: here)
    assert read_tuned(tmp_path) == (document.tuned, "")


def test_another_document_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"version": 1, "series": []}')
    with pytest.raises(ContractError, match="must be a tuning, but has no `tries`"):
        tuning.read(tmp_path / FILE)


def test_virtual_stages_have_the_wall_that_is_planted() -> None:
    assert h200().measure(replace(GPU, postprocess=1)).wall == "postprocess"
