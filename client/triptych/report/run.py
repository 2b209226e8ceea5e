"""The report of one run: who owns the time, and all that one needs to believe it and to measure it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from triptych.contract import DETECTOR
from triptych.measure import remarks as findings
from triptych.measure.attribution import PERCENTS, Attribution, Headroom, owner_sentence
from triptych.measure.histogram import Histogram
from triptych.measure.remarks import BUDGET_AT
from triptych.measure.run_file import Environment, Run, Workload
from triptych.report.blocks import (
    Block,
    Chart,
    Charts,
    Code,
    Columns,
    Figure,
    Figures,
    Line,
    Note,
    Page,
    Row,
    Section,
    Share,
    Table,
)
from triptych.report.owners import bars

FAR_APART = 3.0
"""Bars of which the longest is so many times the shortest are shown as 100% each at first."""

MOST_COLUMNS = 48
"""Columns of the histogram, at most."""

BELOW_ZERO = "Below zero: the last stage's output goes on after the ensemble has answered. It has no width in the bars."

LONGEST_MESSAGE = 400
"""Characters of an error's message, which may bring a server's whole log along."""

SOURCES = {
    "traces": "From the server's own traces, joined to the clients' requests by their ids: every request has its own "
    "split. A percentile's parts are those of the requests around it, so they add up; their mean can differ a little "
    "from the percentile itself.",
    "summaries": "Means from the server's statistics, differenced over exactly the measured time; the percentiles of "
    "each model come from its metrics: of all requests of the last minute or so, those of the warm-up and of other "
    "clients among them. There were no traces that could be read, so a percentile cannot be split.",
    "statistics": "Means alone, from the server's statistics, differenced over exactly the measured time: there were "
    "no traces that could be read. Run the load test on the server's own machine to have percentiles explained.",
}


def of_run(run: Run, name: str, budget_ms: float | None = None) -> Page:
    """The report of a run.

    Args:
        run: what was measured.
        name: what to call it.
        budget_ms: what an answer may take, held against the p95.
    """
    mean = run.attribution.breakdowns["mean"]
    answered = run.client.latencies.count
    return Page(
        title=name,
        subtitle=f"{workload_sentence(run.workload)}, {run.started[:16].replace('T', ' ')} UTC",
        headline=owner_sentence(mean, "mean") if answered else "No request succeeded",
        sections=[
            Section("", [_figures(run), *_verdicts(run, budget_ms)]),
            *(_time(run) if answered else ()),
            *(_latencies(run) if answered else ()),
            *_batches(run),
            *_failures(run),
            *setting(run),
        ],
    )


def workload_sentence(workload: Workload) -> str:
    """What was asked of the server, in a few words."""
    rate = f"{workload.rate_per_s:g}" if workload.rate_per_s else "?"
    users = workload.users
    asked = {
        "closed": f"{users} user{'s' * (users != 1)} that wait{'s' * (users == 1)} for each answer",
        "constant": f"{rate} requests/s, whatever the answers do",
        "poisson": f"{rate} requests/s at random, whatever the answers do",
        "camera": f"{users} camera{'s' * (users != 1)} of {rate} frames/s",
        "video": f"a video with {users} frame{'s' * (users != 1)} in flight",
    }[workload.loop]
    batch = f", {workload.batch} images a request" if workload.batch > 1 else ""
    shape = f", {workload.shape}" if workload.shape != "constant" else ""
    return f"{asked}{batch}{shape}, {workload.duration_s:g} s"


def _figures(run: Run) -> Figures:
    client, latencies = run.client, run.client.latencies
    images = [Figure(f"{client.rate_per_s * run.workload.batch:.1f}", "", "images/s")]
    return Figures(
        [
            Figure(f"{client.rate_per_s:.1f}", "", "requests/s"),
            *(images if run.workload.batch > 1 else ()),
            *(Figure(f"{latencies.percentile_ms(p):.1f}", "ms", f"p{p}") for p in PERCENTS if latencies.count),
            Figure(str(client.failed), f"of {latencies.count + client.failed}", "failed"),
        ]
    )


def _verdicts(run: Run, budget_ms: float | None) -> list[Note]:
    latencies, found = run.client.latencies, run.attribution
    notes = []
    if budget_ms and latencies.count:
        headroom = Headroom(budget_ms, latencies.percentile_ms(BUDGET_AT))
        notes.append(Note(headroom.sentence(f"p{BUDGET_AT}"), "good" if headroom.ms >= 0 else "bad"))
    if run.client.failed:
        kinds = ", ".join(f"{failure.count} {kind}" for kind, failure in run.client.failures.items())
        notes.append(
            Note(f"{run.client.failed} of {latencies.count + run.client.failed} requests failed: {kinds}", "bad")
        )
    warnings = [*findings.generator(run), *found.long_tails]
    if found.source == "traces" and found.requests < latencies.count:
        warnings.append(f"{latencies.count - found.requests} of {latencies.count} requests left no whole trace")
    return [*notes, *(Note(warning, "warning") for warning in warnings)]


def _time(run: Run) -> list[Section]:
    found = run.attribution
    sentences = [owner_sentence(breakdown, at) for at, breakdown in found.breakdowns.items() if at != "mean"]
    waits = run.workload.loop in ("constant", "poisson", "camera")
    due = [
        Note("Latency counts from when a request was due; what it waited to be sent is network and client.", "small")
    ]
    return [
        Section(
            "Where the time goes",
            [
                Note(f"{SOURCES[found.source]} ({found.requests} requests)", "small"),
                replace(bars(found.breakdowns), stretched=_far_apart(found)),
                *(Note(sentence, "small") for sentence in sentences),
                *(due if waits else ()),
                attribution_table(found),
                *([Note(BELOW_ZERO, "small")] if found.breakdowns["mean"].ensemble_overhead_ms < 0 else ()),
            ],
        ),
        *([_percentiles(found)] if found.percentiles_ms else ()),
    ]


def _far_apart(found: Attribution) -> bool:
    """Whether, on one scale, the shortest latency's parts could not be told from each other."""
    totals = [breakdown.total_ms for breakdown in found.breakdowns.values()]
    return max(totals) > FAR_APART * min(totals)


