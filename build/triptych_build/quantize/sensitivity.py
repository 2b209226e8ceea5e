"""The layers that int8 harms most: one at a time is quantized, and the detections are compared with float32's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import TensorsData

from triptych.contract import CANDIDATES, PIXELS
from triptych.machine import available_cores
from triptych.vision.boxes import iou_xyxy
from triptych_build.quantize.progress import tracked
from triptych_build.quantize.qdq import quantize_layers

SCAN_SHARE = 0.1
"""A scan leaves at most this share of the layers in float."""


@dataclass(frozen=True)
class SensitiveLayer:
    """A layer that a scan leaves in float.

    Attributes:
        name: the layer's.
        harm: the disagreement with float32 where only this layer is in int8.
        all_harm: the same where all layers are.
    """

    name: str
    harm: float
    all_harm: float


def sensitive_layers(
    model: onnx.ModelProto, ranges: TensorsData, pixels: NDArray[np.uint8], layers: Sequence[str]
) -> list[SensitiveLayer]:
    """Return the layers that int8 harms most, worst first, and at most a tenth of them."""
    reference = candidates_of(model, pixels)

    def harm_of(quantized: Sequence[str]) -> float:
        return disagreement(reference, candidates_of(quantize_layers(model, ranges, quantized), pixels))

    harm = {layer: harm_of([layer]) for layer in tracked(layers, "sensitivity")}
    all_harm = harm_of(layers)
    worst = sorted(layers, key=lambda layer: -harm[layer])[: max(1, int(len(layers) * SCAN_SHARE))]
    return [SensitiveLayer(name, harm[name], all_harm) for name in worst if harm[name] > all_harm / len(layers)]


def disagreement(reference: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return how far candidates [N, K, 6] are from others: 1 minus the mean of IoU times score ratio.

    Every candidate of the reference that scores 0.25 or more (the best one, where none does) is compared with the
    nearest of its class.
    """
    losses = []
    for rows, others in zip(reference, other, strict=True):
        for row in rows[: max(1, int((rows[:, 4] >= 0.25).sum()))]:
            same = others[others[:, 5] == row[5]]
            ratio = np.minimum(same[:, 4], row[4]) / np.maximum(np.maximum(same[:, 4], row[4]), 1e-9)
            likeness = iou_xyxy(row[None, :4], same[:, :4])[0] * ratio
            losses.append(1 - float(likeness.max(initial=0)))
    return float(np.mean(losses))


def candidates_of(model: onnx.ModelProto, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the candidates of pixels uint8 [N, H, W, 3], image by image, in float.

    Q/DQ pairs round to int8's steps and are calculated in float: ONNX Runtime's int8 kernels differ from CPU to CPU.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = available_cores()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([CANDIDATES.name], {PIXELS.name: image[None]})[0] for image in pixels])
