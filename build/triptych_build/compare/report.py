"""A comparison of runtimes as two tables, on a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from triptych_build.compare.measure import SCENARIOS
from triptych_build.verify.metrics import Accuracy

NOT_MEASURED = "-"


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
        accuracy: on the validation set; None if not measured, like the rest.
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
    """Return what the figures mean, in sentences."""
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
    """Return a row of the first table."""
    if row.accuracy is None or row.load_s is None:
        return [row.label, row.device, *[NOT_MEASURED] * 4, f"{row.megabytes:.1f}", NOT_MEASURED]
    figures = (row.accuracy.precision, row.accuracy.recall, row.accuracy.map50, row.accuracy.map50_95)
    return [row.label, row.device, *(f"{value:.3f}" for value in figures), f"{row.megabytes:.1f}", f"{row.load_s:.2f}"]


def short(value: float) -> str:
    """Return a number with three significant digits."""
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def latency_columns(frames: int) -> list[str]:
    """Return the head of the second table; a scenario has three columns."""
    return [
        "",
        *(f"{scenario}, {what}" for scenario in SCENARIOS for what in ("p50 ms", "p95 ms", f"{frames} frames s")),
    ]


def latency_cells(row: Row) -> list[str]:
    """Return a row of the second table."""
    cells = [row.label]
    for scenario in map(str, SCENARIOS):
        if scenario in row.latency:
            one = row.latency[scenario]
            cells += [short(one.p50_ms), short(one.p95_ms), short(one.seconds)]
        else:
            cells += [NOT_MEASURED] * 3
    return cells


def print_comparison(comparison: Comparison, console: Console) -> None:
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
    """Return both tables, why rows are missing, and what was measured, with the command and the versions."""
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
        "![latency, and speed against accuracy](runtimes.svg)",
    ]
    return "\n\n".join(parts) + "\n"


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    marks = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, marks, *rows))
