"""What the gate of a deployed detector allows and found: limits, checks, and the report as table, page and JSON."""

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
from triptych.files import atomic_write
from triptych_build.verify.drift import Drift
from triptych_build.verify.metrics import Accuracy

NEXT_PRECISION = {"int8": "fp16", "fp16": "bf16 or fp32", "bf16": "fp32"}


@dataclass(frozen=True)
class Gate:
    """What a deployed detector must hold.

    Attributes:
        map_points: most that mAP50-95 may lose against the source, in points of 100.
        class_points: most that the AP of a top class may lose, likewise, beyond chance (`verify.CHANCE_POINTS`).
        agreement: without labels, least mAP50 against the source's confident detections; and of a batch against its
            images alone. 0..1.
        p95_ms: most that the 95th percentile of the client's latency may be; None has no limit.
    """

    map_points: float = 0.5
    class_points: float = 1.0
    agreement: float = 0.95
    p95_ms: float | None = None

    @classmethod
    def for_precision(cls, precision: str) -> Gate:
        """The limits of a precision: int8 may lose twice as much of mAP50-95, but no more of a class."""
        return cls(map_points=1.0) if precision == "int8" else cls()


@dataclass(frozen=True)
class Check:
    """One measured figure and its limit.

    Attributes:
        name: what was measured, with its unit.
        measured: the figure.
        limit: what it is held against; None is not held against anything.
        passed: whether it holds.
        chance: how much of the limit allows for chance.
        figure: what of `Accuracy` it is about, see `points`; empty for what is no accuracy.
    """

    name: str
    measured: float
    limit: float | None
    passed: bool
    chance: float = 0.0
    figure: str = ""

    @property
    def limit_told(self) -> str:
        """The limit in words: what it is made of, where a part of it allows for chance; empty if there is none."""
        if self.limit is None:
            return ""
        if not self.chance:
            return _shown(self.limit)
        return f"{round(self.limit - self.chance, 2)} + {_shown(self.chance)} chance"


@dataclass(frozen=True)
class Report:
    """What the gate found.

    Attributes:
        passed: whether every check holds.
        verdict: the outcome in words; where a stage has drifted, which and what to do.
        drifted: that stage's name, or None.
        precision: what the deployed detector was built for.
        gate: the limits.
        checks: every figure with its limit.
        truth: what accuracy was measured against: "labels" or "source".
        images: number of images.
        source: accuracy of the FP32 source; None without labels, as it is the truth itself then.
        deployed: accuracy of the deployed ensemble.
        latency_ms: percentiles of the client's latency, one request at a time.
        stages: what each stage costs; empty where no check of accuracy fails.
        date: ISO 8601, UTC.
        versions: of what took part, by name.
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
        """As plain values, for JSON."""
        return asdict(self)

    def to_markdown(self) -> str:
        """As a page to read."""
        lines = [f"# Verification: {'passed' if self.passed else 'refused'}", "", self.verdict, ""]
        lines += ["| check | measured | limit | |", "| --- | ---: | ---: | --- |"]
        lines += [f"| {' | '.join(_cells(check))} |" for check in self.checks]
        if self.stages:
            lines += ["", "## What each deployed stage costs alone", "", "| stage | points lost | evidence |"]
            lines += ["| --- | ---: | --- |"]
            lines += [f"| {drift.stage} | {drift.loss_points:.2f} | {drift.evidence} |" for drift in self.stages]
        lines += ["", "## Accuracy", "", "| | source | deployed |", "| --- | ---: | ---: |"]
        lines += [f"| {name} | {before} | {after} |" for name, before, after in self._accuracy_rows()]
        against = "the labels" if self.truth == "labels" else "what the source finds with confidence"
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        latency = ", ".join(f"{name} {value:.1f} ms" for name, value in self.latency_ms.items())
        lines += ["", f"Measured against {against} on {self.images} images. Latency, one request at a time: {latency}."]
        return "\n".join([*lines, f"{self.date}, {self.precision}, {versions}.", ""])

    def _accuracy_rows(self) -> Iterator[tuple[str, str, str]]:
        """Name, source and deployed, in points."""
        titles = {"map50_95": "mAP50-95", "map50": "mAP50", "precision": "precision", "recall": "recall"}
        for figure in (*titles, *self.deployed.class_ap):
            before = f"{points(self.source, figure):.2f}" if self.source else ""
            yield titles.get(figure, f"AP50-95 of {figure}"), before, f"{points(self.deployed, figure):.2f}"

    def raise_if_refused(self) -> None:
        """Raise what went wrong.

        Raises:
            BuildError: a check failed; the message is the verdict.
        """
        if not self.passed:
            raise BuildError(self.verdict)


def _cells(check: Check) -> tuple[str, str, str, str]:
    outcome = "" if check.limit is None else "ok" if check.passed else "FAILED"
    return check.name, _shown(check.measured), check.limit_told, outcome


def _shown(value: float) -> str:
    return f"{round(value, 2) + 0.0:g}"


def points(measured: Accuracy, figure: str) -> float:
    """A figure of `Accuracy`, a field's or a class's name, in points of 100."""
    return 100 * (measured.class_ap[figure] if figure in measured.class_ap else getattr(measured, figure))


def verdict(checks: Sequence[Check], stages: Sequence[Drift], drifted: str | None, precision: str) -> str:
    """The outcome in words: what failed, which stage has drifted and how, and what to do.

    Args:
        checks: every figure with its limit.
        stages: what each deployed stage costs; empty where no check of accuracy fails.
        drifted: the name of the one that has drifted, if one has.
        precision: what the deployed detector was built for; the next one up is named.
    """
    failed = [check for check in checks if not check.passed]
    if not failed:
        return "passed: the deployed detector holds every limit of the gate"
    told = "; ".join(f"{check.name} is {_shown(check.measured)}, the limit {check.limit_told}" for check in failed[:2])
    told += f"; and {len(failed) - 2} more" if len(failed) > 2 else ""
    for drift in stages:
        if drift.stage == drifted:
            return (
                f"refused: {told}. The stage that drifted is {drift.stage}, which alone loses {drift.loss_points:.1f} "
                f"points: {drift.evidence}. {_way_back(drift.stage, precision)}"
            )
    if stages:
        told += (
            f". No stage alone explains it, so look at how {DETECTION.name} joins them; "
            f"restore model_repository/{DETECTION.name}"
        )
    return f"refused: {told}"


def _way_back(stage: str, precision: str) -> str:
    if stage == PREPROCESS.name:
        return f"Restore model_repository/{stage} or its options (order, placement, pad value)"
    if stage == POSTPROCESS.name:
        return f"Restore model_repository/{stage}"
    if precision not in NEXT_PRECISION:
        return "Publish it again from the adapted ONNX"
    higher = f"the next precision up, {NEXT_PRECISION[precision]}"
    if precision == "int8":
        return (
            "Calibrate with more images like those it will see, leave sensitive layers in float (`--scan`, or "
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
        costs = Table(
            "stage", "points lost", "evidence", title="What each deployed stage costs alone", title_justify="left"
        )
        costs.columns[1].justify = "right"
        for drift in report.stages:
            costs.add_row(drift.stage, f"{drift.loss_points:.2f}", drift.evidence)
        console.print(costs)


def write_report(report: Report, directory: Path) -> None:
    """Write `report.json` and `report.md` into a directory, which is made if need be."""
    with atomic_write(directory / "report.json") as aside:
        aside.write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
    with atomic_write(directory / "report.md") as aside:
        aside.write_text(report.to_markdown(), encoding="utf-8")
