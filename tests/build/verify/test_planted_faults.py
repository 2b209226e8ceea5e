"""The gate against planted faults, all of which it has to refuse, and against harmless changes, none of which it may.

The pipeline is a stand-in for the served one (`support.stand_in`), and everything else is the real gate.
`tests/live/test_verify.py` plants faults in a real server.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from _pytest.mark import ParameterSet
from numpy.typing import NDArray

from support import ROOT
from support.stand_in import Detect, StandIn, Workshop, red_detector, workshop
from triptych.contract import DETECTOR, POSTPROCESS, PREPROCESS
from triptych_build.adapt.adapter import adapt_file
from triptych_build.quantize.quantizer import quantize_file
from triptych_build.verify import gate
from triptych_build.verify.limits import Gate
from triptych_build.verify.metrics import Floats, Predictions
from triptych_build.verify.reference import Pixels
from triptych_build.verify.report import Report
from triptych_build.verify.truth import Dataset

BOARDS = 60

QUICK = (
    *("scores times 0.28", "one class lost", "boxes moved by 1 px", "red and blue exchanged", "boxes 2 px off"),
    *("noise on both, seed 5", "boxes in float16", "the letterbox off by one", "three rows"),
)
"""These run with the fast tests: each takes most of a second."""

Candidates = Callable[[Floats], Floats]


def cases(names: Iterable[str]) -> list[ParameterSet]:
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    directory = tmp_path_factory.mktemp("stand-in")
    adapt_file(ROOT / "demo" / "pcb.onnx", directory / "adapted.onnx")
    return workshop(directory / "set", directory / "adapted.onnx", BOARDS)


def detecting(made: Workshop, change: Candidates) -> StandIn:
    """A stand-in whose detector's candidates are changed."""
    return replace(made.right, detector=lambda pixels: change(made.right.detector(pixels).copy()))


# --- The detector -----------------------------------------------------------------------------------------------------


def rescored(change: Callable[[Floats], Floats]) -> Candidates:
    def changed(rows: Floats) -> Floats:
        rows[:, 4] = change(rows[:, 4]).clip(0, 1)
        return best_first(rows)

    return changed


def best_first(rows: Floats) -> Floats:
    return rows[np.argsort(-rows[:, 4], kind="stable")]


def reboxed(change: Callable[[Floats], Any]) -> Candidates:
    def changed(rows: Floats) -> Floats:
        rows[:, :4] = change(rows[:, :4])
        return rows

    return changed


def relabelled(change: Callable[[Floats], Any]) -> Candidates:
    def changed(rows: Floats) -> Floats:
        rows[:, 5] = change(rows[:, 5])
        return rows

    return changed


def without(gone: Callable[[Floats], NDArray[np.bool_]]) -> Candidates:
    def changed(rows: Floats) -> Floats:
        rows[gone(rows), 4] = 0
        return best_first(rows)

    return changed


def grown(factor: float) -> Candidates:
    def change(boxes: Floats) -> Floats:
        centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, factor * (boxes[:, 2:] - boxes[:, :2]) / 2
        return np.hstack([centre - half, centre + half])

    return reboxed(change)


def noisy(score: float = 0, pixels: float = 0, seed: int = 0) -> Candidates:
    """Add noise that is the same for the same candidates."""

    def changed(rows: Floats) -> Floats:
        rng = np.random.default_rng([seed, int(rows[0, 0] * 1000) % 2**31])
        rows[:, 4] = (rows[:, 4] + rng.normal(0, score, len(rows)) * (rows[:, 4] > 0)).clip(0, 1)
        rows[:, :4] += rng.normal(0, pixels, (len(rows), 4))
        return best_first(rows)

    return changed


def area(rows: Floats) -> Floats:
    sides = rows[:, 2:4] - rows[:, :2]
    return np.asarray(sides[:, 0] * sides[:, 1])


