"""What the clients saw, as a section of a report: latencies in a table, as a histogram and over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triptych.measure.bounds import BOUNDED, PERCENTS, bounds_of
from triptych.measure.histogram import Histogram
from triptych.measure.run_file import Run
from triptych.report.attribution import PERCENTILES
from triptych.report.blocks import Chart, Charts, Columns, Line, Note, Row, Section, Table

BOUNDED_NAMES = frozenset(f"p{percent}" for percent in BOUNDED)

MOST_COLUMNS = 48
"""Columns of the histogram, at most."""


BOUNDS = "≤: at most, with 99% confidence. ?: too few requests to bound it."


def with_bound(latency_ms: float, bounds_ms: Mapping[str, float], at: str) -> str:
    """Write a percentile in milliseconds, and what it is at most, such as `88.5 ≤ 90.1`, or `96.9 ?`."""
    if at not in BOUNDED_NAMES:
        return f"{latency_ms:.1f}"
    return f"{latency_ms:.1f} ≤ {bounds_ms[at]:.1f}" if at in bounds_ms else f"{latency_ms:.1f} ?"


def latency_section(run: Run) -> Section:
    """Return what the clients of a run saw; it must have answers."""
    client = run.client
    rows = [_row(name, latencies, client.dependence) for name, latencies in sorted(client.by_request.items())]
    rows.append(_row("all", client.latencies, client.dependence, "total" if rows else ""))
    return Section(
        "What the clients saw",
        [
            Table(["ms", "count", "mean", *PERCENTILES, "longest"], rows),
            Note(BOUNDS, "small"),
            Charts([histogram_chart(client.latencies), *_over_time(run)]),
        ],
    )


def _row(name: str, latencies: Histogram, dependence: float, kind: Any = "") -> Row:
    bounds_ms = bounds_of(latencies, dependence)
    percentiles = [with_bound(latencies.percentile_ms(percent), bounds_ms, f"p{percent}") for percent in PERCENTS]
    longest = f"{latencies.percentile_ms(100):.1f}"
    return Row([name, str(latencies.count), f"{latencies.mean_ms:.1f}", *percentiles, longest], kind)


def histogram_chart(latencies: Histogram) -> Chart:
    """Return how many requests took how long; each column holds some bins of the histogram."""
    data = latencies.to_json()
    gamma = (1 + data["relative_accuracy"]) / (1 - data["relative_accuracy"])
    first, last = data["bins"][0][0], data["bins"][-1][0]
    size = (last - first) // MOST_COLUMNS + 1
    heights = [0] * ((last - first) // size + 1)
    for key, count in data["bins"]:
        heights[(key - first) // size] += count
    edges = [gamma ** (first + group * size - 1) for group in range(len(heights) + 1)]
    columns = [(left, right, float(n)) for left, right, n in zip(edges, edges[1:], heights, strict=False)]
    return Chart(
        "How long requests took",
        "latency, ms",
        "requests",
        columns=[Columns("requests", columns)],
        down={f"p{percent}": latencies.percentile_ms(percent) for percent in PERCENTS},
        log_x=True,
        zero_x=False,
    )


def _over_time(run: Run) -> list[Chart]:
    if len(run.intervals) < 2:
        return []
    spans = [(interval, interval.start_s, interval.start_s + interval.seconds) for interval in run.intervals]
    answered = Columns("answered", [(first, last, interval.rate_per_s) for interval, first, last in spans])
    failed = Columns("failed", [(first, last, interval.failures / interval.seconds) for interval, first, last in spans])
    middles = [(interval, (first + last) / 2) for interval, first, last in spans if interval.requests]
    points = {at: [(middle, getattr(interval, f"{at}_ms")) for interval, middle in middles] for at in PERCENTILES}
    lines = [Line(at, line) for at, line in points.items() if any(latency_ms for _, latency_ms in line)]
    since = "s since the beginning"
    return [
        Chart("Requests over time", since, "requests/s", columns=[answered, *([failed] if run.client.failed else ())]),
        Chart("Latency over time", since, "latency, ms", lines=lines, log_y=True),
    ]
