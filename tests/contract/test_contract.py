"""The contract's own values, and which detectors it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from triptych.contract import DETECTION, MODELS, STAGES, DetectorSpec, check_threshold
from triptych.errors import ContractError

SPEC: dict[str, Any] = {"width": 640, "height": 480, "class_names": ("any",)}


def test_every_input_of_a_stage_comes_from_a_stage_before_it_or_from_outside() -> None:
    known = set(DETECTION.inputs)
    for stage in STAGES:
        assert set(stage.inputs) <= known
        known |= set(stage.outputs)
    assert set(DETECTION.outputs) <= known
    assert (DETECTION, *STAGES) == MODELS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "a detector's input must be at least 1x1, but got 0x480"),
        ({"class_names": ()}, "a detector needs at least one class name, but got none"),
        ({"placement": "left"}, "placement must be one of center, top_left, stretch, but got 'left'"),
        ({"decode": "half"}, "decode must be one of full, scaled, but got 'half'"),
        ({"pad_value": 256}, r"pad_value must be in 0\.\.255, but got 256"),
        ({"score_threshold": -0.1}, r"score_threshold must be a number in 0\.\.1, but got -0\.1"),
        ({"iou_threshold": 1.1}, r"iou_threshold must be a number in 0\.\.1, but got 1\.1"),
    ],
)
def test_a_spec_that_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        DetectorSpec(**SPEC | change)


def test_a_spec_there_and_back() -> None:
    spec = DetectorSpec(**SPEC, placement="stretch", pad_value=0, score_threshold=0.5, iou_threshold=1, decode="scaled")
    assert DetectorSpec.from_parameters(640, 480, spec.to_parameters()) == spec


def test_an_older_detector_has_the_defaults_of_what_it_does_not_say() -> None:
    spec = DetectorSpec(**SPEC)
    parameters = {name: value for name, value in spec.to_parameters().items() if name not in ("rows", "decode")}
    assert DetectorSpec.from_parameters(640, 480, parameters) == spec


@pytest.mark.parametrize("value", [True, None, "0.5", -0.01, 1.01, float("nan")])
def test_what_is_not_a_threshold(value: Any) -> None:
    with pytest.raises(ContractError, match="score_threshold must be a number"):
        check_threshold("score_threshold", value)
    assert check_threshold("score_threshold", 1) == 1.0