def attribution_table(found: Attribution) -> Table:
    """Owners and their parts, in milliseconds, at each latency that is explained."""
    breakdowns = found.breakdowns
    mean = breakdowns["mean"]

    def row(name: str, values: Sequence[float], kind: Any = "") -> Row:
        share = Share(values[0] / mean.total_ms if mean.total_ms else 0.0)
        return Row([name, *(f"{value:.2f}" for value in values), share], kind)

    rows = []
    for owner in mean.owners():
        rows.append(row(owner, [each.owners()[owner] for each in breakdowns.values()]))
        rows += [
            row(part, [each.stages[owner][part] for each in breakdowns.values()], "part")
            for part in mean.stages.get(owner, ())
        ]
    rows.append(row("client, end to end", [each.total_ms for each in breakdowns.values()], "total"))
    return Table(["ms", *breakdowns, "of mean"], rows)


def _percentiles(found: Attribution) -> Section:
    stages = found.breakdowns["mean"].stages
    rows = []
    for name, values in found.percentiles_ms.items():
        if name.rpartition(" ")[0] not in stages:
            parts = {part: found.percentiles_ms.get(f"{name} {part}") for part in stages.get(name, ())}
            rows.append(_percentile_row(name, values))
            rows.extend(_percentile_row(part, each, "part") for part, each in parts.items() if each)
    note = "The slowest percent of one stage need not be that of another: these do not add up."
    return Section("Percentiles, each for itself", [Note(note, "small"), Table(["ms", *_percents()], rows)], 3)


def _percentile_row(name: str, values: Mapping[str, float], kind: Any = "") -> Row:
    return Row([name, *(f"{values[at]:.2f}" for at in _percents())], kind)


def _percents() -> list[str]:
    return [f"p{percent}" for percent in PERCENTS]


def _latencies(run: Run) -> list[Section]:
    client = run.client
    rows = [_latency_row(name, found) for name, found in sorted(client.by_request.items())]
    rows.append(_latency_row("all", client.latencies, "total" if rows else ""))
    return [
        Section(
            "What the clients saw",
            [
                Table(["ms", "count", "mean", *_percents(), "longest"], rows),
                Charts([histogram_chart(client.latencies), *_over_time(run)]),
            ],
        )
    ]


def _latency_row(name: str, found: Histogram, kind: Any = "") -> Row:
    values = (found.mean_ms, *(found.percentile_ms(percent) for percent in (*PERCENTS, 100)))
    return Row([name, str(found.count), *(f"{value:.1f}" for value in values)], kind)


