"""Warnings about what was measured: each has an id, a condition, and advice.

The ids stay as they are, for scripts that read them; `docs/measure.md` lists them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from triptych.measure import documents
from triptych.measure.attribution import LATENESS, NETWORK
from triptych.measure.footprint import growths
from triptych.measure.limits import Breach
from triptych.measure.pool import Side, chance_unknown
from triptych.measure.power.throttled import throttled_sentences
from triptych.measure.run_file import Run
from triptych.measure.sweep_file import Sweep
from triptych.measure.traces import PARTS

BUDGET_AT = 95
"""The percentile that a latency budget is held against."""

BUSY = 0.8
"""A load generator that uses this share of a core is near its own limit: Python runs on one core at a time."""

LONG_TAIL_RATIO = 2.0
"""An owner whose p99 is so many times its p95 has a long tail..."""

LONG_TAIL_SHARE = 0.2
"""...if what lies between the two is also this share of the client's median, at least."""

FEWEST_FOR_A_TAIL = 200
"""Of fewer requests the last percent is one or two, which may be chance."""

GROWTH_WITHIN_S = 120.0
"""In less time a process still takes its first memory."""

GROWTH_PER_MIN = 1.0
"""MB, open files or threads a minute: a process that surely grows faster needs a look."""


@dataclass(frozen=True)
class Remark:
    """A warning.

    Attributes:
        id: which one, such as `long-tail`.
        text: what was seen.
        advice: what to do about it.
    """

    id: str
    text: str
    advice: str

    def __str__(self) -> str:
        return f"{self.text}; {self.advice}"


def to_json(document: Run | Sweep) -> str:
    """Return a run or a sweep as its file has it, with its remarks."""
    remarks = of_run(document) if isinstance(document, Run) else of_sweep(document)
    return json.dumps({**documents.to_json(document), "remarks": documents.to_json(remarks)}, indent=1)


# --- one run ---------------------------------------------------------------------------------------------------------


def of_run(run: Run) -> list[Remark]:
    """Return what makes a run weak evidence, and what in it deserves a look."""
    return [
        *_interrupted(run),
        *_short_scenario(run),
        *_unsent(run),
        *_busy_generator(run),
        *_untraced(run),
        *_truncated(run),
        *_long_tails(run),
        *_throttled(run),
        *_growths(run),
    ]


def _interrupted(run: Run) -> list[Remark]:
    if not run.interrupted:
        return []
    text = f"{run.interrupted}, so the server's counters are left out"
    return [Remark("server-reloaded", text, "measure again, and look into the server's log for the reason")]


def _short_scenario(run: Run) -> list[Remark]:
    if not (run.scenario and run.scenario.missing):
        return []
    text = f"not a valid MLPerf length: {' and '.join(run.scenario.missing)}"
    return [Remark("scenario-short", text, "leave out --duration-s to measure for as long as the rules demand")]


def _unsent(run: Run) -> list[Remark]:
    client = run.client
    if not client.unsent:
        return []
    due = client.latencies.count + client.failed + client.unsent
    return [
        Remark(
            "requests-unsent",
            f"{client.unsent:,} of {due:,} requests that were due were not sent: the load is more than server or load "
            "generator take, and the latencies leave out what would have waited longest",
            f"ask for a lower rate, or share the load with --processes {run.workload.processes + 1} if the load "
            "generator is busy",
        )
    ]


def _busy_generator(run: Run) -> list[Remark]:
    if not _is_busy(run):
        return []
    return [
        Remark(
            "generator-busy",
            f"the load generator used {run.client.busiest:.0%} of a core: it may be the bottleneck, and its own time "
            f"counts as {NETWORK}",
            f"share the load with --processes {run.workload.processes + 1}",
        )
    ]


def _is_busy(run: Run) -> bool:
    return run.client.busiest >= BUSY and run.workload.loop != "video"  # whose client tracks, which is work of its own


def _untraced(run: Run) -> list[Remark]:
    traced = run.client.latencies.count // run.attribution.trace_rate
    missing = traced - run.attribution.requests
    # Of one request in so many, Triton leaves one out now and then: see `Tracing.stop`.
    if run.attribution.source != "traces" or missing <= (traced / 100 if run.attribution.trace_rate > 1 else 0):
        return []
    return [
        Remark(
            "traces-incomplete",
            f"{missing} of {traced} traced requests left no whole trace: the breakdowns leave them out",
            "measure again if they are many",
        )
    ]


