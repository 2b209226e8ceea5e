"""The report of a sweep: how much the server bears, what that costs, and what its settings change."""

from __future__ import annotations

from collections.abc import Sequence

from triptych.measure import remarks
from triptych.measure.sweep import PERCENTILES, Budget, Percentile, Point, Series
from triptych.measure.sweep_file import Sweep
from triptych.report.blocks import Block, Chart, Charts, Line, Marks, Note, Page, Row, Section, Table
from triptych.report.latencies import BOUNDS, with_bound
from triptych.report.owners import stacked
from triptych.report.setting import again, environment_sections, started


def of_sweep(sweep: Sweep, name: str) -> Page:
    """Return the report of a sweep; `name` is what to call it."""
    budget = f", {Budget(sweep.budget_ms, sweep.budget_at, sweep.max_dropped)}" if sweep.budget_ms else ""
    return Page(
        title=name,
        subtitle=f"Sweep over {_over(sweep.series)}{budget}, {started(sweep.started)}",
        headline=sweep.sentences[0] if sweep.sentences else "Nothing was measured",
        sections=[
            Section(
                "",
                [
                    *(Note(sentence) for sentence in sweep.sentences[1:]),
                    *(Note(str(remark), "warning") for remark in remarks.of_sweep(sweep)),
                ],
            ),
            Section("Throughput and latency", [Charts(_charts(sweep))]),
            *(_series(series, many=len(sweep.series) > 1) for series in sweep.series),
            *environment_sections(sweep.environment),
            again(sweep.command, sweep.images),
        ],
    )


def dropped_with_bound(point: Point) -> str:
    """Write the share of the frames that were dropped, and what it is at most, such as `0.2% ≤ 0.7%`, or `0.2% ?`."""
    return f"{point.dropped:.1%} ≤ {point.dropped_at_most:.1%}" if point.independent else f"{point.dropped:.1%} ?"


def _over(series: Sequence[Series]) -> str:
    points = [point for one in series for point in one.points]
    if fps := points[0].fps:
        return f"cameras of {fps:g} frames/s each"
    return "users that wait for each answer" if any(point.users for point in points) else "requests a second"


def _charts(sweep: Sweep) -> list[Chart]:
    at = sweep.budget_at
    alone = len(sweep.series) == 1
    curves, by_load = [], []
    for series in sweep.series:
        points = [point for point in series.points if point.mean_ms]
        by_load.append(Line(series.label, [(point.load.size, point.answered_per_s) for point in points]))
        for percentile in PERCENTILES if alone else [at]:
            name = percentile if alone else series.label
            curves.append(Line(name, [_xy(point, percentile) for point in points]))
    marked = {
        "knee": [(series, series.knee) for series in sweep.series],
        "most within the budget": [(series, series.best_within_budget) for series in sweep.series],
    }
    marks = [
        Marks(name, [_xy(series.points[index], at) for series, index in pairs if index is not None])
        for name, pairs in marked.items()
    ]
    latency = "latency" if alone else f"latency, {at}"
    points = [point for series in sweep.series for point in series.points]
    users = "cameras" if points[0].fps else "users"
    load = users if any(point.users for point in points) else "requests/s asked for"
    return [
        Chart(
            "What more load costs",
            "requests/s answered",
            f"{latency}, ms",
            lines=curves,
            marks=[mark for mark in marks if mark.points],
            across={f"budget, {at}": sweep.budget_ms} if sweep.budget_ms else {},
            log_y=True,
        ),
        Chart("What more load brings", load, "requests/s answered", lines=by_load),
    ]


def _xy(point: Point, at: Percentile) -> tuple[float, float]:
    return point.answered_per_s, point.latency_ms(at)


def _series(series: Series, *, many: bool) -> Section:
    rates = ["requests/s", "images/s"] if any(point.batch > 1 for point in series.points) else ["requests/s"]
    rows = []
    for index, point in enumerate(series.points):
        latencies = [
            with_bound(point.latency_ms(at), point.bounds_ms, at) if point.mean_ms else "–" for at in PERCENTILES
        ]
        batch = f"{point.mean_batch:.1f}" if point.mean_batch else "–"
        per_s = [f"{rate:.1f}" for rate in (point.answered_per_s, point.images_per_s)[: len(rates)]]
        figures = [*per_s, *latencies, batch, point.owner or "–"]
        rows.append(Row([str(point.load), *figures, ", ".join(_notes(series, index)) or "–"]))
    answered = [point for point in series.points if point.mean_ms]
    blocks: list[Block] = [
        Table(["load", *rates, *(f"{at}, ms" for at in PERCENTILES), "mean batch", "owner", "note"], rows),
        Note(BOUNDS, "small"),
    ]
    if answered:
        owners_ms = {str(point.load): point.owners_ms for point in answered}
        means_ms = {str(point.load): point.mean_ms for point in answered}
        blocks += [Note("The mean at each load, by owner:", "small"), stacked(owners_ms, means_ms)]
    return Section(f"Where the time goes: {series.label}" if many else "Where the time goes", blocks)


def _notes(series: Series, index: int) -> list[str]:
    point = series.points[index]
    return [
        *(["knee"] if index == series.knee else ()),
        *(["most within the budget"] if index == series.best_within_budget else ()),
        *(["confirmed by a longer run"] if point.confirmed else ()),
        *([f"{point.failures} failed"] if point.failures else ()),
        *([f"{dropped_with_bound(point)} of the frames dropped"] if point.fps else ()),
        *(["load generator busy"] if point.busiest >= remarks.BUSY else ()),
    ]
