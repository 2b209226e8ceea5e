"""The report of a sweep."""

from __future__ import annotations

from support.pages import Reader
from triptych import report
from triptych.report.blocks import Page


def test_a_sweep_shows_its_knee_and_its_budget(every_page: dict[str, Page]) -> None:
    reader = Reader(report.html(every_page["sweep"]))
    marks = [attributes["class"] for _, attributes in reader.elements if attributes.get("class") in ("mark", "ring")]
    assert marks == ["mark", "ring"] * 2  # in the chart, and in its legend
    for words in ("the knee is at 2 users", "budget, p95", "most within the budget", "9 failed", "load generator busy"):
        assert words in reader.text