DETECTOR_FAULTS: dict[str, Candidates] = {
    "scores times 0.28": rescored(lambda scores: scores * 0.28),
    "scores times 0.9": rescored(lambda scores: scores * 0.9),
    "scores times 0.93": rescored(lambda scores: scores * 0.93),
    "scores raised": rescored(lambda scores: scores * 1.5),
    "scores squared": rescored(np.square),
    "scores before the sigmoid's end": rescored(np.sqrt),
    "scores less a tenth": rescored(lambda scores: scores - 0.1),
    "scores in a few steps": rescored(lambda scores: np.round(scores * 3) / 3),
    "noise on the scores": noisy(score=0.3),
    "one class lost": without(lambda rows: rows[:, 5] == 1),
    "one class mostly lost": without(lambda rows: (rows[:, 5] == 3) & (rows[:, 0] < 400)),
    "one class below the threshold": lambda rows: best_first(
        np.where((np.arange(6) == 4) & (rows[:, 5:] == 2), rows * 0.25, rows)
    ),
    "one class less sure": lambda rows: best_first(
        np.where((np.arange(6) == 4) & (rows[:, 5:] == 2), rows * 0.8, rows)
    ),
    "two classes exchanged": relabelled(lambda labels: np.array([0, 1, 2, 4, 3, 5], np.float32)[labels.astype(int)]),
    "classes counted from 1": relabelled(lambda labels: (labels + 1) % 6),
    "boxes moved by 4 px": reboxed(lambda boxes: boxes + 4),
    "boxes moved by 1 px": reboxed(lambda boxes: boxes + 1),
    "boxes a tenth smaller": grown(0.9),
    "boxes a tenth larger": grown(1.1),
    "boxes for an input of 608": reboxed(lambda boxes: boxes * 608 / 640),
    "x and y exchanged": reboxed(lambda boxes: boxes[:, [1, 0, 3, 2]]),
    "boxes on a grid of 8 px": reboxed(lambda boxes: np.round(boxes / 8) * 8),
    "noise on the boxes": noisy(pixels=3),
    "small objects lost": without(lambda rows: area(rows) < 1000),
    "the right third lost": without(lambda rows: rows[:, 0] > 430),
    "three candidates": lambda rows: rows * (np.arange(len(rows)) < 3)[:, None],
    "every other board empty": lambda rows: rows * (int(rows[0, 0] * 100) % 2),
}

HARMLESS: dict[str, Candidates] = {
    **{f"noise on the scores, seed {seed}": noisy(score=0.002, seed=seed) for seed in range(5)},
    **{f"noise on the boxes, seed {seed}": noisy(pixels=0.15, seed=seed) for seed in range(5)},
    **{f"noise on both, seed {seed}": noisy(score=0.002, pixels=0.1, seed=seed) for seed in range(5, 8)},
    "scores times 1.01": rescored(lambda scores: scores * 1.01),
    "scores times 0.99": rescored(lambda scores: scores * 0.99),
    "scores in float16": rescored(lambda scores: scores.astype(np.float16).astype(np.float32)),
    "boxes in float16": reboxed(lambda boxes: boxes.astype(np.float16).astype(np.float32)),
    "scores in 256 steps": rescored(lambda scores: np.round(scores * 255) / 255),
    "boxes a thousandth larger": grown(1.001),
    "boxes moved by a twentieth of a pixel": reboxed(lambda boxes: boxes + 0.05),
    "boxes in quarters of a pixel": reboxed(lambda boxes: np.round(boxes * 4) / 4),
    "300 candidates": lambda rows: rows * (np.arange(len(rows)) < 300)[:, None],
    "candidates in another order": lambda rows: rows[::-1],
    "nothing below a hundredth": without(lambda rows: rows[:, 4] < 0.01),
}


@pytest.mark.parametrize("fault", cases(DETECTOR_FAULTS))
def test_faults_of_the_detector(made: Workshop, fault: str) -> None:
    report = made.verify(detecting(made, DETECTOR_FAULTS[fault]))
    assert report.outcome == "refused", report.to_markdown()
    assert report.drifted == DETECTOR.name, report.verdict
    assert "The stage that drifted is detector" in report.verdict


@pytest.mark.parametrize("change", cases(HARMLESS))
def test_harmless_changes_of_the_detector(made: Workshop, change: str) -> None:
    report = made.verify(detecting(made, HARMLESS[change]))
    assert report.outcome == "passed", report.verdict


@pytest.mark.parametrize(
    "fault", cases(["scores times 0.28", "one class lost", "boxes moved by 4 px", "noise on the boxes"])
)
def test_faults_without_labels(made: Workshop, fault: str) -> None:
    alone = Dataset(made.dataset.images, None)
    report = made.verify(detecting(made, DETECTOR_FAULTS[fault]), dataset=alone)
    assert report.outcome == "refused", report.to_markdown()
    assert report.drifted == DETECTOR.name


@pytest.mark.parametrize("change", cases(["noise on both, seed 5", "noise on both, seed 6", "scores times 0.99"]))
def test_harmless_changes_without_labels(made: Workshop, change: str) -> None:
    report = made.verify(detecting(made, HARMLESS[change]), dataset=Dataset(made.dataset.images, None))
    assert report.outcome == "passed", report.verdict


# --- Preprocess and postprocess ---------------------------------------------------------------------------------------


