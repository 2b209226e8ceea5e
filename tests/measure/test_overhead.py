"""The split of what a service costs beyond a loop, on parts that are made up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.measured import made_up
from triptych.contract import STAGES
from triptych.measure.attribution import OVERHEAD, Breakdown
from triptych.measure.overhead import Overhead, Row, Setting, interval_ms, mean_steps, rows_of
from triptych.measure.own_loop import Steps
from triptych.measure.traces import PARTS

ALIKE = Setting("openvino", loop_threads=1, served_threads=1, instances=2, max_queue_delay_us=0, users=1, apart=0.0)
STEPS = Steps(decode=3.0, letterbox=1.0, inference=20.0, suppression=0.5)


def breakdown(client_ms: float = 0.5, **infer_ms: float) -> Breakdown:
    """A served request whose stages each wait 1 ms, copy 0.25 and 0.25 ms, and work for so long."""
    stages = {
        stage.name: {"queue": 1.0, "input": 0.25, "infer": infer_ms.get(stage.name, 2.0), "output": 0.25}
        for stage in STAGES
    }
    in_stages = sum(sum(parts.values()) for parts in stages.values())
    return Breakdown(in_stages + 0.1 + 1.5 + client_ms, 1.5, 0.1, stages, {"client": client_ms})


def rows(setting: Setting = ALIKE, inference_ms: float = STEPS.inference, **infer_ms: float) -> dict[str, Row]:
    return {row.owner: row for row in rows_of(setting, 25.0, STEPS, inference_ms, breakdown(**infer_ms), (640, 640))}


def test_each_owner_has_its_part() -> None:
    shown = {
        owner: round(row.difference_ms, 6) for owner, row in rows(preprocess=5, detector=21, postprocess=0.75).items()
    }
    assert shown == {
        "decoding": 1.0,
        "inference": 1.0,
        "suppression": 0.25,
        "copies": 1.5,
        "queue": 3.0,
        OVERHEAD: 0.1,
        "transport": 1.5,
        "client": 0.5,
        "rest": -0.5,
    }


milliseconds = st.floats(0, 1000)


@given(st.lists(milliseconds, min_size=20, max_size=20), st.sampled_from([1, 2]))
def test_the_rows_add_up_to_the_difference(values: list[float], loop_threads: int) -> None:
    numbers = iter(values)
    stages = {stage.name: {part: next(numbers) for part in PARTS} for stage in STAGES}
    network, overhead, client, between, inference = (next(numbers) for _ in range(5))
    total = sum(sum(parts.values()) for parts in stages.values()) + network + overhead + client
    served = Breakdown(total, network, overhead, stages, {"client": client})
    loop_ms = sum(STEPS) + between
    shown = rows_of(replace(ALIKE, loop_threads=loop_threads), loop_ms, STEPS, inference, served, (640, 640))
    assert sum(row.difference_ms for row in shown) == pytest.approx(total - loop_ms, abs=1e-6)
    assert sum(row.loop_ms for row in shown) == pytest.approx(loop_ms)
    assert sum(row.served_ms for row in shown) == pytest.approx(total, abs=1e-6)


def test_other_threads_are_an_owner_of_their_own() -> None:
    shown = rows(replace(ALIKE, loop_threads=4), inference_ms=60.0, detector=61)
    assert shown["threads"].difference_ms == 40
    assert shown["inference"].difference_ms == 1
    assert "--instances 1 --threads 4" in shown["threads"].advice


def test_the_advice_depends_on_how_it_was_served() -> None:
    def advice(owner: str, **changed: object) -> str:
        return rows(replace(ALIKE, **changed), preprocess=9, detector=30)[owner].advice  # type: ignore[arg-type]

    assert "send JPEG" not in advice("decoding")
    assert "25% of the images are no plain JPEGs" in advice("decoding", apart=0.25)
    assert "--max-queue-delay-us 0" in advice("queue", max_queue_delay_us=500)
    assert "8 users share 2 instances" in advice("queue", users=8)
    assert "nothing waits" in advice("queue")
    assert "2 instances work at once" in advice("inference", users=8)


def test_what_costs_nothing_needs_no_advice() -> None:
    shown = rows(preprocess=4, detector=19, postprocess=0.5)
    assert {owner for owner, row in shown.items() if row.advice} == {"copies", "queue", OVERHEAD, "transport", "client"}


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(2000):
        low_ms, high_ms = interval_ms(rng.normal(5, 3, 6).tolist())
        held += low_ms <= 5 <= high_ms
    assert held / 2000 == pytest.approx(0.95, abs=0.015)


def test_the_mean_of_each_step() -> None:
    assert mean_steps([Steps(1, 2, 3, 4), Steps(3, 2, 1, 0)]) == Steps(2, 2, 2, 2)


def overhead(loop_ms: float, served_ms: float, low_ms: float, high_ms: float) -> Overhead:
    run = made_up()
    rows = [Row("queue", 0, 2, "less"), Row("inference", loop_ms, served_ms - 2, "more")]
    return Overhead(
        "2026-11-26",
        run.environment,
        run.workload.images,
        ALIKE,
        100,
        100,
        "traces",
        loop_ms,
        served_ms,
        low_ms,
        high_ms,
        rows,
        [],
    )


@pytest.mark.parametrize(
    ("figures", "sentence"),
    [
        (
            (6, 60, 50, 58),
            "served, an image takes 60.0 ms, and 6.0 ms in a loop of its own: 54.0 ms more (50.0 to 58.0); most "
            "of it is inference, 52.0 ms",
        ),
        (
            (60, 50, -12, -8),
            "served, an image takes 50.0 ms, and 60.0 ms in a loop of its own: 10.0 ms less (8.0 to 12.0)",
        ),
        (
            (50, 50.2, -1, 1.4),
            "served, an image takes 50.2 ms, and 50.0 ms in a loop of its own: 0.2 ms more (may be chance)",
        ),
    ],
)
def test_the_sentence(figures: tuple[float, float, float, float], sentence: str) -> None:
    assert overhead(*figures).sentence == sentence


def test_the_advice_begins_with_what_costs_most() -> None:
    assert [row.owner for row in overhead(6, 60, 50, 58).advice] == ["inference", "queue"]
