"""The gate's report: the verdict in words, a page in Markdown, tables for a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from triptych.contract import DETECTION, POSTPROCESS, PREPROCESS
from triptych.errors import BuildError
from triptych.escape import ESCAPE
from triptych.files import atomic_write
from triptych_build.verify.drift import Drift
from triptych_build.verify.figures import RESAMPLES
from triptych_build.verify.latency import Latency
from triptych_build.verify.limits import Check, Gate, Outcome, latency_check, overall
from triptych_build.verify.metrics import Accuracy

NEXT_PRECISION = {"int8": "fp16", "fp16": "bf16 or fp32", "bf16": "fp32"}
STYLES = {"passed": None, "too few": "yellow", "refused": "bold red"}
STAGES_TITLE = "What each deployed stage costs alone"


NO_LABELS = "agreement with the source as Triptych decodes it, since there were no labels, and not accuracy"
"""What a gate on images alone is about."""


@dataclass(frozen=True)
class Report:
    """What the gate measured.

    Attributes:
        precision: what the deployed detector was built for.
        gate: the limits.
        checks: every figure with its limit.
        stages: what each stage costs; empty where no check of accuracy fails.
        drifted: the name of the stage that has drifted, or None.
        graph_loss: what the detector's graph loses in plain floats, in the points of `stages`; None if that was not
            measured.
        truth: what accuracy was measured against: "labels" or "source".
        images: number of images.
        class_names: names by class id.
        source: accuracy of the FP32 source; None without labels, where it is the truth itself.
        deployed: accuracy of the deployed ensemble.
        latency: the client's, one request at a time.
        machine: the CPU and the GPUs that it was measured on.
        date: ISO 8601, UTC.
        versions: of the software that took part, by name.
    """

    precision: str
    gate: Gate
    checks: tuple[Check, ...]
    stages: tuple[Drift, ...]
    drifted: str | None
    graph_loss: float | None
    truth: str
    images: int
    class_names: tuple[str, ...]
    source: Accuracy | None
    deployed: Accuracy
    latency: Latency
    machine: str
    date: str
    versions: dict[str, str]

    @property
    def outcome(self) -> Outcome:
        """The outcome of all checks together."""
        return overall(self.checks)

    @property
    def verdict(self) -> str:
        """The outcome in words."""
        return verdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Report:
        """Return the report that `to_dict` gave, as JSON keeps it."""
        fields = {name: value for name, value in document.items() if name not in ("passed", "outcome", "verdict")}
        checks = tuple(
            Check(**check | {"interval": tuple(check["interval"]) if check["interval"] else None})
            for check in document["checks"]
        )
        nested = {
            "gate": Gate(**document["gate"]),
            "checks": checks,
            "stages": tuple(Drift(**drift) for drift in document["stages"]),
            "class_names": tuple(document["class_names"]),
            "source": Accuracy.from_dict(document["source"]) if document["source"] else None,
            "deployed": Accuracy.from_dict(document["deployed"]),
            "latency": Latency(**document["latency"]),
        }
        return cls(**fields | nested)

    def with_latency(self, latency: Latency) -> Report:
        """Return the report with a latency that was measured anew."""
        check = latency_check(self.gate, latency)
        others = (old for old in self.checks if old.name != check.name)
        return replace(self, latency=latency, checks=(*others, check))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        outcome = {"passed": self.outcome == "passed", "outcome": self.outcome, "verdict": self.verdict}
        return outcome | asdict(self)

    def to_markdown(self) -> str:
        """Return a page to read."""
        lines = [f"# Verification: {self.outcome}", "", self.verdict, ""]
        lines += ["| check | measured | limit | |", "| --- | ---: | ---: | --- |"]
        lines += [f"| {' | '.join(_cells(check))} |" for check in self.checks]
        if self.stages:
            lines += ["", f"## {STAGES_TITLE}", "", "| stage | points lost | evidence |", "| --- | ---: | --- |"]
            lines += [f"| {drift.stage} | {drift.loss_points:.2f} | {drift.evidence} |" for drift in self.stages]
        lines += ["", "## Accuracy", "", "| | source | deployed |", "| --- | ---: | ---: |"]
        lines += [f"| {name} | {before} | {after} |" for name, before, after in self._accuracy_rows()]
        against = "the labels" if self.truth == "labels" else "the source's confident detections"
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        lines += [
            "",
            f"Measured against {against} on {self.images} images. Latency, one request at a time: {self.latency}.",
        ]
        if self.truth != "labels":
            lines += [f"This is {NO_LABELS}."]
        lines += [f"Intervals are from {RESAMPLES} resamples of the images.", ""]
        return "\n".join([*lines, f"{self.date}, {self.precision}, {self.machine}, {versions}.", ""])

    def _accuracy_rows(self) -> Iterator[tuple[str, str, str]]:
        """Yield name, source and deployed, in points."""

        def row(name: str, figure: Callable[[Accuracy], float]) -> tuple[str, str, str]:
            before = f"{100 * figure(self.source):.2f}" if self.source else ""
            return name, before, f"{100 * figure(self.deployed):.2f}"

        name = "mAP" if self.truth == "labels" else "agreement "
        yield row(f"{name}50-95", lambda measured: measured.map50_95)
        yield row(f"{name}50", lambda measured: measured.map50)
        yield row("precision", lambda measured: measured.precision)
        yield row("recall", lambda measured: measured.recall)
        for label in self.deployed.class_ap:
            yield row(f"AP50-95 of {self.class_names[label]}", lambda measured, label=label: measured.class_ap[label])  # type: ignore[misc]

    def raise_if_not_passed(self) -> None:
        """Raise the verdict unless it passed.

        Raises:
            BuildError: a check failed, or the images are too few to tell.
        """
        if self.outcome != "passed":
            raise BuildError(self.verdict)


def _cells(check: Check) -> tuple[str, str, str, str]:
    words = {"passed": "ok", "refused": "FAILED", "too few": "too few"}
    return check.name, check.measured_text, check.limit_text, "" if check.limit is None else words[check.outcome]


def verdict(report: Report) -> str:
    """Return the outcome in words: what failed, which stage has drifted and how, and what to do."""
    outcome = report.outcome
    if outcome == "passed":
        words = "passed: the deployed detector is within every limit of the gate"
        return words if report.truth == "labels" else f"{words}; {NO_LABELS}"
    decisive = [check for check in report.checks if check.outcome == outcome]
    reasons = "; ".join(
        f"{check.name} is {check.measured_text}, the limit is {check.limit_text}" for check in decisive[:2]
    )
    reasons += f"; and {len(decisive) - 2} more" if len(decisive) > 2 else ""
    noted = dict.fromkeys(check.note for check in report.checks if check.note and check.outcome in (outcome, "passed"))
    sentences = [f"{'refused' if outcome == 'refused' else 'too few images to tell'}: {reasons}", *noted]
    needed = max((check.needed for check in decisive), default=0)
    if needed:
        sentences.append(f"About {needed} images like these would tell")
    return ". ".join([*sentences, *_blame(report)])


def _blame(report: Report) -> Iterator[str]:
    """Yield which stage has drifted, how, and what to do, in sentences without a full stop."""
    if not report.stages:
        return
    drift = next((drift for drift in report.stages if drift.stage == report.drifted), None)
    if drift is None:
        yield f"No stage alone explains it, so look at how {DETECTION.name} joins them"
        yield f"Restore model_repository/{DETECTION.name}"
        return
    yield f"The stage that drifted is {drift.stage}, which alone loses {drift.loss_points:.1f} points: {drift.evidence}"
    if drift.stage == PREPROCESS.name:
        yield f"Restore model_repository/{drift.stage} or its options (order, placement, pad value)"
    elif drift.stage == POSTPROCESS.name:
        yield f"Restore model_repository/{drift.stage}"
    else:
        yield from _detector_remedy(report, drift.loss_points)


def _detector_remedy(report: Report, loss: float) -> Iterator[str]:
    """Yield whether the graph or its runtime lost it, and what to do."""
    if report.graph_loss is not None:
        in_floats = f"in plain floats the same graph loses {report.graph_loss:.1f}"
        runtime = f"the runtime on this machine ({report.machine})"
        if report.graph_loss >= loss / 2:
            yield f"The graph itself lost it, and not the runtime: {in_floats}"
        elif report.graph_loss > _limit(report):
            yield f"The graph alone loses too much, for {in_floats}, and {runtime} the rest"
        else:
            yield f"Not the graph lost it, for {in_floats}, but {runtime}"
            yield (
                "Serve it with another --target, or take another --precision here; or verify it on the machine that is "
                "to serve it. More calibration would not help"
            )
            return
    higher = f"take the next precision up, {NEXT_PRECISION.get(report.precision)}"
    if report.precision == "int8":
        yield (
            "Calibrate with more images like the ones it will get, leave sensitive layers in float (`--scan`, or "
            f"`--exclude`), or {higher}"
        )
    elif report.precision in NEXT_PRECISION:
        yield f"Exclude layers (`--exclude`), or {higher}"
    else:
        yield "Publish it again from the adapted ONNX"


def _limit(report: Report) -> float:
    """Return the limit of the loss that `stages` and `graph_loss` are about, that of the first refusal."""
    limits = (check.limit for check in report.checks if check.figure and check.outcome == "refused")
    return next(limits, None) or 0.0


def print_report(report: Report, console: Console) -> None:
    """Show a report on a terminal."""
    table = Table("check", "measured", "limit", "", title="Verification", title_justify="left")
    for column in table.columns[1:3]:
        column.justify = "right"
    for check in report.checks:
        table.add_row(*_cells(check), style=STYLES[check.outcome])
    console.print(table)
    if report.stages:
        costs = Table("stage", "points lost", "evidence", title=STAGES_TITLE, title_justify="left")
        costs.columns[1].justify = "right"
        for drift in report.stages:
            costs.add_row(drift.stage, f"{drift.loss_points:.2f}", drift.evidence)
        console.print(costs)


def write_report(report: Report, json_path: Path) -> None:
    """Write a report as JSON, and as a page with the same name that ends in .md."""
    with atomic_write(json_path.with_suffix(".md")) as aside:
        aside.write_text(report.to_markdown(), encoding="utf-8", errors=ESCAPE)
    with atomic_write(json_path) as aside:
        aside.write_text(json.dumps(report.to_dict(), indent=1) + "\n", encoding="utf-8")
