"""Tables for a terminal: where the time of one load went, a sweep, and runs side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from triptych.measure.attribution import Attribution
from triptych.measure.comparison import Comparison
from triptych.measure.overhead import Overhead
from triptych.measure.power.figures import Power
from triptych.measure.ratio import Ratio
from triptych.measure.remarks import BUSY
from triptych.measure.run_file import Run
from triptych.measure.sweep import PERCENTILES, Budget, LoadLevel, Point, Series, Setting
from triptych.measure.traces import PARTS
from triptych.measure.tuning import Try
from triptych.measure.tuning_search import steps
from triptych.report import blocks
from triptych.report.comparison import per
from triptych.report.latencies import BOUNDS, with_bound
from triptych.report.power import COLUMNS, power_rows
from triptych.report.render import meter
from triptych.report.sweep import dropped_with_bound
from triptych.report.tuning import FIRST, outcome
from triptych.serving.tuned import Settings


def attribution_table(attribution: Attribution) -> Table:
    """Show the breakdowns side by side, and who owns which share of the mean."""
    breakdowns = attribution.breakdowns
    title = f"Where the time goes (ms, {attribution.requests} requests, from {attribution.basis()})"
    table = Table(title=title, title_justify="left", caption_justify="left")
    notes = []
    if attribution.source != "traces":
        notes.append("Means only, from the server's statistics: no traces can be read here.")
    if breakdowns["mean"].ensemble_overhead_ms < 0:
        notes.append("Below zero: the last stage's output goes on after the ensemble has answered.")
    table.caption = "\n".join(notes) or None
    table.add_column("owner")
    for at in breakdowns:
        table.add_column(at, justify="right")
    table.add_column("share of mean", justify="right")
    mean = breakdowns["mean"]

    def row(name: str, values: Iterable[float], style: str | None = None) -> None:
        figures = list(values)
        share = f"{figures[0] / mean.total_ms:.0%}" if mean.total_ms else "-"
        table.add_row(name, *(f"{value:.2f}" for value in figures), share, style=style)

    for name in mean.owners():
        row(name, [breakdown.owners()[name] for breakdown in breakdowns.values()])
        for part in PARTS if name in mean.stages else ():
            row(f"  {part}", [breakdown.stages[name][part] for breakdown in breakdowns.values()], "dim")
    table.add_section()
    row("client, end to end", [breakdown.total_ms for breakdown in breakdowns.values()])
    return table


def power_table(power: Power) -> Table:
    """Show what each GPU and processor took."""
    table = Table(title="Power", title_justify="left", caption_justify="left")
    table.caption = "J: by the device's own counter over exactly the measured time, whoever caused them."
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == COLUMNS[0] else "right")
    for cells in power_rows(power):
        table.add_row(*cells)
    return table


def sweep_table(series: Series) -> Table:
    """Show the points of a series."""
    table = Table(title=f"Detector: {series.label}", title_justify="left", caption_justify="left")
    table.caption = BOUNDS
    cameras = any(point.fps for point in series.points)
    dropped = ("dropped",) if cameras else ()
    batches = any(point.batch > 1 for point in series.points)
    answered = ("requests/s", "images/s") if batches else ("requests/s",)
    for name in ("load", *answered, *dropped, *(f"{at} ms" for at in PERCENTILES), "batch", "owner"):
        table.add_column(name, justify="left" if name == "owner" else "right")
    table.add_column("")
    for index, point in enumerate(series.points):
        notes = ["knee"] if index == series.knee else []
        if index == series.best_within_budget:
            notes.append("most, confirmed" if point.confirmed else "last within budget")
        if point.failures:
            notes.append(f"[red]{point.failures} failed[/red]")
        if point.busiest >= BUSY:
            notes.append("[yellow]generator busy[/yellow]")
        table.add_row(
            str(point.load).removeprefix("a rate of "),
            *(f"{per_s:.1f}" for per_s in (point.answered_per_s, point.images_per_s)[: 1 + batches]),
            *((dropped_with_bound(point),) if cameras else ()),
            *(with_bound(point.latency_ms(at), point.bounds_ms, at) for at in PERCENTILES),
            f"{point.mean_batch:.1f}",
            point.owner,
            ", ".join(notes),
        )
    return table


class SweepProgress:
    """A sweep on the terminal while it is measured: the table of the points so far, and what is being done."""

    def __init__(self, console: Console, budget: Budget | None) -> None:
        """Show a sweep on `console`, held against `budget`."""
        self._console, self._budget = console, budget
        self._live = Live(console=console, transient=True)

    def __enter__(self) -> SweepProgress:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def under_way(self, setting: Setting, load: LoadLevel | None, points: Sequence[Point]) -> None:
        """Show the points so far, and the load that is being measured; without one, the detector is being loaded."""
        spinner = Spinner("dots", f"{setting}: {load}" if load else f"the detector is loaded: {setting}")
        self._live.update(Group(*([self._table(setting, points)] if points else ()), spinner))

    def finished(self, setting: Setting, points: Sequence[Point]) -> None:
        """Leave the table of a setting on the terminal."""
        if points:
            self._live.update("")
            self._console.print(self._table(setting, points))

    def _table(self, setting: Setting, points: Sequence[Point]) -> Table:
        return sweep_table(Series.of(str(setting), points, self._budget))


def tuning_table(tries: Sequence[Try]) -> Table:
    """Show a search step by step."""
    table = Table(title=f"From {tries[0].settings}", title_justify="left")
    for name in ("step", "change", "images/s", "p95 ms", "owner", ""):
        table.add_column(name, justify="right" if name in ("step", "images/s", "p95 ms") else "left")
    styles = {"taken": "green", "refused": "red"}
    for number, step in enumerate(steps(tries)):
        one, came_of_it = step.tried, outcome(step)
        figures = ("–", "–") if one.refused else (f"{one.images_per_s:.1f}", f"{one.p95_ms:.1f}")
        note = Text(came_of_it, styles.get(came_of_it.partition(":")[0], ""))
        if one.busiest >= BUSY:
            note.append(" generator busy", "yellow")
        table.add_row(str(number), step.change or (FIRST if number == 0 else "again"), *figures, one.owner, note)
    return table


class TuningProgress:
    """A search on the terminal while it goes on: the table of its steps, and what is being measured."""

    def __init__(self, console: Console) -> None:
        """Show it on `console`."""
        self._console = console
        self._live = Live(console=console, transient=True)
        self._tries: list[Try] = []

    def __enter__(self) -> TuningProgress:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the table on the terminal."""
        self._live.stop()
        if self._tries:
            self._console.print(tuning_table(self._tries))

    def under_way(self, settings: Settings, turn: int) -> None:
        """Show the steps so far, and the settings that are being measured."""
        spinner = Spinner("dots", f"turn {turn}: {settings}" if turn else str(settings))
        self._live.update(Group(*([tuning_table(self._tries)] if self._tries else ()), spinner))

    def searched(self, one: Try) -> None:
        """Take a step."""
        self._tries.append(one)