def histogram_chart(found: Histogram) -> Chart:
    """How many requests took how long; the bins of the histogram in groups."""
    data = found.to_json()
    gamma = (1 + data["relative_accuracy"]) / (1 - data["relative_accuracy"])
    first, last = data["bins"][0][0], data["bins"][-1][0]
    size = (last - first) // MOST_COLUMNS + 1
    heights = [0] * ((last - first) // size + 1)
    for key, count in data["bins"]:
        heights[(key - first) // size] += count
    edges = [gamma ** (first + group * size - 1) for group in range(len(heights) + 1)]
    columns = [(left, right, float(n)) for left, right, n in zip(edges, edges[1:], heights, strict=False)]
    down = {f"p{percent}": found.percentile_ms(percent) for percent in PERCENTS}
    series = [Columns("requests", columns)]
    return Chart(
        "How long requests took", "latency, ms", "requests", columns=series, down=down, log_x=True, zero_x=False
    )


def _over_time(run: Run) -> list[Chart]:
    if len(run.intervals) < 2:
        return []
    spans = [(each, each.start_s, each.start_s + each.seconds) for each in run.intervals]
    answered = Columns("answered", [(first, last, each.rate_per_s) for each, first, last in spans])
    failed = Columns("failed", [(first, last, each.failures / each.seconds) for each, first, last in spans])
    shown = [answered, failed] if run.client.failed else [answered]
    middles = [(each, (first + last) / 2) for each, first, last in spans if each.requests]
    lines = [Line(at, [(middle, getattr(each, f"{at}_ms")) for each, middle in middles]) for at in _percents()]
    since = "s since the beginning"
    return [
        Chart("Requests over time", since, "requests/s", columns=shown),
        Chart("Latency over time", since, "latency, ms", lines=lines, log_y=True),
    ]


def _batches(run: Run) -> list[Section]:
    sentence = findings.batches(run)
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


def setting(run: Run) -> list[Section]:
    """Where and how it ran: the load, the machine, the detector, and the command that does it again."""
    note = Note("The images must be the same: compare their SHA-256.", "small")
    return [
        Section("Workload and load generator", [_workload(run)], folded=True),
        *environment_sections(run.environment),
        Section("Measure it again", [Code(shlex.join(run.command)), note], folded=True),
    ]


def environment_sections(environment: Environment) -> list[Section]:
    """The machine, and the detector as it was served and verified."""
    facts = {
        "server": environment.address,
        "CPU": environment.cpu,
        "cores": str(environment.cores),
        "GPU": ", ".join(environment.gpus) or "none",
        **environment.versions,
    }
    return [Section("Environment", [_facts(facts)], folded=True), *_detector(environment)]


def _facts(facts: Mapping[str, str]) -> Table:
    return Table(["", ""], [Row([name, value]) for name, value in facts.items() if value], words=2)


def _workload(run: Run) -> Table:
    workload, client = run.workload, run.client
    requests = client.latencies.count + client.failed
    cpu = f", {1000 * client.cpu_s / requests:.2f} ms a request" if requests else ""
    return _facts(
        {
            "load": workload_sentence(workload),
            "warm-up": f"{workload.warmup_s:g} s",
            "measured": f"{client.seconds:.1f} s, until the last answer",
            "images": f"{workload.images.count}, {workload.images.total_bytes / 1e6:.2f} MB together",
            "images' SHA-256": workload.images.sha256,
            "scaled to": ", ".join(workload.sizes),
            "load generators": str(workload.processes),
            "their CPU time": f"{client.cpu_s:.2f} s{cpu}",
            "busiest of them": f"{client.busiest:.0%} of a core",
        }
    )


def _detector(environment: Environment) -> list[Section]:
    detector = environment.detector
    if detector is None:
        return []
    manifest = detector.manifest or {}
    facts = {
        "version": str(detector.version),
        "backend": detector.backend,
        "instances": str(detector.instances),
        "largest batch": str(detector.max_batch),
        **_manifest_facts(manifest),
    }
    blocks: list[Block] = [_facts(facts), *_verification(manifest.get("verification") or {})]
    return [Section("Detector", blocks, folded=True)]


def _manifest_facts(manifest: Mapping[str, Any]) -> dict[str, str]:
    adapted, calibration, engine = (manifest.get(key) or {} for key in ("adapted", "calibration", "engine"))
    spec = adapted.get("spec") or {}
    images = calibration.get("images")
    return {
        **{name: str(manifest.get(name) or "") for name in ("precision", "target")},
        "source": str(adapted.get("source") or ""),
        "head": str(adapted.get("head") or ""),
        "input": f"{spec['width']}x{spec['height']}" if "width" in spec and "height" in spec else "",
        "classes": ", ".join(map(str, spec.get("class_names") or ())),
        "calibration": f"{images} images, {calibration.get('method')}" if images else "",
        "plan": f"{engine.get('builder')} {engine.get('version')}, built on {engine.get('gpu')}" if engine else "",
        "built with": ", ".join(f"{name} {number}" for name, number in (manifest.get("versions") or {}).items()),
        "published": str(manifest.get("published") or "")[:16].replace("T", " "),
        "model's SHA-256": str(manifest.get("model_sha256") or ""),
    }


def _verification(found: Mapping[str, Any]) -> list[Block]:
    if not found:
        return []
    note = Note(f"Verification {found.get('verdict', '')}", "good" if found.get("passed") else "bad")
    checks = found.get("checks") or ()
    rows = [Row([str(each.get("name")), _figure(each.get("measured")), _figure(each.get("limit"))]) for each in checks]
    return [note, *([Table(["check", "measured", "limit"], rows)] if rows else ())]


def _figure(value: Any) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, (int, float)) else "–"
