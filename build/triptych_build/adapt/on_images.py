"""A detector on a few of the user's images, without labels: its candidates, its preprocessing and its border."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.errors import BuildError, ImageError
from triptych.vision.decode import read_header
from triptych.vision.letterbox import preprocess
from triptych_build.adapt.adapter import Overrides, adapt
from triptych_build.adapt.heads.head import IMAGENET, Normalization
from triptych_build.adapt.heads.values import inside
from triptych_build.adapt.onnx_file import Adapted, read_adapted_file
from triptych_build.adapt.padding import describe_padding
from triptych_build.adapt.sanity import candidates_of, check_adapted

LOOKED_AT = 4
"""Images that the detector runs on."""

MEASURED = 200
"""Images whose sizes are read."""

SEEN = 0.4
"""A detector that is shown images as it was trained on gives its best candidate such a score in most of them."""

FEWEST_BOXES = 20
"""Fewer confident boxes on all images say nothing of how they are read."""

IN_IMAGE = 0.9
"""The least share of confident boxes that lie in the image where they are read rightly."""

ASTRAY = 0.7
"""Where fewer lie in it, and `IN_IMAGE` would if they were read the other way, they are read wrongly."""

BEYOND = 0.05
"""How far a box may reach beyond the image and still lie in it, as a share of its size."""

OTHERS = {
    "--order rgb --scale 0.00392157": Normalization(),
    "--order bgr --scale 0.00392157": Normalization(order="bgr"),
    "--order rgb --scale 1": Normalization(scale=1.0),
    "--order bgr --scale 1": Normalization(order="bgr", scale=1.0),
    "--scale 0.00392157 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225": IMAGENET,
    "--order bgr --scale 1 --mean 103.53,116.28,123.675 --std 57.375,57.12,58.395": Normalization(
        "bgr", 1.0, (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
    ),
}
"""What detectors are trained on, by the options that choose it."""


def look_at_images(source: Path, overrides: Overrides, adapted: Path, images: Sequence[Path]) -> list[str]:
    """Return sentences on a detector and the user's images.

    Args:
        source: what was adapted.
        overrides: what the user said of it.
        adapted: what was made of it.
        images: the user's images; a few of them are looked at.

    Raises:
        BuildError: the candidates cannot be right, or another reading of the boxes or another preprocessing of the
            images is far more plausible.
    """
    model, record = read_adapted_file(adapted)
    pixels = _letterboxed(_spread(images, LOOKED_AT), record)
    if not len(pixels):
        return []
    candidates = check_adapted(model, record, pixels)
    if overrides.boxes is None:
        _check_boxes(candidates, record)
    best = _best_score(candidates)
    if best < SEEN and all(getattr(overrides, name) is None for name in ("order", "scale", "mean", "std")):
        _check_preprocessing(source, overrides, record, pixels, best)
    if record.spec.placement == "stretch":
        return []
    sizes = _sizes(_spread(images, MEASURED))
    return [describe_padding(sizes, (record.spec.width, record.spec.height))] if sizes else []


def _check_preprocessing(
    source: Path, overrides: Overrides, record: Adapted, pixels: NDArray[np.uint8], best: float
) -> None:
    scores = {}
    for options, other in OTHERS.items():
        if other != record.normalization:
            asked = replace(overrides, order=other.order, scale=other.scale, mean=other.mean, std=other.std)
            scores[options] = _best_score(candidates_of(adapt(source, asked), pixels))
    options = max(scores, key=lambda name: scores[name])
    if scores[options] >= SEEN and scores[options] > 2 * best:
        raise BuildError(
            f"the detector hardly sees anything on {len(pixels)} of your images as they are prepared for it: its best "
            f"candidates score {best:.2f} on average, and {scores[options]:.2f} with {options}; say so, or name the "
            "present preparation with --order and --scale if it is right"
        )


def _check_boxes(candidates: NDArray[np.float32], record: Adapted) -> None:
    """Refuse a reading of the boxes with which they lie astray, where the other one puts them into the image."""
    if record.reading is None or record.reading.boxes == "corners-yx":
        return
    boxes, scores = candidates[..., :4], candidates[..., 4]
    sure = boxes[(scores > 0) & (scores >= scores.max(1, keepdims=True) / 2)].astype(np.float64)
    first, second = sure[:, :2], sure[:, 2:]
    if record.reading.boxes == "centers":
        other, option = np.hstack([(first + second) / 2, second - first]), "corners"
    else:
        other, option = np.hstack([first - second / 2, first + second / 2]), "centers"
    size = record.spec.width, record.spec.height
    here, there = _share_inside(sure, size), _share_inside(other, size)
    if len(sure) >= FEWEST_BOXES and here < ASTRAY and there >= IN_IMAGE:
        raise BuildError(
            f"on {len(candidates)} of your images {here:.0%} of the boxes that the detector is surest of lie in the "
            f"image, with {record.reading}, and {there:.0%} with --boxes {option}; say so, or name the present reading "
            f"with --boxes {record.reading.boxes} if it is right"
        )


def _share_inside(boxes_xyxy: NDArray[np.float64], size: tuple[int, int]) -> float:
    """Return which share of boxes [n, 4] in pixels have a size and lie in an image of a width and height."""
    first, second = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    lie_in = (second > first).all(1) & inside(first, second, size, BEYOND)
    return float(lie_in.mean()) if len(lie_in) else 0.0


def _best_score(candidates: NDArray[np.float32]) -> float:
    """Return the best candidate's score, on average over images."""
    return float(candidates[:, 0, 4].mean())


def _spread(images: Sequence[Path], count: int) -> list[Path]:
    """Return so many of the images, from the first to the last."""
    places = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int))
    return [images[place] for place in places] if images else []


def _letterboxed(images: Sequence[Path], record: Adapted) -> NDArray[np.uint8]:
    """Return the pixels of the images that can be read."""
    done = preprocess([image.read_bytes() for image in images], record.spec)
    readable: list[Any] = [not error for error in done.errors]
    return np.asarray(done.pixels[readable])


def _sizes(images: Sequence[Path]) -> list[tuple[int, int]]:
    sizes = []
    for image in images:
        with contextlib.suppress(ImageError):
            sizes.append(read_header(image.read_bytes()).upright)
    return sizes
