"""The gate's limits, and the checks that hold a deployed detector to them.

A loss is known only as well as the images tell. It is held to its limit as an interval: refused where all of it is
beyond the limit, passed where all of it is within, and too few to tell where the limit lies inside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from triptych_build.verify.figures import LOST, MAP, PRECISION, RECALL, SCORE, class_figure
from triptych_build.verify.matches import Reals

Outcome = Literal["passed", "refused", "too few"]

RISK = 0.05
"""How often chance alone may pass what is at its limit, and how often it may refuse it."""

LEAST_IMAGES = 20
"""With fewer images that show an object, resampling them says little, and the gate says nothing."""

CLASS_BOXES = 10
"""A class is held to its own limit if it has at least this many boxes, in at least this many images."""


@dataclass(frozen=True)
class Gate:
    """The limits that a new engine must pass.

    Attributes:
        map_points: most that mAP50-95 may lose against the source, in points of 100.
        class_points: most that the AP of a class may lose, in points, beyond chance.
        served_points: most that precision and recall may lose at the served score threshold, in points.
        score_points: most that the mean score of what the source detects may change, in points.
        agreement: without labels, least mAP50-95, precision and recall (0..1) against the source's own detections; and
            least mAP50-95 of a batch against its images alone.
        p95_ms: most that the 95th percentile of the client's latency may be; None has no limit.
    """

    map_points: float = 0.5
    class_points: float = 1.0
    served_points: float = 1.0
    score_points: float = 2.0
    agreement: float = 0.95
    p95_ms: float | None = None

    @classmethod
    def for_precision(cls, precision: str) -> Gate:
        """Return the limits of a precision: int8 may lose twice as much overall, but no more of a class."""
        return cls(map_points=1.0, served_points=2.0, score_points=4.0) if precision == "int8" else cls()


@dataclass(frozen=True)
class Check:
    """One measured figure and its limit.

    Attributes:
        name: what was measured, with its unit.
        measured: the figure.
        limit: what it is held against; None where there is no limit.
        outcome: whether it holds, or whether the images are too few to tell.
        interval: where the figure lies but for chance; None where chance has no part in it.
        figure: the loss that it is about, see `Yardstick.losses`; empty if it is no loss of accuracy.
        note: what else is to be said of it, a sentence without a full stop.
    """

    name: str
    measured: float
    limit: float | None
    outcome: Outcome
    interval: tuple[float, float] | None = None
    figure: str = ""
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether it holds."""
        return self.outcome == "passed"

    @property
    def measured_text(self) -> str:
        """The figure in words, with its interval where there is one."""
        if self.interval is None:
            return short(self.measured)
        return f"{short(self.measured)} ({short(self.interval[0])} to {short(self.interval[1])})"

    @property
    def limit_text(self) -> str:
        """The limit in words; empty if there is none."""
        return "" if self.limit is None else short(self.limit)


def short(value: float) -> str:
    """Return a figure with two decimals at most."""
    return f"{round(value, 2) + 0.0:g}"


def overall(checks: Sequence[Check]) -> Outcome:
    """Return the outcome of all checks together: one refusal refuses."""
    outcomes = {check.outcome for check in checks}
    return "refused" if "refused" in outcomes else "too few" if "too few" in outcomes else "passed"


def loss_checks(
    gate: Gate, losses: Mapping[str, Reals], truth: dict[str, Any], score_threshold: float, *, has_labels: bool
) -> list[Check]:
    """Check what is lost against the source.

    Args:
        gate: the limits.
        losses: of the deployed detector, see `Yardstick.losses`.
        truth: what they were measured against.
        score_threshold: the served one, for the names.
        has_labels: whether the truth is labels, and not the source's own detections.
    """
    least = 100 * (1 - gate.agreement)
    limits = {MAP: gate.map_points, PRECISION: gate.served_points, RECALL: gate.served_points}
    against = "" if has_labels else " against the source"
    at = f"{against} at score {score_threshold:g}"
    drop = "mAP50-95 drop" if has_labels else "agreement lost with the source, IoU 0.50 to 0.95"
    names = {MAP: drop, PRECISION: f"precision drop{at}", RECALL: f"recall drop{at}"}
    images = len(truth["images"])
    risk = NormalDist().inv_cdf(1 - RISK)
    checks = [
        _bounded(f"{name} (points)", losses[figure], limits[figure] if has_labels else least, figure, risk, images)
        for figure, name in names.items()
    ]
    change = f"change of the mean score{at} (points)"
    checks.append(_bounded(change, losses[SCORE], gate.score_points, SCORE, risk, images))
    lost = float(losses[LOST][0])
    checks.append(Check("classes no longer found", lost, 0, "refused" if lost else "passed", figure=LOST))
    return checks + _class_checks(gate.class_points if has_labels else least, losses, truth)


