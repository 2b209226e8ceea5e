"""Runs, sweeps and comparisons for reports, and a reader of the pages made from them."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np

from support.profiles import fp32, int8
from triptych import report
from triptych.contract import STAGES
from triptych.measure.attribution import Attribution, Breakdown, Requests, Source, from_requests
from triptych.measure.comparison import compare_sides
from triptych.measure.histogram import Histogram
from triptych.measure.intervals import Timeline
from triptych.measure.pool import Side
from triptych.measure.profile_change import compare
from triptych.measure.run_file import ClientSide, Environment, Failure, ImageSet, Run, ServedDetector, Workload
from triptych.measure.sweep import Point, Series
from triptych.measure.sweep_file import Sweep
from triptych.measure.traces import PARTS
from triptych.measure.tuning import StageLoad, Try, Tuning
from triptych.report.blocks import Page
from triptych.serving.tuned import Place, Settings, Tuned
from triptych.wire.statistics import Counters

HOSTILE = "<script>alert('|`*_')</script>\n# [x](http://evil.example) | <img src=http://evil.example>"

VOID = {"meta", "input", "path", "rect", "circle", "polyline"}


class Reader(HTMLParser):
    """What is in a page, and whether every element that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def widths_of(self, parent: str, child: str) -> list[list[float]]:
        """Return the widths in percent of the children of each parent, by their classes, in the order of the page."""
        widths: list[list[float]] = []
        for _, attributes in self.elements:
            classes = attributes.get("class", "").split()
            if parent in classes:
                widths.append([])
            elif child in classes and widths and "width" in attributes["style"]:
                widths[-1] += map(float, re.findall(r"width:([\d.]+)%", attributes["style"]))
        return widths


