"""What the build line made: one precision, its verdict and its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triptych_build.publish.layers import Layers
from triptych_build.quantize.precision import named

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
        layers: the precision of each of its layers.
        version: where it was published; None if the gate refused it.
    """

    precision: str
    model: Path
    calibration: dict[str, Any] | None
    report: dict[str, Any] | None = None
    version: Path | None = None
    graph: Path | None = None
    layers: Layers | None = None

    @property
    def passed(self) -> bool:
        """Whether it was not verified, or the gate let it pass."""
        return self.report is None or bool(self.report["passed"])

    @property
    def p50_ms(self) -> float:
        """Latency through the ensemble in this run, one request at a time; infinite if it was not measured."""
        return float(self.report["latency"]["p50_ms"]) if self.report else float("inf")

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
            "latency": report.get("latency"),
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
    by_precision = {one.precision: one for one in built}
    int8, fp16, fp32 = (by_precision.get(name) for name in ("int8", "fp16", "fp32"))
    if not int8:
        return []
    faster = [other for other in (fp16, fp32) if other and other.report and int8.report and other.p50_ms <= int8.p50_ms]
    sentences = [_slower(int8, faster)] if faster else []
    if fp16 and fp16.map50_95 is not None and int8.map50_95 is not None:
        lost = fp16.map50_95 - int8.map50_95
        if lost > NOTABLE_POINTS:
            sentences.append(
                f"int8 costs {lost:.2f} points of mAP50-95 against fp16: more calibration images, --scan or --exclude "
                "may win them back"
            )
    if fp32 and int8.model.suffix == ".onnx" and int8.megabytes > 0.9 * fp32.megabytes:
        sentences.append(
            "int8 is no smaller on disk than fp32: its weights stay in float32 beside their scales, as TensorRT wants "
            "them, and become int8 when the file is loaded"
        )
    return sentences


def _slower(int8: Built, faster: Sequence[Built]) -> str:
    """Return what int8 is slower than, and which of its layers stayed in floats."""
    others = " and ".join(f"{other.precision} ({other.p50_ms:.1f} ms)" for other in faster)
    best = min(faster, key=lambda other: other.p50_ms)
    sentence = f"int8 ({int8.p50_ms:.1f} ms) is no faster here than {others}: serve {best.precision}"
    if int8.layers is None:
        return sentence
    floats = int8.layers.outside("int8")
    if not floats:
        return f"{sentence}; all its {int8.layers.count} layers with weights run in int8"
    return f"{sentence}; {len(floats)} of its {int8.layers.count} layers with weights run in floats: {named(floats)}"
