"""Measure a detector's ONNX on a COCO set: mAP50, mAP50-95 and each class.

    python -m triptych_demo.detector.evaluate demo/pcb.onnx DIR

DIR holds instances.json and images/, as boards.py writes them (next to this file).
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import numpy.typing as npt
import typer

from triptych.errors import ImageError
from triptych_demo.detector.command import run

Floats = npt.NDArray[np.float32]

SCORE_FLOOR = 0.001
IOU_LIMIT = 0.6
MAX_CANDIDATES = 1000
MAX_DETECTIONS = 100


@dataclass(frozen=True)
class Metrics:
    """Accuracy in 0..1 over a set, and per class as name -> (AP50, AP50-95)."""

    map50: float
    map50_95: float
    per_class: dict[str, tuple[float, float]]


def decode(raw: Floats) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Return the boxes of one picture from its raw head.

    Args:
        raw: float32 [4 + C, A]: cx, cy, w, h in pixels, then C scores.

    Returns:
        boxes_xyxy float32 [K, 4], scores float32 [K], labels int64 [K], best first, after class-aware NMS.
    """
    labels = raw[4:].argmax(0)
    scores = raw[4:].max(0)
    order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    order = order[scores[order] > SCORE_FLOOR]
    centre, half = raw[:2, order].T, raw[2:4, order].T / 2
    boxes = np.concatenate([centre - half, centre + half], 1)
    kept = suppress(boxes, labels[order])
    return boxes[kept], scores[order][kept], labels[order][kept]


def suppress(boxes_xyxy: Floats, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the indices that class-aware non-maximum suppression keeps of boxes [K, 4], sorted best first."""
    areas = (boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])
    rest = np.arange(len(boxes_xyxy))
    kept: list[int] = []
    while len(rest) and len(kept) < MAX_DETECTIONS:
        first, rest = int(rest[0]), rest[1:]
        kept.append(first)
        low = np.maximum(boxes_xyxy[first, :2], boxes_xyxy[rest, :2])
        high = np.minimum(boxes_xyxy[first, 2:], boxes_xyxy[rest, 2:])
        overlap = np.prod(np.clip(high - low, 0, None), axis=1)
        iou = overlap / (areas[first] + areas[rest] - overlap + 1e-9)
        rest = rest[(iou <= IOU_LIMIT) | (labels[rest] != labels[first])]
    return np.array(kept, np.int64)


def evaluate(
    predict: Callable[[Floats], Floats], images: Iterable[npt.NDArray[np.uint8]], coco: dict[str, Any]
) -> Metrics:
    """Run `predict` on every picture and score it against `coco`.

    Args:
        predict: float32 [N, 3, 640, 640] in 0..1 to the raw head float32 [N, 4 + C, A].
        images: uint8 [640, 640, 3] RGB, in the order of coco["images"].
        coco: a COCO `instances` document whose category k is class k-1.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    results: list[dict[str, Any]] = []
    for entry, image in zip(coco["images"], images, strict=True):
        pixels = image.transpose(2, 0, 1)[None].astype(np.float32) / 255.0
        boxes, scores, labels = decode(predict(pixels)[0])
        for (x1, y1, x2, y2), score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            results.append({"image_id": entry["id"], "category_id": label + 1, "bbox": box, "score": score})
    names = {category["id"]: category["name"] for category in coco["categories"]}
    if not results:
        return Metrics(0.0, 0.0, dict.fromkeys(names.values(), (0.0, 0.0)))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(coco)
        scorer = COCOeval_faster(truth, truth.loadRes(results), "bbox")
        scorer.run()
    precision = np.asarray(scorer.eval["precision"])[:, :, :, 0, -1]
    per_class = {name: (_mean(precision[0, :, k]), _mean(precision[:, :, k])) for k, name in enumerate(names.values())}
    return Metrics(_mean(precision[0]), _mean(precision), per_class)


def _mean(precision: npt.NDArray[np.float64]) -> float:
    """Return the mean over what was measured: COCO writes -1 where a class has no truth."""
    measured = precision[precision > -1]
    return float(measured.mean()) if measured.size else 0.0


def table(metrics: Metrics) -> str:
    """Return the metrics as lines of text."""
    lines = [f"{'class':<18}{'AP50':>8}{'AP50-95':>10}"]
    lines += [f"{name:<18}{ap50:>8.4f}{ap:>10.4f}" for name, (ap50, ap) in metrics.per_class.items()]
    return "\n".join([*lines, f"{'all':<18}{metrics.map50:>8.4f}{metrics.map50_95:>10.4f}"])


def evaluate_onnx(model: Path, directory: Path) -> Metrics:
    """Score an ONNX file with ONNX Runtime on the COCO set in `directory`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    coco = json.loads((directory / "instances.json").read_text(encoding="utf-8"))
    paths = [directory / "images" / entry["file_name"] for entry in coco["images"]]
    return evaluate(lambda pixels: session.run(None, {name: pixels})[0], map(read_rgb, paths), coco)


def read_rgb(path: Path) -> npt.NDArray[np.uint8]:
    """Read a picture as uint8 [H, W, 3] RGB.

    Raises:
        ImageError: OpenCV does not read it.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ImageError(f"{path} cannot be read as a picture; make the set again with triptych_demo.detector.boards")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def main(
    model: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help="ONNX with input [N, 3, 640, 640] and raw head [N, 4 + C, A]."
        ),
    ],
    directory: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="What boards wrote: instances.json and images/.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure a detector's accuracy on a COCO set."""
    metrics = evaluate_onnx(model, directory)
    typer.echo(json.dumps(asdict(metrics), indent=2) if as_json else table(metrics))


if __name__ == "__main__":
    run(main)
