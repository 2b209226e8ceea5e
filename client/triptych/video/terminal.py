"""The stages of a frame, as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table


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
