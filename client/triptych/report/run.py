"""The report of one run: who owns the time, and all that one needs to believe it and to measure it again."""

from __future__ import annotations

from triptych.contract import DETECTOR
from triptych.measure import remarks
from triptych.measure.attribution import Headroom, owner_sentence
from triptych.measure.bounds import BOUNDED, PERCENTS
from triptych.measure.remarks import BUDGET_AT
from triptych.measure.run_file import ClientSide, Run
from triptych.measure.window import batch_sentence
from triptych.report.attribution import time_sections
from triptych.report.blocks import Figure, Figures, Note, Page, Row, Section, Share, Table
from triptych.report.footprint import footprint_sections
from triptych.report.latencies import latency_section
from triptych.report.power import power_sections
from triptych.report.setting import setting, started, workload_sentence
from triptych.report.videos import video_sections

LONGEST_MESSAGE = 400
"""Characters of an error's message, which may bring a server's whole log along."""


def of_run(run: Run, name: str, budget_ms: float | None = None) -> Page:
    """Return the report of a run.

    Args:
        run: what was measured.
        name: what to call it.
        budget_ms: what an answer may take, held against the p95.
    """
    answered = run.client.latencies.count
    return Page(
        title=name,
        subtitle=f"{workload_sentence(run.workload)}, {started(run.started)}",
        headline=_headline(run),
        sections=[
            Section("", [_figures(run), *_verdicts(run, budget_ms)]),
            *_tried_rates(run),
            *([*time_sections(run), latency_section(run)] if answered else ()),
            *video_sections(run),
            *_batches(run),
            *power_sections(run),
            *footprint_sections(run),
            *_failures(run),
            *setting(run),
        ],
    )


def _headline(run: Run) -> str:
    if run.scenario:
        return run.scenario.sentence
    answered = run.client.latencies.count
    return owner_sentence(run.attribution.breakdowns["mean"], "mean") if answered else "No request succeeded"


def _tried_rates(run: Run) -> list[Section]:
    if not (run.scenario and run.scenario.tried):
        return []
    rows = [
        Row([f"{rate.rate_per_s:.3g}", f"{rate.seconds:.0f}", Share(rate.over), "yes" if rate.held else "no"])
        for rate in run.scenario.tried
    ]
    columns = ["queries/s", "tried for, s", f"over {run.scenario.budget_ms:g} ms", "kept the bound"]
    return [Section("Rates that were tried", [Table(columns, rows, words=0)])]


def _figures(run: Run) -> Figures:
    client, latencies = run.client, run.client.latencies
    images = [Figure(f"{client.rate_per_s * run.workload.batch:.1f}", "", "images/s")]
    return Figures(
        [
            Figure(f"{client.rate_per_s:.1f}", "", "requests/s"),
            *(images if run.workload.batch > 1 else ()),
            *(_percentile(client, p) for p in PERCENTS if latencies.count),
            *(Figure(f"{value:.3g}", "", f"images per joule, {kind}") for kind, value in run.images_per_j.items()),
            Figure(str(client.failed), f"of {latencies.count + client.failed}", "failed"),
            *([Figure(str(client.unsent), "", "not sent")] if client.unsent else ()),
        ]
    )


def _percentile(client: ClientSide, percent: int) -> Figure:
    latency_ms, bound_ms = client.latencies.percentile_ms(percent), client.bounds_ms.get(f"p{percent}")
    bound = f", at most {bound_ms:.1f} ms" if bound_ms else ", too few to bound it" if percent in BOUNDED else ""
    return Figure(f"{latency_ms:.1f}", "ms", f"p{percent}{bound}")


def _verdicts(run: Run, budget_ms: float | None) -> list[Note]:
    client, latencies = run.client, run.client.latencies
    notes = []
    if budget_ms and latencies.count:
        headroom = Headroom(budget_ms, latencies.percentile_ms(BUDGET_AT))
        notes.append(Note(headroom.sentence(f"p{BUDGET_AT}"), "good" if headroom.ms >= 0 else "bad"))
    if client.failed:
        kinds = ", ".join(f"{failure.count} {kind}" for kind, failure in client.failures.items())
        notes.append(Note(f"{client.failed} of {latencies.count + client.failed} requests failed: {kinds}", "bad"))
    if client.unsent:
        notes.append(Note(client.left_out, "bad"))
    return [*notes, *(Note(str(remark), "warning") for remark in remarks.of_run(run))]


def _batches(run: Run) -> list[Section]:
    sentence = batch_sentence(run.server)
    if not sentence:
        return []
    by_size = run.server[DETECTOR.name].batches
    executions = sum(by_size.values())
    rows = [Row([str(size), str(count), Share(count / executions)]) for size, count in sorted(by_size.items()) if count]
    return [Section("Batches of the detector", [Note(sentence), Table(["images", "executions", "share"], rows)])]


def _failures(run: Run) -> list[Section]:
    if not run.client.failures:
        return []
    rows = [
        Row([kind, _shortened(failure.example), str(failure.count)]) for kind, failure in run.client.failures.items()
    ]
    return [Section("Failures", [Table(["error", "one of them", "requests"], rows, words=2)])]


def _shortened(message: str) -> str:
    return message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}…"
