"""What `decode: scaled` costs and saves: large JPEGs that are decoded to fewer pixels, against all of their pixels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from triptych.contract import DetectorSpec
from triptych.vision.decode import read_header
from triptych.vision.letterbox import factor, preprocess
from triptych_build.adapt.onnx_file import read_adapted_file
from triptych_build.verify.figures import MAP, Yardstick
from triptych_build.verify.metrics import Predictions, as_truth
from triptych_build.verify.reference import reference_stages
from triptych_build.verify.truth import Dataset, read_image

NOTABLE_POINTS = 0.1
"""Who loses more mAP50-95 than this pays for the time with accuracy."""

_SCORE_FLOOR = 0.001
_REPEATS = 5


@dataclass(frozen=True)
class DecodingCost:
    """What was measured on images of a set.

    Attributes:
        images: how many there are.
        reduced: how many of them are JPEGs that are large enough to be decoded to fewer pixels.
        loss_points: mAP50-95 that is lost, in points of 100; None where no image is reduced.
        interval_points: the 95% interval of the loss, over resamples of the images.
        full_ms: the median time to decode and letterbox one of the reduced images in full.
        scaled_ms: the same with fewer pixels.
    """

    images: int
    reduced: int
    loss_points: float | None = None
    interval_points: tuple[float, float] = (0.0, 0.0)
    full_ms: float = 0.0
    scaled_ms: float = 0.0

    def __str__(self) -> str:
        if self.loss_points is None:
            return (
                f"decode: scaled changes none of the {self.images} images: no JPEG is twice as large as its letterbox"
            )
        advice = "" if self.loss_points <= NOTABLE_POINTS else f", more than {NOTABLE_POINTS:g}: prefer --decode full"
        low, high = self.interval_points
        return (
            f"decode: scaled takes {self.scaled_ms:.2f} ms in place of {self.full_ms:.2f} for each of {self.reduced} "
            f"of {self.images} images, and loses {self.loss_points:.2f} points of mAP50-95 ({low:.2f} to {high:.2f})"
            f"{advice}"
        )


def measure_decoding(source: Path, dataset: Dataset) -> DecodingCost:
    """Decode the images of a set both ways, and have the adapted FP32 source detect in both.

    Without labels, what the source detects in the full pixels is the truth.

    Raises:
        BuildError: the source is not adapted, or an image cannot be read.
    """
    spec = replace(read_adapted_file(source)[1].spec, decode="scaled")
    full = replace(spec, decode="full")
    encoded = [read_image(image) for image in dataset.images]
    large = [image for image in encoded if _is_reduced(image, spec)]
    if not large:
        return DecodingCost(len(encoded), 0)
    stages = reference_stages(source, spec, _SCORE_FLOOR)

    def detect(image: bytes, how: DetectorSpec) -> Predictions:
        done = preprocess([image], how)
        return stages.postprocess(stages.detector(done.pixels[0]), done.geometry[0])

    expected = [detect(image, full) for image in encoded]
    truth = dataset.truth or as_truth(expected, spec.class_names, spec.score_threshold)
    yardstick = Yardstick(truth, expected, spec.score_threshold)
    losses = yardstick.losses([detect(image, spec) for image in encoded])[MAP]
    full_ms, scaled_ms = _medians_ms(large, (full, spec))
    low, high = np.quantile(losses[1:], [0.025, 0.975]).tolist()
    return DecodingCost(
        images=len(encoded),
        reduced=len(large),
        loss_points=float(losses[0]),
        interval_points=(low, high),
        full_ms=full_ms,
        scaled_ms=scaled_ms,
    )


def _is_reduced(encoded: bytes, spec: DetectorSpec) -> bool:
    header = read_header(encoded)
    return header.format in ("JPEG", "MPO") and factor(*header.upright, spec) > 1


def _medians_ms(images: Sequence[bytes], hows: Sequence[DetectorSpec]) -> list[float]:
    """Return for each way the median over the images of the least time that each took; the ways take turns."""

    def time_ms(image: bytes, how: DetectorSpec) -> float:
        started = time.perf_counter()
        preprocess([image], how)
        return (time.perf_counter() - started) * 1000

    times_ms = [[[time_ms(image, how) for how in hows] for _ in range(_REPEATS)] for image in images]
    medians: list[float] = np.median(np.min(times_ms, axis=1), axis=0).tolist()
    return medians
