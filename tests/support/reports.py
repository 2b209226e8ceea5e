"""Reports of the gate with figures that nobody measured."""

from __future__ import annotations

from triptych_build.verify.drift import Drift
from triptych_build.verify.limits import Check, Gate
from triptych_build.verify.metrics import Accuracy
from triptych_build.verify.report import Report, verdict


def report(*checks: Check, stages: tuple[Drift, ...] = (), drifted: str | None = None) -> Report:
    """Return a report with these checks on figures that nobody measured."""
    measured = Accuracy(0.7, 0.9, 0.8, 0.85, {"cat": 0.7})
    return Report(
        passed=all(check.passed for check in checks),
        verdict=verdict(checks, stages, drifted, "int8"),
        drifted=drifted,
        precision="int8",
        gate=Gate.for_precision("int8"),
        checks=checks,
        truth="labels",
        images=40,
        source=measured,
        deployed=measured,
        latency_ms={"p50": 20.0, "p95": 25.5, "p99": 30.0},
        stages=stages,
        date="2026-11-25T17:00:00+00:00",
        versions={"triton": "2.51.0"},
    )
