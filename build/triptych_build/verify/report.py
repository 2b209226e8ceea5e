"""The gate's report: the verdict in words, a page in Markdown, tables for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from triptych.contract import DETECTION, POSTPROCESS, PREPROCESS
from triptych.errors import BuildError
from triptych.escape import ESCAPE
from triptych.files import atomic_write
from triptych_build.verify.drift import Drift
from triptych_build.verify.limits import CUT_OFF, Check, Gate, points, short
from triptych_build.verify.metrics import Accuracy

NEXT_PRECISION = {"int8": "fp16", "fp16": "bf16 or fp32", "bf16": "fp32"}
STAGES_TITLE = "What each deployed stage costs alone"


@dataclass(frozen=True)
class Report:
    """What the gate measured.

    Attributes:
        passed: whether every check holds.
        verdict: the outcome in words; where a stage has drifted, which one and what to do.
        drifted: that stage's name, or None.
        precision: what the deployed detector was built for.
        gate: the limits.
        checks: every figure with its limit.
        truth: what accuracy was measured against: "labels" or "source".
        images: number of images.
        source: accuracy of the FP32 source; None without labels, where it is the truth itself.
        deployed: accuracy of the deployed ensemble.
        latency_ms: percentiles of the client's latency, one request at a time.
        stages: what each stage costs; empty where no check of accuracy fails.
        date: ISO 8601, UTC.
        versions: of the software that took part, by name.
    """

    passed: bool
    verdict: str
    drifted: str | None
    precision: str
    gate: Gate
    checks: tuple[Check, ...]
    truth: str
    images: int
    source: Accuracy | None
    deployed: Accuracy
    latency_ms: dict[str, float]
    stages: tuple[Drift, ...]
    date: str
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)

    def to_markdown(self) -> str:
        """Return a page to read."""
        lines = [f"# Verification: {'passed' if self.passed else 'refused'}", "", self.verdict, ""]
        lines += ["| check | measured | limit | |", "| --- | ---: | ---: | --- |"]
        lines += [f"| {' | '.join(_cells(check))} |" for check in self.checks]
        if self.stages:
            lines += ["", f"## {STAGES_TITLE}", "", "| stage | points lost | evidence |", "| --- | ---: | --- |"]
            lines += [f"| {drift.stage} | {drift.loss_points:.2f} | {drift.evidence} |" for drift in self.stages]
        lines += ["", "## Accuracy", "", "| | source | deployed |", "| --- | ---: | ---: |"]
        lines += [f"| {name} | {before} | {after} |" for name, before, after in self._accuracy_rows()]
        against = "the labels" if self.truth == "labels" else "the source's confident detections"
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        latency = ", ".join(f"{name} {value:.1f} ms" for name, value in self.latency_ms.items())
        lines += ["", f"Measured against {against} on {self.images} images. Latency, one request at a time: {latency}."]
        return "\n".join([*lines, f"{self.date}, {self.precision}, {versions}.", ""])

    def _accuracy_rows(self) -> Iterator[tuple[str, str, str]]:
        """Yield name, source and deployed, in points."""
        titles = {"map50_95": "mAP50-95", "map50": "mAP50", "precision": "precision", "recall": "recall"}
        for figure in (*titles, *self.deployed.class_ap):
            before = f"{points(self.source, figure):.2f}" if self.source else ""
            yield titles.get(figure, f"AP50-95 of {figure}"), before, f"{points(self.deployed, figure):.2f}"

    def raise_if_refused(self) -> None:
        """Raise the verdict if it is a refusal.

        Raises:
            BuildError: a check failed.
        """
        if not self.passed:
            raise BuildError(self.verdict)


def _cells(check: Check) -> tuple[str, str, str, str]:
    outcome = "" if check.limit is None else "ok" if check.passed else "FAILED"
    return check.name, short(check.measured), check.limit_text, outcome


def verdict(checks: Sequence[Check], stages: Sequence[Drift], drifted: str | None, precision: str) -> str:
    """Return the outcome in words: what failed, which stage has drifted and how, and what to do.

    Args:
        checks: every figure with its limit.
        stages: what each deployed stage costs; empty where no check of accuracy fails.
        drifted: the name of the stage that has drifted, if one has.
        precision: what the deployed detector was built for; the next one up is named.
    """
    failed = [check for check in checks if not check.passed]
    if not failed:
        return "passed: the deployed detector is within every limit of the gate"
    reasons = "; ".join(
        f"{check.name} is {short(check.measured)}, the limit is {check.limit_text}" for check in failed[:2]
    )
    reasons += f"; and {len(failed) - 2} more" if len(failed) > 2 else ""
    for check in checks:
        if check.name.startswith(CUT_OFF) and check.measured:
            reasons += (
                f". In {check.measured:g} of the images there is more than the detector gives: "
                "build it with more --candidates or --rows"
            )
    for drift in stages:
        if drift.stage == drifted:
            return (
                f"refused: {reasons}. The stage that drifted is {drift.stage}, which alone loses "
                f"{drift.loss_points:.1f} points: {drift.evidence}. {_remedy(drift.stage, precision)}"
            )
    if stages:
        reasons += (
            f". No stage alone explains it, so look at how {DETECTION.name} joins them; "
            f"restore model_repository/{DETECTION.name}"
        )
    return f"refused: {reasons}"


def _remedy(stage: str, precision: str) -> str:
    if stage == PREPROCESS.name:
        return f"Restore model_repository/{stage} or its options (order, placement, pad value)"
    if stage == POSTPROCESS.name:
        return f"Restore model_repository/{stage}"
    if precision not in NEXT_PRECISION:
        return "Publish it again from the adapted ONNX"
    higher = f"the next precision up, {NEXT_PRECISION[precision]}"
    if precision == "int8":
        return (
            "Calibrate with more images like the ones it will get, leave sensitive layers in float (`--scan`, or "
            f"`--exclude`), or take {higher}"
        )
    return f"Exclude layers (`--exclude`), or take {higher}"


def print_report(report: Report, console: Console) -> None:
    """Show a report on a terminal."""
    table = Table("check", "measured", "limit", "", title="Verification", title_justify="left")
    for column in table.columns[1:3]:
        column.justify = "right"
    for check in report.checks:
        table.add_row(*_cells(check), style=None if check.passed else "bold red")
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
