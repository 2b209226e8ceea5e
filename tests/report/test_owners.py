"""Owners as stacked bars."""

from __future__ import annotations

import pytest

from support.pages import make_run
from triptych.report.owners import bars


def test_bars_are_on_one_scale() -> None:
    means = {str(factor): make_run(factor).attribution.breakdowns["mean"] for factor in (4.0, 1.0)}
    made = bars(means)
    first, second = made.bars
    assert first.label == "4.0"
    assert first.percent == pytest.approx(100)
    assert second.percent == pytest.approx(100 * second.total_ms / first.total_ms)
    assert not made.stretched
