"""Reports of the gate with figures that nobody measured."""

from __future__ import annotations

from triptych_build.verify.drift import Drift
from triptych_build.verify.latency import Latency
from triptych_build.verify.limits import Check, Gate
from triptych_build.verify.metrics import Accuracy
from triptych_build.verify.report import Report


def report(
    *checks: Check,
    stages: tuple[Drift, ...] = (),
    drifted: str | None = None,
    graph_loss: float | None = None,
    precision: str = "int8",
) -> Report:
    """Return a report with these checks on figures that nobody measured."""
    measured = Accuracy(0.7, 0.9, 0.8, 0.85, {0: 0.7})
    return Report(
        precision=precision,
        gate=Gate.for_precision(precision),
        checks=checks,
        stages=stages,
        drifted=drifted,
        graph_loss=graph_loss,
        truth="labels",
        images=40,
        class_names=("cat",),
        source=measured,
        deployed=measured,
        latency=Latency(130, 20.0, 25.5, 28.0),
        machine="AMD EPYC",
        date="2026-11-25T17:00:00+00:00",
        versions={"triton": "2.51.0"},
    )