def seen(made: Workshop, change: Callable[[Pixels], Pixels]) -> StandIn:
    """A stand-in whose preprocess changes the pixels and not the geometry."""

    def preprocess(encoded: bytes) -> tuple[Pixels, Floats]:
        pixels, geometry = made.right.preprocess(encoded)
        return np.ascontiguousarray(change(pixels)), geometry

    return replace(made.right, preprocess=preprocess)


def squeezed(pixels: Pixels) -> Pixels:
    """Stretch the image over the whole letterbox, as if it were to keep no shape."""
    return np.asarray(cv2.resize(pixels[55:-55], (640, 640)), np.uint8)


PIXEL_FAULTS: dict[str, Callable[[Pixels], Pixels]] = {
    "red and blue exchanged": lambda pixels: pixels[..., ::-1],
    "the letterbox off by one": lambda pixels: np.roll(pixels, (1, 1), (0, 1)),
    "no letterbox": squeezed,
    "an eighth as bright": lambda pixels: np.asarray(pixels // 8, np.uint8),
    "blurred": lambda pixels: np.asarray(cv2.blur(pixels, (9, 9)), np.uint8),
    "upside down": lambda pixels: pixels[::-1],
}


@pytest.mark.parametrize("fault", cases(PIXEL_FAULTS))
def test_faults_of_preprocess(made: Workshop, fault: str) -> None:
    report = made.verify(seen(made, PIXEL_FAULTS[fault]))
    assert report.outcome == "refused", report.to_markdown()
    assert report.drifted == PREPROCESS.name, report.verdict


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_another_decoders_rounding_is_harmless(made: Workshop, seed: int) -> None:
    def rounded(pixels: Pixels) -> Pixels:
        noise = np.random.default_rng([seed, int(pixels.sum()) % 2**31]).integers(-1, 2, pixels.shape)
        return np.asarray((pixels + noise).clip(0, 255), np.uint8)

    assert made.verify(seen(made, rounded)).outcome == "passed"


def detections(made: Workshop, change: Callable[[Detect], Detect]) -> StandIn:
    return replace(made.right, detect=change(made.right.detect))


def boxes_of(change: Callable[[Floats], Floats]) -> Callable[[Detect], Detect]:
    """Change the boxes of the answer."""

    def changed(detect: Detect) -> Detect:
        def other(*given: Any) -> Predictions:
            boxes_xyxy, scores, labels = detect(*given)
            return Predictions(np.asarray(change(boxes_xyxy), np.float32), scores, labels)

        return other

    return changed


def without_padding(detect: Detect) -> Detect:
    return lambda rows, geometry, *thresholds: detect(rows, geometry * [1, 1, 1, 0, 1, 1], *thresholds)


def without_suppression(detect: Detect) -> Detect:
    return lambda rows, geometry, score, _: detect(rows, geometry, score, 0.98)


def first_three(detect: Detect) -> Detect:
    def other(*given: Any) -> Predictions:
        boxes_xyxy, scores, labels = detect(*given)
        return Predictions(boxes_xyxy[:3], scores[:3], labels[:3])

    return other


POSTPROCESS_FAULTS: dict[str, Callable[[Detect], Detect]] = {
    "boxes 2 px off": boxes_of(lambda boxes: boxes + 2),
    "the padding forgotten": without_padding,
    "no suppression": without_suppression,
    "three rows": first_three,
    "left, top, width and height": boxes_of(lambda boxes: np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])),
}


@pytest.mark.parametrize("fault", cases(POSTPROCESS_FAULTS))
def test_faults_of_postprocess(made: Workshop, fault: str) -> None:
    report = made.verify(detections(made, POSTPROCESS_FAULTS[fault]))
    assert report.outcome == "refused", report.to_markdown()
    assert report.drifted == POSTPROCESS.name, report.verdict


def test_boxes_rounded_to_tenths_of_a_pixel_are_harmless(made: Workshop) -> None:
    report = made.verify(detections(made, boxes_of(lambda boxes: np.round(boxes, 1))))
    assert report.outcome == "passed", report.verdict


# --- The images, and what is no matter of accuracy --------------------------------------------------------------------


def failed(report: Report) -> list[str]:
    return [check.name for check in report.checks if check.outcome == "refused"]


