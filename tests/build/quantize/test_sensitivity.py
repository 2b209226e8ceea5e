"""The scan, and how far detections are from others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from support.graphs import spec_of
from triptych_build.adapt.onnx_file import read_onnx
from triptych_build.quantize.calibrate import Calibration, calibration_images, read_pixels
from triptych_build.quantize.qdq import quantizable_layers, quantized_layers
from triptych_build.quantize.quantizer import post_training
from triptych_build.quantize.sensitivity import candidates_of, disagreement


def test_a_scan_leaves_the_fragile_layer_in_float_and_at_most_a_tenth(
    deep: Path, images: Path, quantized_deep: onnx.ModelProto
) -> None:
    model = read_onnx(deep)
    layers = quantizable_layers(model)
    fragile = next(node.name for node in model.graph.node if node.op_type == "Conv" and "grown" in node.input[0])
    calibration = Calibration(calibration_images(images)[:4], "max", scan=True)
    scanned = post_training(model, spec_of(deep), calibration)
    left = {layer.name: layer for layer in scanned.left_in_float}
    assert set(left) == set(layers) - set(quantized_layers(scanned.model))
    assert fragile in left
    assert len(left) <= len(layers) // 10
    assert left[fragile].harm > left[fragile].all_harm / len(layers)
    pixels = read_pixels(calibration.images, spec_of(deep))
    reference, before, after = (candidates_of(graph, pixels) for graph in (model, quantized_deep, scanned.model))
    assert disagreement(reference, after) < disagreement(reference, before)


BOX = [10, 10, 50, 50]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([[*BOX, 0.8, 1]], 0),
        ([[*BOX, 0.4, 1]], 0.5),
        ([[10, 10, 50, 30, 0.8, 1]], 0.5),
        ([[*BOX, 0.8, 2]], 1),
        ([[60, 60, 90, 90, 0.9, 1], [*BOX, 0.8, 1]], 0),
    ],
)
def test_disagreement(other: list[list[float]], expected: float) -> None:
    reference = np.array([[[*BOX, 0.8, 1]]], np.float32)
    assert disagreement(reference, np.array([other], np.float32)) == pytest.approx(expected, abs=1e-6)


def test_disagreement_counts_confident_candidates_or_the_best() -> None:
    unsure = np.array([[[*BOX, 0.2, 1], [*BOX, 0.1, 2]]], np.float32)
    assert disagreement(unsure, unsure[:, :1]) == pytest.approx(0, abs=1e-6)
    sure = unsure + np.array([0, 0, 0, 0, 0.5, 0], np.float32)
    assert disagreement(sure, sure[:, :1]) == pytest.approx(0.5, abs=1e-6)
