"""A comparison of runtimes as two tables, on a terminal and in Markdown, and as a picture of speed and accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from triptych_build.compare.measure import SCENARIOS
from triptych_build.verify.metrics import Accuracy

NOT_MEASURED = "-"
SHADES = ("#1f5f8b", "#6fa8c9", "#e0963c")
"""A colour for each scenario: dark and light blue for one stream, orange for two; apart in grey as well."""


@dataclass(frozen=True)
class Latency:
    """One scenario over all rounds.

    Attributes:
        p50_ms, p95_ms: of a call (a batch is one call), in milliseconds.
        seconds: wall-clock time for all frames.
    """

    p50_ms: float
    p95_ms: float
    seconds: float


@dataclass(frozen=True)
class Row:
    """What was measured of one model in one runtime.

    Attributes:
        label: what the tables call it.
        runtime, precision: see `triptych.runtimes.open_runtime`.
        device: "CPU" or "GPU".
        model: name of the file that the runtime reads.
        megabytes: its size, in 10^6 bytes.
        reason: why it was not measured, in a sentence; empty if it was.
        accuracy: on the validation set; None if not measured, as what follows.
        load_s: median over the rounds: import, load and first answer in a fresh process, in seconds.
        latency: by scenario.
    """

    label: str
    runtime: str
    precision: str
    device: str
    model: str
    megabytes: float
    reason: str = ""
    accuracy: Accuracy | None = None
    load_s: float | None = None
    latency: dict[str, Latency] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """All rows, and how and where they were measured.

    Attributes:
        images: images of the validation set.
        frames: frames that were timed in each scenario, over all rounds.
        rounds: turns of every row.
        threads: CPU threads of every row.
        environment: date, command, machine and versions.
        rows: in the order of the tables.
    """

    images: int
    frames: int
    rounds: int
    threads: int
    environment: dict[str, Any]
    rows: tuple[Row, ...]

    @property
    def measured(self) -> list[Row]:
        """The rows that have figures."""
        return [row for row in self.rows if not row.reason]


def description(comparison: Comparison) -> str:
    """What the figures mean."""
    where, share = comparison.environment, max(1, comparison.threads // 2)
    gpu = f", {where['gpu']}" if where["gpu"] else ""
    return (
        f"Accuracy: {comparison.images} images through Triptych's own preprocess and postprocess; precision and recall "
        "at IoU 0.5 and the best F1. Latency: the detector alone, pixels in and candidates out; a batch of two is one "
        f"call. Each scenario runs {comparison.frames} frames in {comparison.rounds} rounds, in which the rows take "
        f"turns, each in a fresh process; {_threads(comparison.threads)} for one stream, {_threads(share)} for each of "
        f"two. Load: import, load and first answer, the median of {comparison.rounds} processes. MB: the file that the "
        f"runtime reads. {where['cpu']}, {where['cores']} cores{gpu}, {where['date'][:10]}."
    )


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


ACCURACY_COLUMNS = ("", "runs on", "precision", "recall", "mAP50", "mAP50-95", "MB", "load s")


def accuracy_cells(row: Row) -> list[str]:
    """A row of the first table."""
    if row.accuracy is None or row.load_s is None:
        return [row.label, row.device, *[NOT_MEASURED] * 4, f"{row.megabytes:.1f}", NOT_MEASURED]
    found = (row.accuracy.precision, row.accuracy.recall, row.accuracy.map50, row.accuracy.map50_95)
    return [row.label, row.device, *(f"{value:.3f}" for value in found), f"{row.megabytes:.1f}", f"{row.load_s:.2f}"]


def short(value: float) -> str:
    """A number with three digits that count."""
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def latency_columns(frames: int) -> list[str]:
    """The head of the second table; a scenario has three columns."""
    return [
        "",
        *(f"{scenario}, {what}" for scenario in SCENARIOS for what in ("p50 ms", "p95 ms", f"{frames} frames s")),
    ]


def latency_cells(row: Row) -> list[str]:
    """A row of the second table."""
    cells = [row.label]
    for scenario in map(str, SCENARIOS):
        if scenario in row.latency:
            one = row.latency[scenario]
            cells += [short(one.p50_ms), short(one.p95_ms), short(one.seconds)]
        else:
            cells += [NOT_MEASURED] * 3
    return cells


def show(comparison: Comparison, console: Console) -> None:
    """Print both tables, why rows are missing, and what was measured; 80 columns hold them."""
    heads = [head for scenario in SCENARIOS for head in (f"{scenario.streams} x {scenario.batch}\np50", "\np95", "\ns")]
    latency_title = f"Latency of a call in ms, seconds for {comparison.frames} frames; streams x batch"
    tables = (
        ("Accuracy, size and load time", ACCURACY_COLUMNS, accuracy_cells),
        (latency_title, ("", *heads), latency_cells),
    )
    for title, columns, cells in tables:
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number else "left", no_wrap=True)
        for row in comparison.rows:
            table.add_row(*cells(row))
        console.print(table)
    for row in comparison.rows:
        if row.reason:
            console.print(f"{row.label}: {row.reason}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    console.print(description(comparison), style="dim", highlight=False, markup=False)


def markdown(comparison: Comparison) -> str:
    """Both tables, why rows are missing, and what was measured, with the command and the versions."""
    where = comparison.environment
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    reasons = [f"- {row.label} was not measured: {row.reason}" for row in comparison.rows if row.reason]
    parts = [
        "# Runtimes compared",
        _markdown_table(ACCURACY_COLUMNS, [accuracy_cells(row) for row in comparison.rows]),
        _markdown_table(latency_columns(comparison.frames), [latency_cells(row) for row in comparison.rows]),
        *(["\n".join(reasons)] if reasons else []),
        description(comparison),
        f"Python {where['python']}, {versions}; load average {where['load_average_before']} before.",
        f"```\n{where['command']}\n```",
        "![latency, and speed against accuracy](compare.svg)",
    ]
    return "\n\n".join(parts) + "\n"


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    marks = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, marks, *rows))


def draw(comparison: Comparison) -> Figure:
    """The measured rows as a picture: latencies as bars, and speed against accuracy."""
    rows = comparison.measured
    figure = Figure(figsize=(13, 1.8 + 0.62 * max(len(rows), 5)), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    bars, scatter = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _draw_bars(bars, rows)
    _draw_scatter(scatter, rows)
    canvas.draw()
    figure.set_layout_engine("none")  # names are placed for the axes as they are now
    _place_labels(scatter, rows, canvas)
    return figure


def _draw_bars(axes: Axes, rows: Sequence[Row]) -> None:
    """A group of bars for each row, one bar for each scenario, with a line on to its p95."""
    height = 0.8 / len(SCENARIOS)
    for number, (scenario, shade) in enumerate(zip(map(str, SCENARIOS), SHADES, strict=True)):
        for place, row in enumerate(rows, 1):
            at, one = place + (number - (len(SCENARIOS) - 1) / 2) * height, row.latency[scenario]
            axes.barh(at, one.p50_ms, height * 0.92, color=shade, label=scenario if place == 1 else None)
            axes.plot([one.p50_ms, one.p95_ms], [at, at], color="#444444", linewidth=1.2)
            axes.annotate(
                f"{short(one.p50_ms)} / {short(one.p95_ms)}",
                (one.p95_ms, at),
                (5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
    axes.set_yticks(range(1, len(rows) + 1), [row.label for row in rows])
    axes.set_ylim(len(rows) + 0.6, 0.4)
    axes.set_xlim(0, 1.18 * max(one.p95_ms for row in rows for one in row.latency.values()))
    axes.set_xlabel("ms a call: bar to p50, line to p95; less is better")
    axes.set_title("Latency", loc="left", pad=26)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(SCENARIOS), frameon=False, borderaxespad=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_scatter(axes: Axes, rows: Sequence[Row]) -> None:
    """One point a row; a span of two points of mAP at least, so that noise does not look like a difference."""
    x, y = _points(rows)
    axes.scatter(x, y, s=46, color=SHADES[0], zorder=3)
    middle, half = (max(y) + min(y)) / 2, max(0.01, 0.75 * (max(y) - min(y)))
    axes.set_ylim(middle - half, middle + half)
    axes.set_xlim(0, 1.15 * max(x))
    axes.set_xlabel(f"p50 of {SCENARIOS[0]}, ms; left is faster")
    axes.set_ylabel("mAP50-95; up is better")
    axes.set_title("Speed against accuracy", loc="left", pad=26)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _points(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    latencies = [row.latency[str(SCENARIOS[0])].p50_ms for row in rows]
    return latencies, [row.accuracy.map50_95 if row.accuracy else 0.0 for row in rows]


def _far(place: tuple[int, int]) -> float:
    return abs(place[0]) + 1.5 * abs(place[1])


PLACES = sorted(product(range(-120, 121, 30), (*range(13, 134, 15), *range(-13, -134, -15))), key=_far)
"""Offsets of a name from its point, in 1/72 inch, nearest first."""


def _place_labels(axes: Axes, rows: Sequence[Row], canvas: FigureCanvasAgg) -> None:
    """Name every point at the nearest place where its name covers no other name, no point and no edge."""
    renderer, inside = canvas.get_renderer(), axes.get_window_extent()
    points = list(zip(*_points(rows), strict=True))
    taken = [Bbox.from_extents(x - 6, y - 6, x + 6, y + 6) for x, y in axes.transData.transform(points)]
    for row, point in zip(rows, points, strict=True):
        for place in PLACES:
            label = _label(axes, row.label, point, place)
            label.update_positions(renderer)
            box = Text.get_window_extent(label, renderer).padded(2)  # an annotation's own extent holds its line as well
            within = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
            if within and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            label.remove()
        else:  # more points than places: better two names over each other than none
            _label(axes, row.label, point, PLACES[0])


def _label(axes: Axes, text: str, point: tuple[float, float], place: tuple[int, int]) -> Annotation:
    line = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4}
    return axes.annotate(
        text, point, place, textcoords="offset points", ha="center", va="center", fontsize=8.5, arrowprops=line
    )