def make_run(
    factor: float = 1.0,
    source: Source = "traces",
    client: dict[str, float] | None = None,
    count: int = 400,
    seed: int = 7,
) -> Run:
    """Return a run whose detector takes most of the time, `factor` times as long; it began in the second `seed`."""
    rng = np.random.default_rng(seed)
    scales = np.array([[0.2], [5.0 * factor], [0.4]]) * np.ones((count, 1, len(PARTS))) / len(PARTS)
    stages = rng.gamma(2.0, scales, scales.shape)
    own = {name: rng.gamma(2.0, scale, count) for name, scale in (client or {}).items()}
    network, overhead = rng.gamma(2.0, 0.5, count), np.full(count, 0.05)
    total = stages.sum(axis=(1, 2)) + network + overhead + sum(own.values(), np.zeros(count))
    requests = Requests(total, network, overhead, stages, own, np.arange(count) / 40)
    attribution = from_requests(requests, Histogram(total))
    if source != "traces":
        mean = dataclasses.replace(attribution.breakdowns["mean"], ensemble_overhead_ms=-0.5)
        attribution = Attribution(source, count, {"mean": mean})
    timeline = Timeline(0.0, 10.0, 5)
    for at_s, ms in zip(requests.at_s, total, strict=True):
        timeline.answer(float(at_s), float(ms))
    manifest = {
        "precision": "int8",
        "adapted": {
            "source": "pcb.onnx",
            "head": "raw",
            "spec": {"width": 640, "height": 640, "class_names": ["spur"]},
        },
        "versions": {"openvino": "2026.4"},
        "verification": {
            "passed": True,
            "verdict": "passed: holds every limit",
            "checks": [{"name": "mAP50-95 drop (points)", "measured": 0.3264, "limit": 1.0, "passed": True}],
        },
    }
    batches = Counter({1: count // 4, 2: count - count // 4})
    return Run(
        started=f"2026-01-02T03:04:{seed:02}+00:00",
        workload=Workload(
            "video" if client else "closed", 4, None, "constant", 2, [], 1, 1.0, 10.0, ImageSet.of([b"1"])
        ),
        environment=Environment(
            "127.0.0.1:8001", "a CPU", 2, ["a GPU"], {"python": "3.11"}, ServedDetector(3, "python", 2, 16, manifest)
        ),
        client=ClientSide(Histogram(map(float, total)), {}, {}, 10.0, 1.5, 0.125),
        server={"detector": Counters(count, 0, count * 2, count, batches=batches)},
        attribution=attribution,
        intervals=timeline.intervals(requests),
        command=["triptych", "loadtest", "--images", "my images"],
    )


def make_failed_run() -> Run:
    run = make_run()
    nothing = Breakdown(0.0, 0.0, 0.0, {stage.name: dict.fromkeys(PARTS, 0.0) for stage in STAGES})
    timeline = Timeline(0.0, 10.0, 5)
    for _ in range(12):
        timeline.failure(1.0)
    return dataclasses.replace(
        run,
        client=ClientSide(Histogram(), {}, {"ServerUnavailable": Failure(12, "nobody answers")}, 10.0, 0.0, 0.0),
        server={},
        attribution=Attribution("statistics", 0, {"mean": nothing}),
        intervals=timeline.intervals(Requests.join([], {})),
    )


def hostile_run() -> Run:
    run = make_run()
    detector = run.environment.detector
    assert detector
    assert detector.manifest
    manifest = {
        **detector.manifest,
        "precision": HOSTILE,
        "verification": {"verdict": HOSTILE, "checks": [{"name": HOSTILE}]},
    }
    manifest["adapted"] = {"source": HOSTILE, "spec": {"class_names": [HOSTILE]}}
    return dataclasses.replace(
        run,
        environment=dataclasses.replace(
            run.environment, cpu=HOSTILE, gpus=[HOSTILE], detector=dataclasses.replace(detector, manifest=manifest)
        ),
        client=dataclasses.replace(
            run.client,
            by_request={HOSTILE: run.client.latencies},
            failures={HOSTILE: Failure(3, HOSTILE), "A": Failure(1, "x" * 2000)},
        ),
        attribution=dataclasses.replace(run.attribution, percentiles_ms={HOSTILE: {"p50": 1, "p95": 1, "p99": 1e6}}),
        command=["python", HOSTILE, "```"],
    )


def make_sweep(series: int = 2) -> Sweep:
    def point(users: int, slow: float) -> Point:
        mean = 10 * slow + 5 * users
        owners = {"preprocess": 2.0, "detector": mean - 3.0, "network and client": 1.0}
        return Point(users, None, None, None, 1000 * users / mean, mean, mean, 2 * mean, 30 * mean, 0, 1.5, owners, 0.9)

    def failed(users: int) -> Point:
        return Point(users, None, None, None, 0.0, 0.0, 0.0, 0.0, 0.0, 9, 0.0, {}, 0.1)

    labels = ["1 instance", HOSTILE][:series]
    run = make_run()
    return Sweep(
        run.started,
        run.environment,
        run.workload.images,
        50.0,
        "p95",
        [Series(label, [*(point(n, k + 1) for n in (1, 2, 4)), failed(8)], 1, 0) for k, label in enumerate(labels)],
        ["the knee is at 2 users", "the load generator was busy"],
        ["triptych", "sweep"],
    )


def make_tuning(gain: float = 1.2) -> Tuning:
    """Return a search with a step that is taken, and one that is refused; `gain` is what the step brings."""
    run = make_run()
    start = Settings(preprocess=1, detector=2, postprocess=1, threads=1, batch=1, delay_us=0)
    more, most = dataclasses.replace(start, preprocess=2), dataclasses.replace(start, preprocess=2, detector=3)
    stages = {stage.name: StageLoad(9.0 if stage.name == "preprocess" else 1.0, 0.75) for stage in STAGES}

    def one(settings: Settings, images_per_s: float) -> Try:
        return Try(settings, images_per_s, 20.0, 20.0, 30.0, {"preprocess": 16.0, "detector": 4.0}, stages, 0.9)

    rates = (40.0, 40.4, 39.6)
    turns = [one(start, rate) if at % 2 else one(more, gain * rate) for rate in (*rates, 40.1) for at in (0, 1)]
    found = gain > 1
    return Tuning(
        run.started,
        run.environment,
        run.workload.images,
        8,
        2,
        5.0,
        [*(one(start, rate) for rate in rates), one(more, 40 * gain), Try(most, refused=f"no memory {HOSTILE}")],
        turns if found else [],
        not found,
        more if found else start,
        Tuned(more, Place("a CPU", 2, [], "version 1"), run.started) if found else None,
        ["triptych", "tune"],
    )


PAGES = (
    "run",
    "statistics",
    "video",
    "failed",
    "one request",
    "hostile",
    "comparison",
    "comparisons",
    "sweep",
    "sweeps",
    "tuning",
    "tuning without a gain",
    "profile",
    "profile against",
)


def fp32_and_int8() -> tuple[Side, Side]:
    """Return four runs of each of two sides, in turn."""
    seeds = range(8)
    return (
        Side("fp32", [make_run(4.0, seed=seed) for seed in seeds[::2]]),
        Side("int8", [make_run(seed=seed) for seed in seeds[1::2]]),
    )


def pages() -> dict[str, Page]:
    """Return a page of each kind, by the names in `PAGES`."""
    a, b = make_run(4.0), make_run()
    comparison = dataclasses.replace(compare_sides(*fp32_and_int8()), refusals=["p95 is longer"])
    track = make_run(client={"read": 1.0, "encode": 2.0, "wait": 3.0, "track": 20.0, "write": 0.1, "other": 1.0})
    return {
        "run": report.of_run(a, "demo", 100.0),
        "statistics": report.of_run(make_run(source="statistics"), "means"),
        "video": report.of_run(track, "video"),
        "failed": report.of_run(make_failed_run(), "failed", 50.0),
        "one request": report.of_run(make_run(count=1), "one"),
        "hostile": report.of_run(hostile_run(), HOSTILE),
        "comparison": report.of_comparisons([comparison], [a, b], ["of one side"]),
        "comparisons": report.of_comparisons(
            [comparison, compare_sides(Side("fp32", [a]), Side(HOSTILE, [b]))], [a, b, b]
        ),
        "sweep": report.of_sweep(make_sweep(1), "sweep"),
        "sweeps": report.of_sweep(make_sweep(), "sweeps"),
        "tuning": report.of_tuning(make_tuning(), "tuning"),
        "tuning without a gain": report.of_tuning(make_tuning(gain=1.0), HOSTILE),
        "profile": report.of_profile(dataclasses.replace(int8(), model=HOSTILE)),
        "profile against": report.of_profile(int8(), compare(fp32(), int8())),
    }
