"""The gate's limits, and the checks that hold a deployed detector to them.

A loss is known only as well as the images tell. It is held to its limit as an interval: refused where all of it is
beyond the limit, passed where all of it is within, and too few to tell where the limit lies inside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from triptych.contract import IOU_THRESHOLD, SCORE_THRESHOLD, DetectorSpec
from triptych_build.verify.figures import LOST, MAP, PRECISION, RECALL, SCORE, class_figure, score_figure
from triptych_build.verify.latency import Latency
from triptych_build.verify.matches import Reals

Outcome = Literal["passed", "refused", "too few"]

RISK = 0.05
"""How often chance alone may pass what is at its limit, and how often it may refuse it.

That of mAP is of losses that all boxes share; what befalls a few boxes is held by precision and recall.
"""

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
        score_points: most that the mean score of what the source detects may change, in points; and that of a class,
            beyond chance.
        agreement: without labels, least mAP50-95, precision and recall (0..1) against the source's own detections; and
            least mAP50-95 of a batch against its images alone.
        p95_ms: most that the 95th percentile of the client's latency may be, by its upper bound; None has no limit.
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
        needed: about how many images would tell, where these are too few; 0 where nobody knows.
    """

    name: str
    measured: float
    limit: float | None
    outcome: Outcome = "passed"
    interval: tuple[float, float] | None = None
    figure: str = ""
    note: str = ""
    needed: int = 0

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
    one_box = 100 / max(sum(not row["iscrowd"] for row in truth["annotations"]), 1)
    deviations, both_ways = NormalDist().inv_cdf(1 - RISK), NormalDist().inv_cdf(1 - RISK / 2)
    checks = [
        _bounded(
            Check(f"{name} (points)", float(losses[figure][0]), limits[figure] if has_labels else least, figure=figure),
            _Chance(float(np.nanstd(losses[figure][1:])), deviations, 0.0 if figure == MAP else one_box, images),
        )
        for figure, name in names.items()
    ]
    change = Check(f"change of the mean score{at} (points)", float(losses[SCORE][0]), gate.score_points, figure=SCORE)
    checks.append(_bounded(change, _Chance(float(np.nanstd(losses[SCORE][1:])), both_ways, 0.0, images)))
    lost = float(losses[LOST][0])
    checks.append(Check("classes no longer found", lost, 0, "refused" if lost else "passed", figure=LOST))
    return checks + _class_checks(gate.class_points if has_labels else least, gate.score_points, losses, truth)


@dataclass(frozen=True)
class _Chance:
    """What chance does to a figure of some images.

    Attributes:
        deviation: of the figure over resamples of the images.
        deviations: to how many of them the interval reaches on each side.
        one_box: what one box more or less would change, in points; 0 for a figure that moves with all of them.
        images: how many there are.
    """

    deviation: float
    deviations: float
    one_box: float
    images: int

    def width(self, times: float = 1.0) -> float:
        """Return how far the interval reaches on each side, with so many times as many images.

        Resamples of images in which nothing is lost lose nothing, and of few losses they show too little. So what one
        box weighs widens the interval as in Wilson's for a share (JASA 1927): of n boxes of which none is lost, up to
        2.7 / n may be.
        """
        shift = self.deviations * self.one_box / (2 * times)
        return self.deviations * (shift + math.hypot(self.deviation / math.sqrt(times), shift))

    def images_to_tell(self, distance: float) -> float:
        """Return about how many images would make the interval as narrow as that."""
        times = 1.0
        while self.width(times) > distance:
            times *= 1.05
        return times * self.images


def _bounded(check: Check, chance: _Chance) -> Check:
    """Hold the whole interval of a loss to its limit."""
    assert check.limit is not None
    low, high = check.measured - chance.width(), check.measured + chance.width()
    outcome: Outcome = "refused" if low > check.limit else "passed" if high <= check.limit else "too few"
    needed = 0
    if outcome == "too few":
        needed = _rounded_up(chance.images_to_tell(max(abs(check.limit - check.measured), 1e-3)))
    return replace(check, outcome=outcome, interval=(low, high), needed=needed)


def _rounded_up(count: float) -> int:
    """Return a number of images to one significant digit."""
    step: int = 10 ** max(int(math.log10(max(count, 1))), 1)
    return math.ceil(count / step) * step


