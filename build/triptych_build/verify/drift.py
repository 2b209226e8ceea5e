"""Which deployed stage has drifted: each is put alone into the reference pipeline, and what that costs is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from triptych.contract import DETECTOR, POSTPROCESS, PREPROCESS
from triptych.vision.boxes import iou_xyxy
from triptych_build.verify.metrics import Floats, Predictions
from triptych_build.verify.reference import Stages


@dataclass(frozen=True)
class Drift:
    """What one deployed stage costs in the reference pipeline.

    Attributes:
        stage: its model's name.
        loss_points: what accuracy loses, in the points of the gate.
        evidence: how its own output differs, in words.
    """

    stage: str
    loss_points: float
    evidence: str


class Compared(NamedTuple):
    """One image through each deployed stage alone: what the pipeline detects then, and how the stage's output differs.

    Attributes:
        predictions: by stage, what the pipeline detects with that one deployed stage.
        levels: mean absolute difference of the pixels, in levels of 0..255.
        levels_swapped: the same with red and blue of the deployed pixels swapped.
        is_moved: whether the geometry differs.
        confident: the source's candidates at the detector's own threshold.
        matched: how many of them the deployed detector has too: IoU 0.5 or more, same class.
        score_change: sum over `matched` of the deployed score minus the source's.
        boxes: boxes of the reference postprocess.
        missing: how many of them the deployed postprocess lacks.
        corner_px: the largest difference between the corners of boxes that both have.
    """

    predictions: dict[str, Predictions]
    levels: float
    levels_swapped: float
    is_moved: bool
    confident: int
    matched: int
    score_change: float
    boxes: int
    missing: int
    corner_px: float


def compare_stages(
    reference: Stages, served: Stages, encoded: bytes, candidates: Floats, score_threshold: float
) -> Compared:
    """Send one image through each deployed stage alone.

    Args:
        reference: the pipeline of the source.
        served: the deployed stages.
        encoded: the image file's bytes.
        candidates: float32 [K, 6], the source's candidates for it.
        score_threshold: candidates of the source count as confident from here on, 0..1.

    Raises:
        BuildError: the image cannot be read, or a deployed model does not answer.
    """
    pixels, geometry = reference.preprocess(encoded)
    served_pixels, served_geometry = served.preprocess(encoded)
    served_candidates = served.detector(pixels)
    expected, boxes = reference.postprocess(candidates, geometry), served.postprocess(candidates, geometry)
    confident = candidates[candidates[:, 4] >= score_threshold]
    change = _score_change(confident, served_candidates)
    missing, corner_px = _corners(expected, boxes)
    levels = pixels.astype(np.int16)
    return Compared(
        predictions={
            PREPROCESS.name: reference.postprocess(reference.detector(served_pixels), served_geometry),
            DETECTOR.name: reference.postprocess(served_candidates, geometry),
            POSTPROCESS.name: boxes,
        },
        levels=float(np.abs(levels - served_pixels).mean()),
        levels_swapped=float(np.abs(levels - served_pixels[..., ::-1]).mean()),
        is_moved=not np.allclose(geometry, served_geometry, rtol=1e-4, atol=0.01),
        confident=len(confident),
        matched=len(change),
        score_change=float(change.sum()),
        boxes=len(expected.scores),
        missing=missing,
        corner_px=corner_px,
    )


def _score_change(confident: Floats, served: Floats) -> Floats:
    """Return, for each confident candidate that has a match, the score of its best match minus its own."""
    overlaps = iou_xyxy(confident[:, :4], served[:, :4]) * (confident[:, 5:6] == served[:, 5])
    has_match = overlaps.max(1, initial=0) >= 0.5
    change: Floats = served[overlaps[has_match].argmax(1), 4] - confident[has_match, 4]
    return change


def _corners(expected: Predictions, boxes: Predictions) -> tuple[int, float]:
    """Return how many boxes are missing, and how far off the others are; equal scores tell which box is which."""
    same = (expected.scores[:, None] == boxes.scores) & (expected.labels[:, None] == boxes.labels)
    there = same.any(1)
    if not there.any():
        return len(there), 0.0
    distance = np.abs(expected.boxes_xyxy[:, None] - boxes.boxes_xyxy).max(2)
    nearest = np.where(same, distance, np.inf).min(1)
    return int((~there).sum()), float(nearest[there].max())


def costs(rows: Sequence[Compared], loss: Callable[[Sequence[Predictions]], float]) -> tuple[Drift, ...]:
    """Return what each deployed stage costs alone, with evidence.

    Args:
        rows: one for each image.
        loss: returns the points that accuracy loses with these predictions, one for each image.
    """
    evidence = {
        PREPROCESS.name: _pixels_evidence(rows),
        DETECTOR.name: _candidates_evidence(rows),
        POSTPROCESS.name: _boxes_evidence(rows),
    }
    return tuple(Drift(stage, loss([row.predictions[stage] for row in rows]), text) for stage, text in evidence.items())


def drifted_stage(stages: Sequence[Drift], loss_points: float) -> str | None:
    """Return the stage that alone costs the most, if that is more than a quarter of the whole loss."""
    worst = max(stages, key=lambda drift: drift.loss_points)
    return worst.stage if worst.loss_points > max(loss_points / 4, 0) else None


def _pixels_evidence(rows: Sequence[Compared]) -> str:
    levels, swapped = (float(np.mean([getattr(row, name) for row in rows])) for name in ("levels", "levels_swapped"))
    text = f"its pixels differ by {levels:.2f} levels of 255 on average"
    if levels > 1 and swapped < levels / 2:
        text += f", by {swapped:.2f} with red and blue swapped: the channels are in the other order"
    if any(row.is_moved for row in rows):
        text += "; the image lies elsewhere in the letterbox"
    return text


def _candidates_evidence(rows: Sequence[Compared]) -> str:
    confident, matched = (sum(getattr(row, name) for row in rows) for name in ("confident", "matched"))
    change = sum(row.score_change for row in rows) / max(matched, 1)
    return (
        f"from the same pixels it finds {matched} of the source's {confident} confident candidates "
        f"({matched / max(confident, 1):.1%}), whose scores change by {round(change, 3) + 0.0:+.3f} on average"
    )


def _boxes_evidence(rows: Sequence[Compared]) -> str:
    boxes, missing = sum(row.boxes for row in rows), sum(row.missing for row in rows)
    return (
        f"from the same candidates its boxes are up to {max(row.corner_px for row in rows):.1f} px off, "
        f"and {missing} of {boxes} {'is' if missing == 1 else 'are'} missing"
    )
