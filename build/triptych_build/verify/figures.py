"""The gate's figures of a detector, over the whole set and over resamples of its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from triptych_build.verify.matches import (
    ClassMatches,
    Counts,
    Reals,
    at_threshold,
    average_precisions,
    match,
    resamples,
    score_changes,
)
from triptych_build.verify.metrics import Predictions

RESAMPLES = 200

MAP, PRECISION, RECALL, SCORE, LOST = "map50_95", "precision", "recall", "score", "lost classes"

LEAST_FOUND = 3
"""A class counts as lost if the source finds at least this many of its boxes, and the deployed detector none."""


def class_figure(label: int) -> str:
    """Return the name of a class's AP."""
    return f"AP of class {label}"


def score_figure(label: int) -> str:
    """Return the name of by how much a class's mean score changes."""
    return f"score of class {label}"


@dataclass(frozen=True)
class Yardstick:
    """What detections are held against, so that all of them get the same figures over the same resamples.

    Attributes:
        truth: a COCO document: the labels, or the source's own detections.
        source: what the source detects, one for each image.
        score_threshold: the one that the detector is served with, 0..1.
    """

    truth: dict[str, Any]
    source: Sequence[Predictions]
    score_threshold: float

    @cached_property
    def times(self) -> Counts:
        """How often each image is drawn: int [1 + RESAMPLES, images]; the first row is the whole set."""
        return resamples(len(self.truth["images"]), RESAMPLES)

    def losses(self, predictions: Sequence[Predictions]) -> dict[str, Reals]:
        """Return what is lost against the source, each figure [1 + RESAMPLES], the whole set first.

        In points of 100: mAP50-95, the AP of each class (`class_figure`), precision and recall at the served threshold,
        and by how much the mean score changes, up or down, of all classes together and of each (`score_figure`). And
        the number of classes that are lost.
        """
        return self._losses(predictions, self.times)

    def loss(self, predictions: Sequence[Predictions], figure: str) -> float:
        """Return one figure of `losses` over the whole set."""
        return float(self._losses(predictions, self.times[:1])[figure][0])

    def _losses(self, predictions: Sequence[Predictions], times: Counts) -> dict[str, Reals]:
        matches = match(self.truth, predictions)
        measured = self._measure(matches, times)
        losses = {figure: values[: len(times)] - measured[figure] for figure, values in self._of_source.items()}
        changes = score_changes(self.source, predictions, self.score_threshold)
        of_scores = {score_figure(label): _change([one], times) for label, one in changes.items()}
        found, expected = self._found(matches), self._found(self._source_matches)
        lost = sum(count >= LEAST_FOUND and not found.get(label) for label, count in expected.items())
        overall = {SCORE: _change(list(changes.values()), times), LOST: np.full(len(times), float(lost))}
        return losses | of_scores | overall

    @cached_property
    def _source_matches(self) -> dict[int, ClassMatches]:
        return match(self.truth, self.source)

    @cached_property
    def _of_source(self) -> dict[str, Reals]:
        return self._measure(self._source_matches, self.times)

    def _measure(self, matches: dict[int, ClassMatches], times: Counts) -> dict[str, Reals]:
        of_classes = {
            class_figure(label): 100 * average_precisions(one, times).mean(1)
            for label, one in matches.items()
            if one.boxes.any()
        }
        precision, recall = at_threshold(matches, self.score_threshold, times)
        overall = np.nanmean(np.stack(list(of_classes.values())), 0)
        return of_classes | {MAP: overall, PRECISION: 100 * precision, RECALL: 100 * recall}

    def _found(self, matches: dict[int, ClassMatches]) -> dict[int, int]:
        """Return how many boxes of each class are found at the served threshold and IoU 0.5."""
        return {
            label: int((one.is_right[0] & (one.scores >= self.score_threshold)).sum()) for label, one in matches.items()
        }


def _change(changes: Sequence[tuple[Reals, Counts]], times: Counts) -> Reals:
    """Return by how many points the mean score of some classes changes, over resamples: [B].

    The whole set's is at least 0, up or down; a resample's is below 0 where it changes the other way.
    """
    sums = sum((times @ by for by, _ in changes), np.zeros(len(times)))
    counts = sum((times @ of for _, of in changes), np.zeros(len(times)))
    change = 100 * sums / np.maximum(counts, 1)
    return np.asarray(-change if change[0] < 0 else change)
