"""The report of a sweep: how much the server bears, what that costs, and what its settings change."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from triptych.measure.remarks import BUSY
from triptych.measure.sweep import PERCENTILES, Point, Series, Sweep
from triptych.report.blocks import Block, Chart, Charts, Code, Line, Marks, Note, Page, Row, Section, Table
from triptych.report.owners import stacked
from triptych.report.run import environment_sections


def of_sweep(sweep: Sweep, name: str) -> Page:
    """The report of a sweep; `name` is what to call it."""
    images = sweep.images
    budget = f", {sweep.budget_at} within {sweep.budget_ms:g} ms" if sweep.budget_ms else ""
    return Page(
        title=name,
        subtitle=f"Sweep over {_over(sweep.series)}{budget}, {sweep.started[:16].replace('T', ' ')} UTC",
        headline=sweep.sentences[0] if sweep.sentences else "Nothing was measured",
        sections=[
            Section("", [Note(sentence) for sentence in sweep.sentences[1:]]),
            Section("Throughput and latency", [Charts(_charts(sweep))]),
            *(_series(each, many=len(sweep.series) > 1) for each in sweep.series),
            *environment_sections(sweep.environment),
            Section(
                "Measure it again",
                [
                    Code(shlex.join(sweep.command)),
                    Note(f"{images.count} images, {images.total_bytes / 1e6:.2f} MB, SHA-256 {images.sha256}", "small"),
                ],
                folded=True,
            ),
        ],
    )


def _over(series: Sequence[Series]) -> str:
    users = any(point.users for each in series for point in each.points)
    return "users that wait for each answer" if users else "requests a second"


def _charts(sweep: Sweep) -> list[Chart]:
    at = sweep.budget_at
    alone = len(sweep.series) == 1
    curves, by_load = [], []
    for each in sweep.series:
        points = [point for point in each.points if point.mean_ms]
        by_load.append(Line(each.label, [(point.load.size, point.answered_per_s) for point in points]))
        shown = {its: its for its in PERCENTILES} if alone else {each.label: at}
        curves += [Line(name, [_place(point, its) for point in points]) for name, its in shown.items()]
    marks = [
        Marks(name, [_place(each.points[index], at) for each, index in found if index is not None])
        for name, found in (
            ("knee", [(each, each.knee) for each in sweep.series]),
            ("most within the budget", [(each, each.best_within_budget) for each in sweep.series]),
        )
    ]
    latency = "latency" if alone else f"latency, {at}"
    load = "users" if any(point.users for each in sweep.series for point in each.points) else "requests/s asked for"
    return [
        Chart(
            "What more load costs",
            "requests/s answered",
            f"{latency}, ms",
            lines=curves,
            marks=[each for each in marks if each.points],
            across={f"budget, {at}": sweep.budget_ms} if sweep.budget_ms else {},
            log_y=True,
        ),
        Chart("What more load brings", load, "requests/s answered", lines=by_load),
    ]


def _place(point: Point, at: str) -> tuple[float, float]:
    return point.answered_per_s, point.latency_ms(at)


def _series(series: Series, *, many: bool) -> Section:
    rows = []
    for index, point in enumerate(series.points):
        latencies = [f"{point.latency_ms(at):.1f}" if point.mean_ms else "–" for at in PERCENTILES]
        batch = f"{point.mean_batch:.1f}" if point.mean_batch else "–"
        figures = [f"{point.answered_per_s:.1f}", *latencies, batch, point.owner or "–"]
        rows.append(Row([str(point.load), *figures, ", ".join(_notes(series, index)) or "–"]))
    answered = [point for point in series.points if point.mean_ms]
    blocks: list[Block] = [
        Table(["load", "answered/s", *(f"{at}, ms" for at in PERCENTILES), "mean batch", "most is", "note"], rows)
    ]
    if answered:
        owners_ms = {str(point.load): point.owners_ms for point in answered}
        means_ms = {str(point.load): point.mean_ms for point in answered}
        blocks += [Note("The mean at each load, by who takes it:", "small"), stacked(owners_ms, means_ms)]
    return Section(f"Where the time goes: {series.label}" if many else "Where the time goes", blocks)


def _notes(series: Series, index: int) -> list[str]:
    point = series.points[index]
    return [
        *(["knee"] if index == series.knee else ()),
        *(["most within the budget"] if index == series.best_within_budget else ()),
        *([f"{point.failures} failed"] if point.failures else ()),
        *(["load generator busy"] if point.busiest >= BUSY else ()),
    ]
