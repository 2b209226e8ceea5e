"""A slow, plain reference of the pipeline, to hold the deployed one against.

It shares no code with `triptych.vision`: a fault there shows as a difference here.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageOps

from triptych import runtimes
from triptych.contract import CANDIDATES, PIXELS, DetectorSpec
from triptych.errors import BuildError
from triptych.machine import available_cores
from triptych.opencv import cv2
from triptych_build.adapt.onnx_file import read_onnx
from triptych_build.adapt.uncut import uncut
from triptych_build.verify.metrics import Floats, Predictions

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Stages:
    """The three stages of a pipeline as functions on one image; another pipeline's function can replace each.

    Attributes:
        preprocess: an encoded image to pixels uint8 [H, W, 3] and geometry float32 [6].
        detector: pixels to candidates float32 [K, 6].
        postprocess: candidates and geometry to predictions.
    """

    preprocess: Callable[[bytes], tuple[Pixels, Floats]]
    detector: Callable[[Pixels], Floats]
    postprocess: Callable[[Floats, Floats], Predictions]


def reference_stages(source: Path, spec: DetectorSpec, score_threshold: float) -> Stages:
    """Return an adapted FP32 ONNX on ONNX Runtime, between the reference of preprocess and postprocess.

    Nothing is cut off: all candidates leave the graph, and all that suppression keeps is there.

    Raises:
        BuildError: ONNX Runtime cannot read the file.
    """
    with tempfile.TemporaryDirectory(prefix="triptych-reference-") as scratch:
        whole = Path(scratch) / source.name
        onnx.save(uncut(read_onnx(source)), whole)
        runtime = runtimes.open_runtime("onnxruntime", whole, threads=available_cores())
    return Stages(
        preprocess=lambda encoded: reference_pixels(encoded, spec),
        detector=lambda pixels: runtime.detect(pixels[None])[0],
        postprocess=lambda candidates, geometry: reference_boxes(
            candidates, geometry, score_threshold, spec.iou_threshold
        ),
    )


def plain_detector(graph: Path) -> Callable[[Pixels], Floats]:
    """Return the detector that a graph describes, calculated as it is written, with no kernel that depends on the CPU.

    ONNX Runtime without its optimizations fuses nothing: Q and DQ round, and all between them is float32.

    Raises:
        BuildError: ONNX Runtime cannot run it so, as it has no bfloat16 on a CPU.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = available_cores()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no other class
        raise BuildError(f"ONNX Runtime cannot run {graph} in plain floats: {error}") from error

    def detect(pixels: Pixels) -> Floats:
        candidates: Floats = session.run([CANDIDATES.name], {PIXELS.name: pixels[None]})[0][0]
        return candidates

    return detect


def reference_pixels(encoded: bytes, spec: DetectorSpec) -> tuple[Pixels, Floats]:
    """Decode an image with Pillow, and letterbox it as the contract says.

    The resize is OpenCV's bilinear one, as in `triptych.vision.letterbox`: only the decoder's rounding differs.

    Returns:
        pixels uint8 [H, W, 3] in RGB, and geometry float32 [6], see `contract.GEOMETRY_FIELDS`.

    Raises:
        BuildError: the image cannot be read.
    """
    rgb = decode_upright(encoded)
    height, width = rgb.shape[:2]
    ratio = min(spec.width / width, spec.height / height)
    left = top = 0
    if spec.placement == "stretch":
        new_width, new_height = spec.width, spec.height
    elif spec.placement == "top_left":
        new_width, new_height = max(1, int(width * ratio)), max(1, int(height * ratio))
    else:
        new_width, new_height = max(1, round(width * ratio)), max(1, round(height * ratio))
        # Of an odd number of free pixels, the one over goes to the right and to the bottom.
        left, top = (spec.width - new_width) // 2, (spec.height - new_height) // 2
    pixels = np.full((spec.height, spec.width, 3), spec.pad_value, np.uint8)
    resized = cv2.resize(rgb, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    pixels[top : top + new_height, left : left + new_width] = resized
    geometry = np.array([new_width / width, new_height / height, left, top, width, height], np.float32)
    return pixels, geometry


def decode_upright(encoded: bytes) -> Pixels:
    """Decode with Pillow to uint8 [height, width, 3] in RGB, upright; alpha goes, and 16 bits keep their high byte.

    Raises:
        BuildError: the image cannot be read.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):
                high = (np.asarray(upright).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)
                return np.repeat(high[..., None], 3, axis=2)
            return np.array(upright.convert("RGB"))
    except Exception as error:  # decoders fail in more ways than can be listed
        raise BuildError(f"a validation image cannot be read ({error}); take it out of the set") from error


def reference_boxes(candidates: Floats, geometry: Floats, score_threshold: float, iou_threshold: float) -> Predictions:
    """Suppress greedily class by class, and undo the letterbox; in float64.

    Args:
        candidates: float32 [K, 6], see `contract.CANDIDATE_FIELDS`.
        geometry: float32 [6].
        score_threshold: candidates that score below it are dropped, and candidates that score 0.
        iou_threshold: of two boxes of a class that overlap more, the weaker goes; 1 keeps all.
    """
    rows = candidates.astype(np.float64)
    rows = rows[np.isfinite(rows).all(1) & (rows[:, 4] >= score_threshold) & (rows[:, 4] > 0)]
    waiting = rows[np.argsort(-rows[:, 4], kind="stable")]
    kept = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        if iou_threshold < 1:
            waiting = waiting[(waiting[:, 5] != best[5]) | (_overlap(best[:4], waiting[:, :4]) <= iou_threshold)]
    rows = np.array(kept).reshape(-1, 6)
    scale_x, scale_y, left, top, width, height = geometry.astype(np.float64)
    boxes = (rows[:, :4] - [left, top, left, top]) / [scale_x, scale_y, scale_x, scale_y]
    boxes = boxes.clip(0, [width, height, width, height])
    visible = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    return Predictions(
        boxes[visible].astype(np.float32), rows[visible, 4].astype(np.float32), rows[visible, 5].astype(np.int32)
    )


def _overlap(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the IoU of one box [4] with others [N, 4]; 0 where both have no area."""
    width = np.maximum(np.minimum(box[2], boxes[:, 2]) - np.maximum(box[0], boxes[:, 0]), 0)
    height = np.maximum(np.minimum(box[3], boxes[:, 3]) - np.maximum(box[1], boxes[:, 1]), 0)
    areas = np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)
    own = max(box[2] - box[0], 0) * max(box[3] - box[1], 0)
    inside = width * height
    union = own + areas - inside
    ratio: NDArray[np.float64] = np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)
    return ratio