def _bounded(name: str, losses: Reals, limit: float, figure: str, deviations: float, images: int) -> Check:
    """Hold the whole interval of a loss [1 + resamples] to its limit."""
    measured, width = float(losses[0]), deviations * float(np.nanstd(losses[1:]))
    low, high = measured - width, measured + width
    outcome: Outcome = "refused" if low > limit else "passed" if high <= limit else "too few"
    needed = images * (width / max(abs(limit - measured), 1e-3)) ** 2
    note = f"About {_rounded_up(needed)} images like these would tell" if outcome == "too few" else ""
    return Check(name, measured, limit, outcome, (low, high), figure, note)


def _rounded_up(count: float) -> int:
    """Return a number of images to one significant digit."""
    step: int = 10 ** max(int(math.log10(max(count, 1))), 1)
    return math.ceil(count / step) * step


def _class_checks(limit: float, losses: Mapping[str, Reals], truth: dict[str, Any]) -> list[Check]:
    """Check each class that has enough boxes; what chance may explain passes, as small classes vary widely."""
    rows = [row for row in truth["annotations"] if not row["iscrowd"]]
    names = {category["id"]: category["name"] for category in truth["categories"]}
    boxes: dict[int, list[int]] = {}
    for row in rows:
        boxes.setdefault(row["category_id"], []).append(row["image_id"])
    enough = [label for label in sorted(boxes) if min(len(boxes[label]), len(set(boxes[label]))) >= CLASS_BOXES]
    checks = []
    for label in enough:
        values = losses[class_figure(label)]
        # The more classes are looked at, the more often chance would refuse one.
        width = NormalDist().inv_cdf(1 - RISK / len(enough)) * float(np.nanstd(values[1:]))
        measured = float(values[0])
        outcome: Outcome = "refused" if measured - width > limit else "passed"
        name = f"AP drop of {names[label]} (points, {len(boxes[label])} boxes)"
        interval = (measured - width, measured + width)
        checks.append(Check(name, measured, limit, outcome, interval, class_figure(label)))
    return checks


def images_check(truth: dict[str, Any]) -> Check:
    """Check that enough images show an object."""
    showing = len({row["image_id"] for row in truth["annotations"]})
    outcome: Outcome = "passed" if showing >= LEAST_IMAGES else "too few"
    note = "" if outcome == "passed" else f"Add images until {LEAST_IMAGES} show an object: fewer say too little"
    return Check("images that show an object (at least)", showing, LEAST_IMAGES, outcome, note=note)


def calibrated_check(shared: Sequence[str]) -> Check:
    """Check that no image is one that the ranges of int8 came from; `shared` names those that are."""
    some = ", ".join(shared[:3]) + (f" and {len(shared) - 3} more" if len(shared) > 3 else "")
    note = f"It was calibrated on images that it is verified with: {some}; take them out of one set" if shared else ""
    return Check("images that it was calibrated on", len(shared), 0, "refused" if shared else "passed", note=note)


def latency_check(gate: Gate, p95_ms: float) -> Check:
    """Check the client's p95 latency."""
    holds = gate.p95_ms is None or p95_ms <= gate.p95_ms
    return Check("p95 latency (ms)", p95_ms, gate.p95_ms, "passed" if holds else "refused")


def repeat_check(changed: int) -> Check:
    """Check that no image gave other bits when it was sent again."""
    return Check("change when sent again (images)", changed, 0, "refused" if changed else "passed")


def cut_check(cut: int, images: int) -> Check:
    """Say how many images were cut off at the detector's own thresholds; what that loses, the accuracy shows."""
    note = f"In {cut} of the images there is more than the detector gives: build it with more --candidates or --rows"
    return Check(f"cut off (of {images} images)", cut, None, "passed", note=note if cut else "")


def batch_check(gate: Gate, agreement: float) -> Check:
    """Check that a batch finds what its images find alone.

    A GPU may choose other kernels for another batch size, so a batch is held to agreement and not to the bit.
    """
    name = "agreement of a batch with its images alone (mAP50-95)"
    return Check(name, agreement, gate.agreement, "passed" if agreement >= gate.agreement else "refused")
