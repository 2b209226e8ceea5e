"""What the server took of its machine, as a section of a report."""

from __future__ import annotations

from triptych.measure.footprint import Trend, footprint_sentence
from triptych.measure.run_file import Run
from triptych.report.blocks import Note, Row, Section, Table

_NOTE = (
    "In brackets: growth a minute with its 95% interval, without the first fifth of the time. Resident memory counts "
    "shared pages in every process that uses them."
)


def footprint_sections(run: Run) -> list[Section]:
    """Return memory, open files and threads of each process; nothing where the server could not be seen."""
    footprint = run.footprint
    if footprint is None:
        return []
    rows = [
        Row([process.title, *map(_cell, (process.memory_mb, process.files, process.threads))])
        for process in footprint.processes
    ]
    gpus = [
        Row([f"GPU {gpu.index}, {gpu.name}: in use by all programs", _cell(gpu.memory_mb), "–", "–"])
        for gpu in footprint.gpus
    ]
    return [
        Section(
            "What the server held",
            [
                Note(f"At the end {footprint_sentence(footprint)}."),
                Table(["first, last, largest", "MB", "open files", "threads"], [*rows, *gpus]),
                Note(_NOTE, "small"),
            ],
            folded=True,
        )
    ]


def _cell(trend: Trend) -> str:
    figures = f"{trend.first:.0f}, {trend.last:.0f}, {trend.max:.0f}"
    if trend.slope is None:
        return figures
    per_min, low, high = (f"{value:.2f}" for value in (trend.slope.per_min, trend.slope.low, trend.slope.high))
    return f"{figures} ({per_min}, {low} to {high})"
