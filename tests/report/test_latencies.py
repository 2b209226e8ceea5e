"""What the clients saw, in a report."""

from __future__ import annotations

import pytest

from support.pages import make_run
from triptych.report.latencies import histogram_chart


def test_the_columns_of_the_histogram_are_all_requests() -> None:
    latencies = make_run(4.0).client.latencies
    (series,) = histogram_chart(latencies).columns
    assert sum(height for *_, height in series.columns) == latencies.count
    below = sum(height for _, right, height in series.columns if right <= latencies.percentile_ms(50))
    assert below / latencies.count == pytest.approx(0.5, abs=0.1)
