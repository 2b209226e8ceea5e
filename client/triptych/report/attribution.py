"""Where the time goes, as a section of a report: who owns it, and which part of a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from triptych.measure.attribution import LATENESS, Attribution, owner_sentence
from triptych.measure.bounds import PERCENTS
from triptych.measure.run_file import Run
from triptych.report.blocks import Note, Row, Section, Share, Table
from triptych.report.owners import bars

FAR_APART = 3.0
"""Bars of which the longest is so many times the shortest are shown as 100% each at first."""

BELOW_ZERO = "Below zero: the last stage's output goes on after the ensemble has answered. It has no width in the bars."

SOURCES = {
    "traces": "From the server's own traces, joined to the clients' requests by their ids: every request has its own "
    "split. A percentile's parts are means of the requests just below and just above it, mixed so that they add up to "
    "it.",
    "statistics": "Means only, from the server's statistics over exactly the measured time: no traces could be read. "
    "Run the load test on the server's own machine to have percentiles explained.",
}

PERCENTILES = [f"p{percent}" for percent in PERCENTS]


def time_sections(run: Run) -> list[Section]:
    """Return where the time of a run goes; it must have answers."""
    attribution = run.attribution
    sentences = [owner_sentence(breakdown, at) for at, breakdown in attribution.breakdowns.items() if at != "mean"]
    waits = run.workload.loop in ("constant", "poisson", "camera")
    due = [Note(f"Latency counts from when a request was due: the wait until it was sent is its {LATENESS}.", "small")]
    return [
        Section(
            "Where the time goes",
            [
                Note(f"{SOURCES[attribution.source]} ({_how_many(attribution)})", "small"),
                replace(bars(attribution.breakdowns), stretched=_far_apart(attribution)),
                *(Note(sentence, "small") for sentence in sentences),
                *(due if waits else ()),
                attribution_table(attribution),
                *([Note(BELOW_ZERO, "small")] if attribution.breakdowns["mean"].ensemble_overhead_ms < 0 else ()),
            ],
        ),
        *([_percentiles(attribution)] if attribution.percentiles_ms else ()),
    ]


def _how_many(attribution: Attribution) -> str:
    one_in = f", 1 in {attribution.trace_rate}" if attribution.trace_rate > 1 else ""
    return f"{attribution.requests} requests{one_in}"


def _far_apart(attribution: Attribution) -> bool:
    """Say whether the parts of the shortest latency would be too small to see on one scale."""
    totals = [breakdown.total_ms for breakdown in attribution.breakdowns.values()]
    return max(totals) > FAR_APART * min(totals)


def attribution_table(attribution: Attribution) -> Table:
    """Return owners and their parts, in milliseconds, at each latency that is explained."""
    breakdowns = attribution.breakdowns
    mean = breakdowns["mean"]

    def row(name: str, values: Sequence[float], kind: Any = "") -> Row:
        share = Share(values[0] / mean.total_ms if mean.total_ms else 0.0)
        return Row([name, *(f"{value:.2f}" for value in values), share], kind)

    rows = []
    for owner in mean.owners():
        rows.append(row(owner, [breakdown.owners()[owner] for breakdown in breakdowns.values()]))
        rows += [
            row(part, [breakdown.stages[owner][part] for breakdown in breakdowns.values()], "part")
            for part in mean.stages.get(owner, ())
        ]
    rows.append(row("client, end to end", [breakdown.total_ms for breakdown in breakdowns.values()], "total"))
    return Table(["ms", *breakdowns, "of mean"], rows)


def _percentiles(attribution: Attribution) -> Section:
    stages = attribution.breakdowns["mean"].stages
    rows = []
    for name, values in attribution.percentiles_ms.items():
        if name.rpartition(" ")[0] in stages:
            continue  # a part, which stands below its stage
        parts = {part: attribution.percentiles_ms.get(f"{name} {part}") for part in stages.get(name, ())}
        rows.append(_percentile_row(name, values))
        rows += [_percentile_row(part, of_part, "part") for part, of_part in parts.items() if of_part]
    note = "Each row is ranked separately: the slowest requests of one stage need not be the slowest of another. "
    note += "So these do not add up."
    known = list(next(iter(attribution.percentiles_ms.values())))
    return Section("Percentiles of each owner", [Note(note, "small"), Table(["ms", *known], rows)], 3)


def _percentile_row(name: str, values: Mapping[str, float], kind: Any = "") -> Row:
    return Row([name, *(f"{value:.2f}" for value in values.values())], kind)
