"""Charts as geometry."""

from __future__ import annotations

import pytest

from triptych.report.blocks import Chart, Charts, Columns, Line, Page
from triptych.report.plot import HEIGHT, WIDTH, Axis, plot


def test_every_point_lies_within_its_chart(every_page: dict[str, Page]) -> None:
    for page in every_page.values():
        for section in page.sections:
            for charts in (block for block in section.blocks if isinstance(block, Charts)):
                for drawn in map(plot, charts.charts):
                    for x, y in (point for dots in (*drawn.dots, *drawn.marks) for point in dots):
                        assert drawn.left <= x <= drawn.right <= WIDTH
                        assert drawn.top <= y <= drawn.bottom <= HEIGHT
                    for x, y, width, height in (column for columns in drawn.columns for column in columns):
                        assert drawn.left <= x <= x + width <= drawn.right + 1
                        assert y + height == pytest.approx(drawn.bottom, abs=0.02)


@pytest.mark.parametrize(
    ("values", "log", "zero", "ticks", "is_log"),
    [
        ([], False, True, [0, 0.2, 0.4, 0.6, 0.8, 1], False),
        ([0.0], False, True, [0, 0.2, 0.4, 0.6, 0.8, 1], False),
        ([7.0], False, True, [0, 2, 4, 6, 8], False),
        ([40.0, 62.0], True, False, [40, 45, 50, 55, 60, 65], False),
        ([7.0, 7.0], False, False, None, False),
        ([3.0, 70.0], True, True, [2, 5, 10, 20, 50, 100], True),
        ([0.0, 70.0], True, True, [0, 20, 40, 60, 80], False),
        ([5.0, 50.0], True, True, [5, 10, 20, 50], True),
    ],
)
def test_axes_hold_their_values_between_round_numbers(
    values: list[float], log: bool, zero: bool, ticks: list[float] | None, is_log: bool
) -> None:
    axis = Axis.over(values, log=log, zero=zero)
    assert axis.log == is_log
    assert ticks is None or axis.ticks == pytest.approx(ticks)
    assert all(axis.low <= value <= axis.high for value in values)
    assert [axis.at(axis.low), axis.at(axis.high)] == [0, 1]


def test_a_value_lies_where_its_axis_says() -> None:
    chart = Chart("", "x", "y", lines=[Line("", [(0, 0), (5, 50), (10, 100)])], columns=[Columns("", [(0, 10, 100)])])
    drawn = plot(chart)
    middle = ((drawn.left + drawn.right) / 2, (drawn.top + drawn.bottom) / 2)
    assert drawn.dots[0] == [(drawn.left, drawn.bottom), pytest.approx(middle), (drawn.right, drawn.top)]
    assert drawn.columns[0] == [(drawn.left, drawn.top, drawn.right - drawn.left - 1, drawn.bottom - drawn.top)]
