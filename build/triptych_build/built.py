"""What the build line made: one precision, its verdict and its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OUTCOMES = {"passed": "passed", "refused": "refused", "too few": "has too few images to tell"}
"""The gate's outcomes in words."""

NOTABLE_POINTS = 0.5
"""int8 that loses more mAP50-95 than this against fp16 is remarked on."""


@dataclass
class Built:
    """One precision on its way through the line.

    Attributes:
        precision: its name.
        model: the file to publish: an ONNX or a plan.
        calibration: what the manifest says of the images that its ranges came from; None without any.
        report: the gate's, as plain values; None if there was nothing to verify with.
        graph: the ONNX that it is, or was built from.
        version: where it was published; None if the gate refused it.
    """

    precision: str
    model: Path
    calibration: dict[str, Any] | None
    report: dict[str, Any] | None = None
    version: Path | None = None
    graph: Path | None = None

    @property
    def passed(self) -> bool:
        """Whether it was not verified, or the gate let it pass."""
        return self.report is None or bool(self.report["passed"])

    @property
    def p50_ms(self) -> float:
        """Latency through the ensemble in this run, one request at a time; infinite if it was not measured."""
        return float(self.report["latency_ms"]["p50"]) if self.report else float("inf")

    @property
    def map50_95(self) -> float | None:
        """The deployed detector's mAP50-95 in points of 100; None if it was not measured."""
        return 100 * float(self.report["deployed"]["map50_95"]) if self.report else None

    @property
    def megabytes(self) -> float:
        """Size of the file to publish, in 10^6 bytes."""
        return self.model.stat().st_size / 1e6

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        report = self.report or {}
        return {
            "precision": self.precision,
            "version": int(self.version.name) if self.version else None,
            "directory": str(self.version) if self.version else None,
            "megabytes": self.megabytes,
            "map50_95": self.map50_95,
            "latency_ms": report.get("latency_ms"),
            "passed": report.get("passed"),
            "verdict": report.get("verdict"),
        }


def refusal(built: Sequence[Built], *, force: bool) -> str:
    """Return what the gate refused, what became of it, and why; empty if it refused nothing."""
    outcome = "was published all the same, as --force says" if force else "was not published"
    return "; ".join(
        f"{one.precision} {outcome}: {one.report['verdict'].removeprefix('refused: ')}"
        for one in built
        if one.report and not one.passed
    )


def remarks(built: Sequence[Built]) -> list[str]:
    """Return a sentence for each reason why int8 is not worth it here."""
    verified = {one.precision: one for one in built if one.report}
    int8, fp16 = verified.get("int8"), verified.get("fp16")
    if not int8 or not fp16 or int8.map50_95 is None or fp16.map50_95 is None:
        return []
    sentences = []
    if int8.p50_ms >= fp16.p50_ms:
        sentences.append(
            f"int8 is no faster than fp16 here ({int8.p50_ms:.1f} against {fp16.p50_ms:.1f} ms): serve fp16"
        )
    lost = fp16.map50_95 - int8.map50_95
    if lost > NOTABLE_POINTS:
        sentences.append(
            f"int8 costs {lost:.2f} points of mAP50-95 against fp16: more calibration images, --scan or --exclude "
            "may win them back"
        )
    return sentences
