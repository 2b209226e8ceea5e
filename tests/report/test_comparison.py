"""The report of comparisons."""

from __future__ import annotations

from support.pages import Reader, fp32_and_int8, make_run
from triptych import report
from triptych.measure.comparison import compare_sides
from triptych.measure.pool import Side
from triptych.report.blocks import Page


def test_amdahl_stands_next_to_the_measurement(every_page: dict[str, Page]) -> None:
    comparison = compare_sides(*fp32_and_int8())
    text = Reader(report.html(every_page["comparison"])).text
    for figure in (
        comparison.sentence,
        comparison.prediction,
        f"{comparison.amdahl:.2f}x",
        f"{comparison.latency['p95'].value:.2f}x",
        f"{comparison.latency['mean'].low:.2f} to {comparison.latency['mean'].high:.2f}",
        "of one side",
        "p95 is longer",
    ):
        assert figure in text, figure


def test_what_may_be_chance_has_a_question_mark() -> None:
    comparison = compare_sides(Side("A", [make_run()]), Side("B", [make_run()]))
    text = Reader(report.html(report.of_comparisons([comparison], [make_run()] * 2))).text
    assert "1.00x ?" in text