def test_calibration_images_in_the_validation_set(made: Workshop, tmp_path: Path) -> None:
    """One of them under another name, and one saved again without loss."""
    first, second, third = made.dataset.images[:3]
    shutil.copy(first, tmp_path / "typical.png")
    cv2.imwrite(str(tmp_path / "second.bmp"), cv2.imread(str(second)))
    cv2.imwrite(str(tmp_path / "other.png"), cv2.imread(str(third)) // 2)
    report = made.verify(made.right, calibration=sorted(tmp_path.iterdir()))
    assert failed(report) == ["images that it was calibrated on"]
    assert f"{first.name} (calibrated on as {tmp_path / 'typical.png'})" in report.verdict
    assert f"{second.name} (calibrated on as {tmp_path / 'second.bmp'})" in report.verdict
    assert third.name not in report.verdict
    assert made.verify(made.right, calibration=[tmp_path / "other.png"]).outcome == "passed"


def first_images(dataset: Dataset, count: int) -> Dataset:
    assert dataset.truth is not None
    rows = [row for row in dataset.truth["annotations"] if row["image_id"] <= count]
    return Dataset(
        dataset.images[:count], dataset.truth | {"images": dataset.truth["images"][:count], "annotations": rows}
    )


def test_too_few_images_are_neither_passed_nor_refused(made: Workshop) -> None:
    report = made.verify(made.right, dataset=first_images(made.dataset, 12))
    assert report.outcome == "too few"
    assert report.to_dict()["passed"] is False
    assert report.verdict.startswith("too few images to tell: different images that show an object (at least) is ")
    assert "Add images until 20 show an object" in report.verdict


def test_copies_of_an_image_are_one(made: Workshop, tmp_path: Path) -> None:
    """Resamples of copies do not differ, so that each loss would look certain."""
    few = first_images(made.dataset, 5)
    assert few.truth is not None
    images = [
        Path(shutil.copy(image, tmp_path / f"{number}-{image.name}")) for number in range(5) for image in few.images
    ]
    rows = [
        row | {"image_id": row["image_id"] + 5 * number, "id": row["id"] + 1000 * number}
        for number in range(5)
        for row in few.truth["annotations"]
    ]
    documents = [{"id": number, "file_name": image.name} for number, image in enumerate(images, 1)]
    many = Dataset(tuple(images), few.truth | {"images": documents, "annotations": rows})
    report = made.verify(made.right, dataset=many)
    assert report.outcome == "too few"
    assert "different images that show an object (at least) is 5" in report.verdict


def test_a_loss_that_may_be_chance_is_neither_passed_nor_refused(made: Workshop) -> None:
    """With more images of the kind it would be refused: the limit lies within the interval."""
    report = made.verify(detecting(made, grown(1.02)), limits=Gate(map_points=1.5, class_points=5))
    assert report.outcome == "too few", report.to_markdown()
    assert "images like these would tell" in report.verdict


def test_an_answer_that_changes(made: Workshop) -> None:
    rng = np.random.default_rng(0)
    report = made.verify(detecting(made, reboxed(lambda boxes: boxes + rng.normal(0, 1e-4, boxes.shape))))
    assert failed(report) == ["change when sent again (images)"]


def test_a_batch_in_the_wrong_order(made: Workshop) -> None:
    report = made.verify(replace(made.right, is_batch_mixed=True))
    assert failed(report) == ["agreement of a batch with its images alone, IoU 0.50 to 0.95"]


def test_other_default_thresholds(made: Workshop) -> None:
    """Whoever asks for no threshold would find less, though what the gate asks for is all there."""
    report = made.verify(replace(made.right, spec=replace(made.spec, score_threshold=0.6)))
    assert failed(report) == ["default thresholds that differ"]
    assert "It is served with score_threshold 0.6 in place of 0.25" in report.verdict


def test_a_latency_beyond_its_limit(made: Workshop) -> None:
    assert failed(made.verify(made.right, limits=Gate(p95_ms=0.001))) == ["p95 latency (ms)"]


# --- Other runtimes and precisions, for real --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_another_runtime_in_each_precision_is_harmless(made: Workshop, tmp_path: Path, precision: str) -> None:
    quantize_file(made.adapted, tmp_path / "graph.onnx", precision)
    served = replace(made.right, detector=red_detector(tmp_path / "graph.onnx", "openvino"))
    report = made.verify(served, precision=precision)
    assert report.outcome != "refused", report.verdict


@pytest.mark.parametrize(
    ("graph", "sentence"),
    [
        (lambda rows: rows, "Not the graph lost it, for in plain floats the same graph loses 0.0, but the runtime on"),
        (grown(0.8), "The graph itself lost it, and not the runtime: in plain floats the same graph loses "),
    ],
)
def test_whether_the_graph_or_its_runtime_lost_it(
    made: Workshop, monkeypatch: pytest.MonkeyPatch, graph: Candidates, sentence: str
) -> None:
    monkeypatch.setattr(gate, "plain_detector", lambda _: detecting(made, graph).detector)
    report = made.verify(detecting(made, grown(0.8)), graph=made.adapted)
    assert sentence in report.verdict
    is_the_graph = sentence.startswith("The graph")
    assert ("Calibrate with more images" in report.verdict) is is_the_graph
    assert ("More calibration would not help" in report.verdict) is not is_the_graph