def _truncated(run: Run) -> list[Remark]:
    if not run.client.truncated:
        return []
    return [
        Remark(
            "answers-cut-off",
            f"{run.client.truncated} of {run.client.latencies.count} requests had an answer that was cut off, in which "
            "objects may be missing",
            "build the detector with more --candidates or --rows, or raise its --score-threshold",
        )
    ]


def _long_tails(run: Run) -> list[Remark]:
    """Name each owner whose p99 is far above its p95, by enough that a client notices."""
    percentiles_ms, client_p50_ms = run.attribution.percentiles_ms, run.client.latencies.percentile_ms(50)
    if run.attribution.requests < FEWEST_FOR_A_TAIL:
        return []
    remarks = []
    for owner in (name for name in percentiles_ms if name.rpartition(" ")[2] not in PARTS):
        p95, p99 = percentiles_ms[owner]["p95"], percentiles_ms[owner]["p99"]
        if p99 < LONG_TAIL_RATIO * p95 or p99 - p95 < LONG_TAIL_SHARE * client_p50_ms:
            continue
        growth = {
            part: parts["p99"] - parts["p95"] for part in PARTS if (parts := percentiles_ms.get(f"{owner} {part}"))
        }
        where, advice = _TAILS.get(max(growth, key=lambda part: growth[part]) if growth else owner, _TAIL_ELSEWHERE)
        text = f"{owner} has a long tail: p95 {p95:.1f} ms, p99 {p99:.1f} ms{where}"
        remarks.append(Remark("long-tail", text, advice))
    return remarks


def _throttled(run: Run, where: str = "") -> list[Remark]:
    advice = "cool it, raise its power limit, or measure at clocks that it can hold (nvidia-smi --lock-gpu-clocks)"
    return [Remark("gpu-throttled", f"{where}{sentence}", advice) for sentence in throttled_sentences(run)]


def _growths(run: Run) -> list[Remark]:
    if run.footprint is None:
        return []
    advice = (
        "if a longer run shows it too, look for a leak in what was changed last, and in its libraries; on a GPU it may "
        "be another program's (nvidia-smi)"
    )
    return [
        Remark("footprint-grows", str(growth), advice)
        for growth in growths(run.footprint, GROWTH_WITHIN_S, GROWTH_PER_MIN)
    ]


_TAILS = {
    LATENESS: ("", "the load generator could not send on time: share the load with more --processes"),
    NETWORK: ("", "look at the network, and at whether the machine of either side is short of CPU"),
    "queue": (
        ", mostly waiting for a free instance",
        "look for requests that come in bursts, or serve more instances",
    ),
    "input": (", mostly gathering its inputs", "send smaller requests, or give the server more CPU"),
    "infer": (
        ", mostly in the model",
        "look for inputs that cost more, and for what else takes its CPU or GPU at times",
    ),
    "output": (", mostly handing out its outputs", "give the server more CPU"),
}
_TAIL_ELSEWHERE = ("", "look at whether its machine is short of CPU at times")


# --- a sweep ---------------------------------------------------------------------------------------------------------


def of_sweep(sweep: Sweep) -> list[Remark]:
    """Return what makes a sweep weak evidence."""
    busiest = max((point for series in sweep.series for point in series.points), key=lambda point: point.busiest)
    if busiest.busiest < BUSY:
        return []
    return [
        Remark(
            "generator-busy",
            f"the load generator used {busiest.busiest:.0%} of a core at {busiest.load}: it may be the bottleneck, and "
            f"its own time counts as {NETWORK}",
            "measure this load with `triptych loadtest --processes 2`",
        )
    ]


# --- runs side by side -----------------------------------------------------------------------------------------------


def of_sides(sides: Sequence[Side]) -> list[Remark]:
    """Return what makes a comparison of each side with the first weak evidence, each remark once."""
    remarks: list[Remark] = []
    for side in sides[1:]:
        remarks += of_pair(sides[0].run, side.run, (sides[0].name, side.name))
    for side in sides:
        remarks += _of_one_side(side)
    unknown = [reason for side in sides[1:] if (reason := chance_unknown(sides[0], side))]
    remarks += [Remark("chance-unknown", reason, _IN_TURN) for reason in unknown]
    return list(dict.fromkeys(remarks))


def of_pair(a: Run, b: Run, names: tuple[str, str] = ("A", "B")) -> list[Remark]:
    """Return what differs between two runs, but for the detector, and what makes either weak evidence."""
    return [*differences(a, b, names), *_weaknesses(a, names[0]), *_weaknesses(b, names[1])]


