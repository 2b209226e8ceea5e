"""The gate's limits, and the checks that hold a deployed detector to them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from triptych_build.verify.metrics import Accuracy

TOP_CLASSES = 5
TOP_CLASS_BOXES = 50
"""A class is held to its own limit if it is among the 5 with the most ground truth and has at least 50 boxes."""

CHANCE_POINTS = 12.0
"""A class's limit grows by this over the root of its boxes: what two standard deviations of chance move its AP.

Measured with the demo detector in int8 on parts of 160 held-out boards: 1.29 points at 21 boxes, 0.77 at 41.
"""


CUT_OFF = "cut off"
"""How the name of the check begins that counts images with more candidates or objects than the detector gives."""


@dataclass(frozen=True)
class Gate:
    """The limits that a new engine must pass.

    Attributes:
        map_points: most that mAP50-95 may lose against the source, in points of 100.
        class_points: most that the AP of a top class may lose in points, beyond chance (`CHANCE_POINTS`).
        agreement: least mAP50 (0..1) against the source's confident detections, where there are no labels; also of a
            batch against its images alone.
        p95_ms: most that the 95th percentile of the client's latency may be; None has no limit.
    """

    map_points: float = 0.5
    class_points: float = 1.0
    agreement: float = 0.95
    p95_ms: float | None = None

    @classmethod
    def for_precision(cls, precision: str) -> Gate:
        """Return the limits of a precision: int8 may lose twice as much of mAP50-95, but no more of a class."""
        return cls(map_points=1.0) if precision == "int8" else cls()


@dataclass(frozen=True)
class Check:
    """One measured figure and its limit.

    Attributes:
        name: what was measured, with its unit.
        measured: the figure.
        limit: what it is held against; None where there is no limit.
        passed: whether it holds.
        chance: how much of the limit allows for chance.
        figure: the field of `Accuracy` or the class that it is about, see `points`; empty if it is not an accuracy.
    """

    name: str
    measured: float
    limit: float | None
    passed: bool
    chance: float = 0.0
    figure: str = ""

    @property
    def limit_text(self) -> str:
        """The limit in words, with its two parts where one allows for chance; empty if there is none."""
        if self.limit is None:
            return ""
        if not self.chance:
            return short(self.limit)
        return f"{round(self.limit - self.chance, 2)} + {short(self.chance)} chance"


def short(value: float) -> str:
    """Return a figure with two decimals at most."""
    return f"{round(value, 2) + 0.0:g}"


def points(measured: Accuracy, figure: str) -> float:
    """Return a figure of `Accuracy`, a field's or a class's name, in points of 100."""
    return 100 * float(measured.class_ap[figure] if figure in measured.class_ap else getattr(measured, figure))


def accuracy_checks(gate: Gate, before: Accuracy, after: Accuracy, truth: dict[str, Any]) -> list[Check]:
    """Check what is lost of mAP50-95, and of the AP of each top class."""

    def check(name: str, figure: str, limit: float, chance: float = 0.0) -> Check:
        drop = points(before, figure) - points(after, figure)
        return Check(name, drop, limit + chance, drop <= limit + chance, chance, figure)

    names = {category["id"]: category["name"] for category in truth["categories"]}
    counts = Counter(names[row["category_id"]] for row in truth["annotations"] if not row["iscrowd"])
    top = [(name, count) for name, count in counts.most_common(TOP_CLASSES) if count >= TOP_CLASS_BOXES]
    return [check("mAP50-95 drop (points)", "map50_95", gate.map_points)] + [
        check(f"AP drop of {name} (points, {count} boxes)", name, gate.class_points, CHANCE_POINTS / math.sqrt(count))
        for name, count in top
    ]


def agreement_check(gate: Gate, after: Accuracy) -> Check:
    """Check how well the deployed detector agrees with the source, where there are no labels."""
    passed = after.map50 >= gate.agreement
    return Check("agreement with the source (mAP50)", after.map50, gate.agreement, passed, figure="map50")


def latency_check(gate: Gate, p95_ms: float) -> Check:
    """Check the client's p95 latency."""
    return Check("p95 latency (ms)", p95_ms, gate.p95_ms, gate.p95_ms is None or p95_ms <= gate.p95_ms)


def repeat_check(changed: int) -> Check:
    """Check that no image gave other bits when it was sent again."""
    return Check("change when sent again (images)", changed, 0, changed == 0)


def cut_check(cut: int, images: int) -> Check:
    """Say how many images were cut off at the detector's own thresholds; what that loses, the accuracy shows."""
    return Check(f"{CUT_OFF} (of {images} images)", cut, None, True)


def batch_check(gate: Gate, agreement: float) -> Check:
    """Check that a batch finds what its images find alone.

    A GPU may choose other kernels for another batch size, so a batch is held to agreement and not to the bit.
    """
    name = "agreement of a batch with its images alone (mAP50)"
    return Check(name, agreement, gate.agreement, agreement >= gate.agreement)