def run_line(run: Run) -> str:
    """Say which detector served which load, in one line."""
    workload, detector = run.workload, run.environment.detector
    what = "an unknown detector"
    if detector:
        manifest = detector.manifest or {}
        known = [str(manifest.get("adapted", {}).get("source", "")), str(manifest.get("precision", ""))]
        runtime = manifest.get("target", detector.backend)
        what = " ".join(part for part in (*known, f"version {detector.version} on {runtime}") if part)
    users = f" of {workload.users}" if workload.users else ""
    rate = f", {workload.rate_per_s:g}/s" if workload.rate_per_s else ""
    return f"{what}; {workload.loop} loop{users}{rate}, {run.client.latencies.count} requests, {run.started[:16]}"


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """Show milliseconds and shares of the mean for each side, and from the second on the ratio to the first."""
    first = comparisons[0]
    table = Table(title="Who takes the mean, and end to end (ms)", title_justify="left", caption_justify="left")
    if not all(comparison.unknown for comparison in comparisons):
        table.caption = "In parentheses: 95% intervals, from the runs of each side. Dim: may be chance."
    table.add_column("owner")
    table.add_column(first.a, justify="right")
    for comparison in comparisons:
        table.add_column(comparison.b, justify="right")
        table.add_column(f"against {first.a}", no_wrap=True)

    def row(name: str, before: str, after: Sequence[str], ratios: Sequence[Ratio | None]) -> None:
        cells = (cell for pair in zip(after, map(_ratio, ratios), strict=True) for cell in pair)
        table.add_row(name, before, *cells)

    for owner in first.owners:
        others = [comparison.owner(owner.owner) for comparison in comparisons]
        row(
            owner.owner,
            f"{owner.a_ms:.2f} {owner.a_share:>4.0%}",
            [f"{other.b_ms:.2f} {other.b_share:>4.0%}" for other in others],
            [other.speedup for other in others],
        )
    table.add_section()
    no_share = " " * 5
    for at, a_ms in first.a_ms.items():
        after = [f"{comparison.b_ms[at]:.2f}{no_share}" for comparison in comparisons]
        row(f"end to end, {at}", f"{a_ms:.2f}{no_share}", after, [comparison.latency[at] for comparison in comparisons])
    units = dict.fromkeys(unit for comparison in comparisons for unit in comparison.rates)
    for unit in units:
        rates = [comparison.rates.get(unit) for comparison in comparisons]
        before = next(f"{per(rate[0])} {no_share}" for rate in rates if rate)
        row(
            unit,
            before,
            [f"{per(rate[1])} {no_share}" if rate else "" for rate in rates],
            [rate[2] if rate else None for rate in rates],
        )
    return table


def overhead_table(overhead: Overhead) -> Table:
    """Show who has the difference between a loop and a service."""
    table = Table(title="Who has the difference (ms)", title_justify="left")
    for name in ("owner", "own loop", "served", "difference"):
        table.add_column(name, justify="left" if name == "owner" else "right")
    for row in overhead.rows:
        table.add_row(row.owner, f"{row.loop_ms:.2f}", f"{row.served_ms:.2f}", f"{row.difference_ms:+.2f}")
    table.add_section()
    total = (overhead.loop_ms, overhead.served_ms)
    table.add_row("an image, end to end", *(f"{value:.2f}" for value in total), f"{overhead.difference_ms:+.2f}")
    return table


def _ratio(ratio: Ratio | None) -> Text:
    if ratio is None:
        return Text("")
    return Text(str(ratio), "dim" if not ratio.significant else "green" if ratio.value > 1 else "red")


def block_table(block: blocks.Table, title: str) -> Table:
    """Show a report's table; its words are folded, and shares have a bar."""
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(block.columns):
        is_word = number < block.words
        table.add_column(name, justify="left" if is_word else "right", overflow="fold", no_wrap=not is_word)
    for row in block.rows:
        if row.kind == "total":
            table.add_section()
        table.add_row(*(_cell(cell) for cell in row.cells))
    return table


def _cell(cell: blocks.Cell) -> Text:
    return Text(f"{meter(cell)} {cell.value:>4.0%}" if isinstance(cell, blocks.Share) else cell)
