"""Sources, and the stages of a frame, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from triptych.video.tracking import Outcome


def source_table(outcomes: Sequence[Outcome]) -> Table:
    """Show how many frames of each source were answered, could not be read, or were dropped."""
    table = Table(title="The sources", title_justify="left")
    table.add_column("source", overflow="fold")
    for heading in ("frames/s", "answered", "failed", "dropped", "tracks"):
        table.add_column(heading, justify="right")
    table.add_column("end")
    for outcome in outcomes:
        rate = f"{outcome.totals.frames_per_s:.1f}"
        counts = (outcome.answered, outcome.failed, outcome.dropped, len(outcome.track_ids))
        end = "lost" if outcome.lost else "stopped" if outcome.stopped else "done"
        table.add_row(Text(outcome.source), rate, *map(str, counts), end)
    return table


def stage_table(means_ms: Mapping[str, float], shares: Mapping[str, float]) -> Table:
    """Show each stage's part of a frame's latency, and how busy it is."""
    total_ms = sum(means_ms.values())
    table = Table(title="The stages of a frame", title_justify="left")
    table.add_column("stage")
    for heading in ("mean ms", "of the latency", "busy"):
        table.add_column(heading, justify="right")
    for name, milliseconds in means_ms.items():
        busy = f"{shares[name]:.0%}" if name in shares else ""
        table.add_row(name, f"{milliseconds:.2f}", f"{milliseconds / total_ms:.0%}" if total_ms else "-", busy)
    table.add_section()
    table.add_row("a frame, read to written", f"{total_ms:.2f}", "100%", "")
    return table
