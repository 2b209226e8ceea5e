"""The page and the table of a service against a loop."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from support.measured import made_up
from triptych import report
from triptych.measure.overhead import Overhead, Row, Setting
from triptych.report.overhead import agreement_sentence, of_overhead, setting_sentence
from triptych.report.terminal import overhead_table


@pytest.fixture
def overhead() -> Overhead:
    run = made_up()
    return Overhead(
        started="2026-11-26T09:00:00+00:00",
        environment=run.environment,
        images=run.workload.images,
        setting=Setting("openvino", 2, 1, 2, 0, 1, 0.0),
        frames=80,
        agreed=80,
        source="traces",
        loop_ms=25.0,
        served_ms=44.5,
        low_ms=19.0,
        high_ms=20.0,
        rows=[Row("inference", 25, 40, "more cores"), Row("queue", 0, 4.5, "fewer users")],
        command=["triptych", "overhead", "--images", "boards"],
    )


def test_the_page(overhead: Overhead) -> None:
    text = report.markdown(of_overhead(overhead))
    for part in (
        "44.5 ms, and 25.0 ms in a loop of its own: 19.5 ms more (19.0 to 20.0); most of it is inference, 15.0 ms",
        "| inference | 25.00 | 40.00 | +15.00 |",
        "| **an image, end to end** | 25.00 | 44.50 | +19.50 |",
        "| inference | more cores | +15.00 |",
        "triptych overhead --images boards",
    ):
        assert part in text
    assert "19.5 ms more" in report.html(of_overhead(overhead))


def test_the_table(overhead: Overhead) -> None:
    console = Console(width=80, record=True, file=None, quiet=False)
    with console.capture() as shown:
        console.print(overhead_table(overhead))
    assert "│ an image, end to end │    25.00 │  44.50 │     +19.50 │" in shown.get()


def test_the_setting(overhead: Overhead) -> None:
    assert setting_sentence(overhead.setting) == (
        "loop: openvino in one process, threads: 2; service: instances of the detector: 2, threads of each: 1, one "
        "request after the other"
    )
    on_gpu = Setting("tensorrt", None, None, 1, 0, 4, 0.0)
    assert setting_sentence(on_gpu) == (
        "loop: tensorrt in one process; service: instances of the detector: 1, 4 requests at once"
    )


def test_sides_that_do_not_agree_are_a_warning(overhead: Overhead) -> None:
    differ = replace(overhead, agreed=78)
    assert agreement_sentence(differ).startswith("both found the same objects in 78 of 80 images")
    assert "78 of 80" in report.html(of_overhead(differ))