def _class_checks(
    ap_limit: float, score_limit: float, losses: Mapping[str, Reals], truth: dict[str, Any]
) -> list[Check]:
    """Check each class that has enough boxes; what chance may explain passes, as small classes vary widely."""
    rows = [row for row in truth["annotations"] if not row["iscrowd"]]
    names = {category["id"]: category["name"] for category in truth["categories"]}
    boxes: dict[int, list[int]] = {}
    for row in rows:
        boxes.setdefault(row["category_id"], []).append(row["image_id"])
    enough = [label for label in sorted(boxes) if min(len(boxes[label]), len(set(boxes[label]))) >= CLASS_BOXES]
    asked = [(label, class_figure(label), f"AP drop of {names[label]}", ap_limit) for label in enough]
    asked += [
        (label, score_figure(label), f"change of the mean score of {names[label]}", score_limit)
        for label in enough
        if score_figure(label) in losses
    ]
    checks = []
    for label, figure, what, limit in asked:
        # The more classes are looked at, the more often chance would refuse one.
        width = NormalDist().inv_cdf(1 - RISK / len(enough)) * float(np.nanstd(losses[figure][1:]))
        measured = float(losses[figure][0])
        outcome: Outcome = "refused" if measured - width > limit else "passed"
        interval = (measured - width, measured + width)
        checks.append(Check(f"{what} (points, {len(boxes[label])} boxes)", measured, limit, outcome, interval, figure))
    return checks


def images_check(truth: dict[str, Any], files: Sequence[bytes]) -> Check:
    """Check that enough images show an object; copies of a file are one image, however many resamples hold them.

    Args:
        truth: what was measured against.
        files: the images, in its order.
    """
    of_images = {image["id"]: file for image, file in zip(truth["images"], files, strict=True)}
    showing = len({of_images[row["image_id"]] for row in truth["annotations"]})
    outcome: Outcome = "passed" if showing >= LEAST_IMAGES else "too few"
    note = "" if outcome == "passed" else f"Add images until {LEAST_IMAGES} show an object: fewer say too little"
    return Check("different images that show an object (at least)", showing, LEAST_IMAGES, outcome, note=note)


def calibrated_check(shared: Sequence[str]) -> Check:
    """Check that no image is one that the ranges of int8 came from; `shared` names those that are."""
    some = ", ".join(shared[:3]) + (f" and {len(shared) - 3} more" if len(shared) > 3 else "")
    note = f"It was calibrated on images that it is verified with: {some}; take them out of one set" if shared else ""
    return Check("images that it was calibrated on", len(shared), 0, "refused" if shared else "passed", note=note)


def defaults_check(source: DetectorSpec, served: DetectorSpec) -> Check:
    """Check that who asks for no thresholds gets those of the source, at which all the others are measured."""
    others = [
        f"{name} {getattr(served, name):g} in place of {getattr(source, name):g}"
        for name in (SCORE_THRESHOLD, IOU_THRESHOLD)
        if getattr(served, name) != getattr(source, name)
    ]
    note = f"It is served with {' and '.join(others)}; adapt the source with those, or publish it again"
    outcome: Outcome = "refused" if others else "passed"
    return Check("default thresholds that differ", len(others), 0, outcome, note=note if others else "")


def latency_check(gate: Gate, latency: Latency) -> Check:
    """Check the client's p95 latency: it passes if it is shown to be within its limit."""
    at_most_ms, limit = latency.p95_at_most_ms, gate.p95_ms
    note = ""
    if limit is not None and latency.p95_ms <= limit:
        if at_most_ms is None:
            note = f"T{latency.too_few[1:]}"
        elif at_most_ms > limit:
            note = f"With 99% confidence it is at most {short(at_most_ms)} ms, and that has to be within the limit"
    holds = limit is None or (latency.p95_ms <= limit and not note)
    return Check("p95 latency (ms)", latency.p95_ms, limit, "passed" if holds else "refused", note=note)


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
    name = "agreement of a batch with its images alone, IoU 0.50 to 0.95"
    return Check(name, agreement, gate.agreement, "passed" if agreement >= gate.agreement else "refused")