_IN_TURN = "measure A1, B1, A2, B2, and so on, and compare A1,A2,A3,A4 B1,B2,B3,B4"
_ONE_PLACE = "measure both on the same machines"
_ONE_LOAD = "measure both with the same load"
_ONE_SERVER = "measure both with the same settings of the server"
_DIFFERENCES: tuple[tuple[str, str, str, Callable[[Run], object]], ...] = (
    ("processors-differ", "processors", _ONE_PLACE, lambda run: run.environment.cpu or "unknown"),
    ("cores-differ", "cores", _ONE_PLACE, lambda run: run.environment.cores),
    ("gpus-differ", "GPUs", _ONE_PLACE, lambda run: ", ".join(run.environment.gpus) or "none"),
    ("servers-differ", "server machines", _ONE_PLACE, lambda run: run.environment.address.rpartition(":")[0]),
    ("users-differ", "users", _ONE_LOAD, lambda run: run.workload.users),
    ("rates-differ", "rates asked for", _ONE_LOAD, lambda run: run.workload.rate_per_s or "none"),
    ("shapes-differ", "shapes of the load", _ONE_LOAD, lambda run: run.workload.shape),
    ("batches-differ", "batch sizes of the requests", _ONE_LOAD, lambda run: run.workload.batch),
    ("sizes-differ", "sizes of the images", _ONE_LOAD, lambda run: ", ".join(run.workload.sizes) or "as they are"),
    ("generators-differ", "numbers of load generators", _ONE_LOAD, lambda run: run.workload.processes),
    (
        "instances-differ",
        "detector instances",
        _ONE_SERVER,
        lambda run: run.environment.detector.instances if run.environment.detector else "unknown",
    ),
    (
        "meters-differ",
        "sources of the energy",
        "measure both where the same counters can be read",
        lambda run: (run.power and run.power.sources) or "none",
    ),
    (
        "sources-differ",
        "sources of the attribution",
        "measure both with traces, or both without",
        lambda run: run.attribution.source,
    ),
)


def differences(a: Run, b: Run, names: tuple[str, str] = ("A", "B")) -> list[Remark]:
    """Return a remark for each thing, but for the detector, that was not the same in both runs."""
    remarks = [
        Remark(name, f"{what} differ: {of(a)} in {names[0]}, {of(b)} in {names[1]}", advice)
        for name, what, advice, of in _DIFFERENCES
        if of(a) != of(b)
    ]
    if a.workload.images.sha256 != b.workload.images.sha256:
        counts = [run.workload.images.count for run in (a, b)]
        text = f"images differ: {counts[0]} in {names[0]} are not the {counts[1]} in {names[1]}"
        remarks.append(Remark("images-differ", text, "measure both with the same images"))
    ours, theirs = a.environment.versions, b.environment.versions
    changed = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    if changed:
        pairs = ", ".join(f"{name} {ours.get(name) or 'none'} and {theirs.get(name) or 'none'}" for name in changed)
        text = f"versions differ between {names[0]} and {names[1]}: {pairs}"
        remarks.append(Remark("versions-differ", text, "measure both with the same versions"))
    return remarks


def _weaknesses(run: Run, name: str) -> Iterable[Remark]:
    if run.client.failed:
        requests, kinds = run.client.failed + run.client.latencies.count, ", ".join(run.client.failures)
        yield Remark(
            "requests-failed",
            f"{run.client.failed} of {requests} requests failed in {name} ({kinds}): its latencies are of the others",
            "mend that first",
        )
    if run.client.unsent:
        yield Remark(
            "requests-unsent",
            f"{run.client.unsent:,} requests that were due were not sent in {name}: its latencies are of the others",
            "measure at a lower rate",
        )
    yield from _throttled(run, f"in {name}, ")
    if run.interrupted:
        yield Remark("server-reloaded", f"in {name}, {run.interrupted}", "measure it again")
    if _is_busy(run):
        yield Remark(
            "generator-busy",
            f"the load generator used {run.client.busiest:.0%} of a core in {name}: it may be what was measured",
            f"share the load with --processes {run.workload.processes + 1}",
        )


def _of_one_side(side: Side) -> Iterable[Remark]:
    """Return in what the runs of one side are not the same."""
    for name, run in zip(side.names[1:], side.runs[1:], strict=True):
        for remark in differences(side.runs[0], run, (side.names[0], name)):
            yield replace(remark, text=f"of one side, but {remark.text}")


def of_breaches(breaches: Iterable[Breach]) -> list[Remark]:
    """Return a remark for each limit of which nobody can tell whether it is kept."""
    return [
        Remark("limit-unproven", breach.sentence, "until then no limit is shown to be broken")
        for breach in breaches
        if not breach.refuses
    ]
