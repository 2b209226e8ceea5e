"""Which stage has drifted: stages that are functions stand for the deployed ones, and one of them is planted wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from triptych_build.verify.drift import Compared, compare_stages, costs, drifted_stage
from triptych_build.verify.metrics import Floats, Predictions
from triptych_build.verify.reference import Pixels, Stages, reference_boxes

GEOMETRY = np.array([1, 1, 0, 0, 64, 64], np.float32)
CANDIDATES = np.array([[4, 4, 20, 20, 0.9, 0], [30, 30, 60, 60, 0.6, 1], [1, 1, 9, 9, 0.1, 0]], np.float32)


def preprocess(encoded: bytes) -> tuple[Pixels, Floats]:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[..., 0] = encoded[0]
    return pixels, GEOMETRY


def detect(pixels: Pixels) -> Floats:
    """See nothing unless the red channel is bright."""
    return CANDIDATES if pixels[..., 0].mean() > 100 else CANDIDATES[:0]


def postprocess(candidates: Floats, geometry: Floats) -> Predictions:
    return reference_boxes(candidates, geometry, 0.05, 0.45)


REFERENCE = Stages(preprocess, detect, postprocess)


def missed(predictions: Sequence[Predictions]) -> float:
    """Count the boxes that are missing or moved, as points."""
    expected = postprocess(CANDIDATES, GEOMETRY)
    return float(sum(not np.array_equal(one.boxes_xyxy, expected.boxes_xyxy) for one in predictions))


def compared(served: Stages) -> Compared:
    return compare_stages(REFERENCE, served, bytes([200]), CANDIDATES, 0.25)


def test_equal_stages_cost_nothing() -> None:
    row = compared(REFERENCE)
    assert (row.levels, row.is_moved, row.confident, row.matched, row.missing, row.corner_px) == (0, False, 2, 2, 0, 0)
    stages = costs([row, row], missed)
    assert [stage.loss_points for stage in stages] == [0, 0, 0]
    assert drifted_stage(stages, 0) is None


def test_channels_in_the_other_order() -> None:
    served = replace(REFERENCE, preprocess=lambda encoded: (preprocess(encoded)[0][..., ::-1], GEOMETRY))
    stages = costs([compared(served)], missed)
    assert drifted_stage(stages, 1) == "preprocess"
    assert stages[0].evidence == (
        "its pixels differ by 133.33 levels of 255 on average, by 0.00 with red and blue swapped: "
        "the channels are in the other order"
    )


def test_an_image_elsewhere_in_the_letterbox() -> None:
    moved = GEOMETRY + np.array([0, 0, 8, 0, 0, 0], np.float32)
    served = replace(REFERENCE, preprocess=lambda encoded: (preprocess(encoded)[0], moved))
    stages = costs([compared(served)], missed)
    assert stages[0].evidence.endswith("on average; the image lies elsewhere in the letterbox")


def test_a_detector_that_loses_candidates() -> None:
    served = replace(REFERENCE, detector=lambda pixels: detect(pixels)[1:] - [0, 0, 0, 0, 0.1, 0])
    stages = costs([compared(served)], missed)
    assert drifted_stage(stages, 1) == "detector"
    assert stages[1].evidence == (
        "from the same pixels it finds 1 of the source's 2 confident candidates (50.0%), "
        "whose scores change by -0.100 on average"
    )


def test_boxes_that_are_off_and_missing() -> None:
    def shifted(candidates: Floats, geometry: Floats) -> Predictions:
        boxes, scores, labels = postprocess(candidates, geometry)
        return Predictions(boxes[1:] + 12, scores[1:], labels[1:])

    stages = costs([compared(replace(REFERENCE, postprocess=shifted))], missed)
    assert drifted_stage(stages, 1) == "postprocess"
    assert stages[2].evidence == ("from the same candidates its boxes are up to 12.0 px off, and 1 of 3 is missing")


@pytest.mark.parametrize(("loss", "drifted"), [(3.0, "postprocess"), (5.0, None)])
def test_a_stage_must_explain_a_quarter_of_the_loss(loss: float, drifted: str | None) -> None:
    stages = [
        replace(stage, loss_points=1.0 * (stage.stage == "postprocess"))
        for stage in costs([compared(REFERENCE)], missed)
    ]
    assert drifted_stage(stages, loss) == drifted
