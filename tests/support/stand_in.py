"""A stand-in for the served pipeline: the demo detector in this process, with a stage that can be replaced by a fault.

The real gate measures it: only the server is missing. The boards are red on grey and the detector sees red alone, so
that colours matter, and they are no squares, so that the letterbox does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from triptych import Detections
from triptych.contract import DetectorSpec
from triptych.runtimes import open_runtime
from triptych.vision import boxes, letterbox
from triptych.wire.credentials import Credentials
from triptych_build.adapt.onnx_file import read_adapted_file
from triptych_build.verify import gate
from triptych_build.verify.datasets import read_dataset
from triptych_build.verify.latency import Latency
from triptych_build.verify.limits import Gate
from triptych_build.verify.metrics import Floats, Predictions
from triptych_build.verify.reference import Pixels, Stages, reference_boxes, reference_pixels
from triptych_build.verify.report import Report
from triptych_build.verify.truth import Dataset
from triptych_demo.detector.boards import Board, coco_document, generate

Detector = Callable[[Pixels], Floats]
Detect = Callable[[Floats, Floats, float, float], Predictions]

CROPPED, ENLARGED = 560, 1.25


@dataclass(frozen=True)
class StandIn:
    """A served pipeline that may be faulty.

    Attributes:
        preprocess: an encoded image to pixels and geometry.
        detector: pixels to candidates.
        detect: candidates, geometry, score and IoU threshold to predictions.
        is_batch_mixed: whether a batch's answers come in the wrong order.
        spec: what the server says of the detector; None: what is true of it.
    """

    preprocess: Callable[[bytes], tuple[Pixels, Floats]]
    detector: Detector
    detect: Detect
    is_batch_mixed: bool = False
    spec: DetectorSpec | None = None


@dataclass(frozen=True)
class Workshop:
    """What the gate needs to measure a stand-in.

    Attributes:
        adapted: the adapted demo detector.
        spec: of it.
        dataset: boards and their labels.
        right: the stand-in without a fault.
        reference: the same by the gate's own reference.
    """

    adapted: Path
    spec: DetectorSpec
    dataset: Dataset
    right: StandIn
    reference: Stages

    def verify(
        self,
        served: StandIn,
        *,
        dataset: Dataset | None = None,
        limits: Gate | None = None,
        precision: str = "int8",
        graph: Path | None = None,
        calibration: Sequence[Path] = (),
    ) -> Report:
        """Let the gate measure a stand-in."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gate, "DetectionClient", lambda *_, **__: _Client(self.spec, served))
            patch.setattr(gate, "deployed_stages", _deployed(served))
            patch.setattr(gate, "reference_stages", lambda *_: self.reference)
            patch.setattr(gate, "measure_latency", lambda *_, **__: Latency.of([1.0]))
            return gate.verify(
                *("stand-in:1", self.adapted, dataset or self.dataset, limits or Gate.for_precision(precision)),
                precision=precision,
                graph=graph,
                calibration=calibration,
            )


class _Client:
    """What the gate asks of a `DetectionClient`."""

    def __init__(self, spec: DetectorSpec, served: StandIn) -> None:
        self._spec, self._served = spec, served

    def __enter__(self) -> _Client:
        return self

    def __exit__(self, *_: object) -> None: ...

    def spec(self) -> DetectorSpec:
        return self._served.spec or self._spec

    def server_version(self) -> str:
        return "stand-in"

    def detect(
        self, image: Path | bytes, score_threshold: float | None = None, iou_threshold: float | None = None
    ) -> Detections:
        encoded = image if isinstance(image, bytes) else image.read_bytes()
        pixels, geometry = self._served.preprocess(encoded)
        thresholds = score_threshold or self._spec.score_threshold, iou_threshold or self._spec.iou_threshold
        found = self._served.detect(self._served.detector(pixels), geometry, *thresholds)
        return Detections(*found, self._spec.class_names)

    def detect_batch(self, images: Sequence[Path]) -> list[Detections]:
        found = [self.detect(image) for image in images]
        return found[::-1] if self._served.is_batch_mixed else found


def _deployed(served: StandIn) -> Callable[..., Any]:
    @contextmanager
    def stages(
        address: str, spec: DetectorSpec, score_threshold: float, timeout_s: float, _: Credentials
    ) -> Iterator[Stages]:
        yield Stages(
            served.preprocess,
            served.detector,
            lambda candidates, geometry: served.detect(candidates, geometry, score_threshold, spec.iou_threshold),
        )

    return stages


def workshop(directory: Path, adapted: Path, boards: int) -> Workshop:
    """Make boards, and a stand-in of the demo detector that remembers what it has seen."""
    _, record = read_adapted_file(adapted)
    spec = record.spec
    dataset = _write(directory, [generate(1000, number) for number in range(boards)], spec)

    def preprocess(encoded: bytes) -> tuple[Pixels, Floats]:
        made = letterbox.preprocess([encoded], spec)
        return made.pixels[0], made.geometry[0]

    def detect(candidates: Floats, geometry: Floats, score_threshold: float, iou_threshold: float) -> Predictions:
        made = boxes.postprocess(
            candidates[None],
            geometry[None],
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            rows=spec.rows,
        )
        count = made.counts[0, 0]
        return Predictions(made.boxes_xyxy[0, :count], made.scores[0, :count], made.labels[0, :count])

    def reference_detect(candidates: Floats, geometry: Floats) -> Predictions:
        return reference_boxes(candidates, geometry, gate.SCORE_FLOOR, spec.iou_threshold)

    detector = red_detector(adapted)
    right = StandIn(remembering(preprocess), detector, detect)
    reference = Stages(
        remembering(lambda encoded: reference_pixels(encoded, spec)), detector, remembering(reference_detect)
    )
    return Workshop(adapted, spec, dataset, right, reference)


def red_detector(model: Path, runtime: str = "onnxruntime", precision: str = "f32") -> Detector:
    """Return a detector that sees red alone."""
    loaded = open_runtime(runtime, model, threads=2, precision=precision)
    one_at_a_time = Lock()

    def detect(pixels: Pixels) -> Floats:
        with one_at_a_time:
            candidates: Floats = loaded.detect(np.repeat(pixels[None, ..., :1], 3, axis=3))[0]
            return candidates

    return remembering(detect)


def remembering(work: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calculates each answer once: most of what a fault leaves alone is always the same."""
    known: dict[bytes, Any] = {}

    def remembered(*given: Any) -> Any:
        key = hashlib.sha256()
        for value in given:
            key.update(value if isinstance(value, bytes) else value.tobytes())
        if key.digest() not in known:
            known[key.digest()] = work(*given)
        return known[key.digest()]

    return remembered


def _write(directory: Path, boards: Sequence[Board], spec: DetectorSpec) -> Dataset:
    """Write the upper part of boards, larger than the letterbox, in red on grey."""
    (directory / "images").mkdir(parents=True)
    named = []
    for number, board in enumerate(boards):
        inside = board.boxes_xyxy[:, 3] <= CROPPED
        labels = replace(board, boxes_xyxy=board.boxes_xyxy[inside] * ENLARGED, labels=board.labels[inside])
        named.append((f"{number:03d}.png", labels))
        red = cv2.resize(board.image[:CROPPED, :, 0], None, fx=ENLARGED, fy=ENLARGED)
        picture: NDArray[np.uint8] = np.full((*red.shape, 3), 90, np.uint8)
        picture[..., 2] = red
        assert cv2.imwrite(str(directory / "images" / named[-1][0]), picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    (directory / "instances.json").write_text(json.dumps(coco_document(named)))
    return read_dataset(directory, spec.class_names)
