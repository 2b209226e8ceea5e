"""`verify`: what is lost against the source, and how often chance alone passes or refuses what is at a limit."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from triptych_build.verify.figures import MAP, PRECISION, RECALL, SCORE, Yardstick
from triptych_build.verify.limits import RISK, Check, Gate, loss_checks
from triptych_build.verify.matches import at_threshold, match, score_changes
from triptych_build.verify.metrics import accuracy
from truth.claims import Experiment, Held
from truth.scenes import THRESHOLD, Detector, Scenes, draw

FIGURES = (MAP, PRECISION, RECALL, SCORE)
FOUR, RARE = Scenes(), Scenes(class_shares=(0.5, 0.3, 0.15, 0.05))

LONG_RUN = 4000
"""Images that the true losses are measured on."""


@lru_cache
def true_losses(scenes: Scenes, detector: Detector) -> Mapping[str, float]:
    """Return what is truly lost, in points, as so many images show it."""
    made = draw(scenes, detector, LONG_RUN, 4711)
    whole = np.ones((1, LONG_RUN), np.int64)
    before, after = (
        (accuracy(made.truth, one).map50_95, *np.ravel(at_threshold(match(made.truth, one), THRESHOLD, whole)))
        for one in (made.source, made.deployed)
    )
    changes = score_changes(made.source, made.deployed, THRESHOLD).values()
    sums, counts = (np.sum([one[column].sum() for one in changes]) for column in (0, 1))
    lost = dict(zip((MAP, PRECISION, RECALL), 100 * (np.array(before) - np.array(after)), strict=True))
    return lost | {SCORE: float(100 * abs(sums / counts))}


def measured(scenes: Scenes, detector: Detector, images: int, seed: int, gate: Gate) -> list[Check]:
    """Return the gate's checks of a detector on images of its own."""
    made = draw(scenes, detector, images, seed)
    losses = Yardstick(made.truth, made.source, THRESHOLD).losses(made.deployed)
    return loss_checks(gate, losses, made.truth, THRESHOLD, has_labels=True)


def at_its_limits(
    planted: str, detector: Detector, images: int, scenes: Scenes = FOUR, *, is_shared: bool = True
) -> Experiment:
    """A detector loses just what its limits allow: chance passes it rarely, and refuses it rarely.

    Args:
        planted: what, in words.
        detector: the detector.
        images: how many the gate has.
        scenes: what they show.
        is_shared: whether all boxes share the loss of mAP; the gate says nothing of one that befalls a few.
    """
    figures = [(figure, way) for figure in FIGURES for way in ("high", "low")]
    figures = [one for one in figures if is_shared or one != (MAP, "low")]

    def trial(seed: int) -> Held:
        lost = true_losses(scenes, detector)
        checks = {check.figure: check for check in measured(scenes, detector, images, seed, Gate())}
        held: dict[str, bool | None] = {}
        for figure, way in figures:
            low, high = checks[figure].interval or (0.0, 0.0)
            held[f"{figure}: not too {way}"] = low <= lost[figure] if way == "high" else high >= lost[figure]
        return held

    stated = {f"{figure}: not too {way}": 1 - RISK for figure, way in figures}
    return Experiment("verify", f"{planted}, {images} images", trial, stated)


EXPERIMENTS = [
    at_its_limits("1% of what is found is lost", Detector(loss=0.01), 30, is_shared=False),
    at_its_limits("5% of what is found is lost", Detector(loss=0.05), 30, is_shared=False),
    at_its_limits("5% of what is found is lost", Detector(loss=0.05), 100),
    at_its_limits("0.3 false ones more an image", Detector(gain=0.3), 30),
    at_its_limits("scores 0.02 lower, boxes 3% larger", Detector(score_change=-0.02, noise=0.03, grown=0.03), 30),
    at_its_limits("noise alone", Detector(noise=0.03, jitter_px=1), 30),
    at_its_limits("half of a rare class lost", Detector(loss=0.5, lost_class=3), 40, RARE, is_shared=False),
]
