"""A public detector through the deployed ensemble against the same weights in-process, on real photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from triptych import DetectionClient
from triptych.contract import DetectorSpec
from triptych.serving import TritonServer
from triptych.vision.letterbox import preprocess
from triptych_build.verify.datasets import read_dataset
from triptych_build.verify.metrics import Predictions, accuracy

pytestmark = [pytest.mark.triton, pytest.mark.slow]

SCORE_THRESHOLD, IOU_THRESHOLD = 0.01, 0.45


def reference_boxes(output: NDArray[np.float32], side: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Decode YOLOX's grid the long way: xyxy [A, 4] in letterbox pixels and class scores [A, C]."""
    grids, strides = [], []
    for stride in (8, 16, 32):
        y, x = np.meshgrid(np.arange(side // stride), np.arange(side // stride), indexing="ij")
        grids.append(np.stack([x.ravel(), y.ravel()], 1))
        strides.append(np.full(x.size, stride))
    grid, stride_column = np.concatenate(grids), np.concatenate(strides)[:, None]
    center = (output[:, :2] + grid) * stride_column
    half = np.exp(output[:, 2:4]) * stride_column / 2
    return np.hstack([center - half, center + half]), output[:, 4:5] * output[:, 5:]


def reference_nms(boxes: NDArray[np.float32], scores: NDArray[np.float32], threshold: float) -> list[int]:
    """Suppress greedily, one pair at a time."""
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        for j in kept:
            x1, y1 = np.maximum(boxes[i, :2], boxes[j, :2])
            x2, y2 = np.minimum(boxes[i, 2:], boxes[j, 2:])
            inside = max(0.0, x2 - x1) * max(0.0, y2 - y1)
            areas = [np.prod(boxes[k, 2:] - boxes[k, :2]) for k in (i, j)]
            if inside / (sum(areas) - inside) > threshold:
                break
        else:
            kept.append(int(i))
    return kept


def reference_detect(weights: Path, image: bytes) -> Predictions:
    """Detect with ONNX Runtime and NumPy alone after our own preprocess; boxes are in the image's pixels."""
    session = onnxruntime.InferenceSession(str(weights), providers=["CPUExecutionProvider"])
    spec = DetectorSpec(416, 416, ("any",), placement="top_left")
    pixels, geometry, _ = preprocess([image], spec)
    tensor = pixels[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
    boxes, scores = reference_boxes(session.run(None, {"images": tensor})[0][0], 416)
    best, labels = scores.max(1), scores.argmax(1)
    rows = np.flatnonzero(best >= SCORE_THRESHOLD)
    kept: list[int] = []
    for label in np.unique(labels[rows]):
        members = rows[labels[rows] == label]
        kept += list(members[reference_nms(boxes[members], best[members], IOU_THRESHOLD)])
    kept = sorted(kept, key=lambda row: -best[row])[:100]
    scale_x, scale_y, left, top, width, height = geometry[0]
    original = (boxes[kept] - [left, top, left, top]) / [scale_x, scale_y, scale_x, scale_y]
    return Predictions(original.clip(0, [width, height, width, height]), best[kept], labels[kept].astype(np.int32))


def test_yolox_nano_on_coco(shared_data: Path, yolox_server: TritonServer) -> None:
    weights = shared_data / "yolox_nano" / "yolox_nano.onnx"
    with DetectionClient(yolox_server.grpc_address) as client:
        dataset = read_dataset(shared_data / "coco_cc" / "instances.json", client.class_names())
        answers = [
            client.detect(image, score_threshold=SCORE_THRESHOLD, iou_threshold=IOU_THRESHOLD)
            for image in dataset.images
        ]
    assert dataset.truth is not None
    deployed = [Predictions(answer.boxes_xyxy, answer.scores, answer.labels) for answer in answers]
    reference = [reference_detect(weights, image.read_bytes()) for image in dataset.images]
    ours, theirs = (accuracy(dataset.truth, boxes).map50 for boxes in (deployed, reference))
    print(f"mAP50 on coco_cc: deployed {ours:.4f}, ONNX Runtime in-process {theirs:.4f}")
    assert theirs > 0.55, "the reference itself is off"
    assert abs(ours - theirs) <= 0.01
