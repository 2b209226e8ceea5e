"""What needs no labels: the candidates of an adapted model on a few images are boxes in the image, with scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from triptych.contract import PIXELS
from triptych.errors import BuildError
from triptych_build.adapt import probe
from triptych_build.adapt.heads.values import LARGEST_FRACTION, are_scores
from triptych_build.adapt.onnx_file import Adapted


def check_adapted(
    model: onnx.ModelProto, record: Adapted, images: NDArray[np.uint8] | None = None
) -> NDArray[np.float32]:
    """Return the candidates of a few images, float32 [n, K, 6], if they can be what they are taken for.

    Args:
        model: the adapted model.
        record: what was made of the source.
        images: letterboxed images uint8 [n, H, W, 3]; by default a few that are drawn.

    Raises:
        BuildError: the message says what is wrong with them, and the option that may mend it.
    """
    is_drawn = images is None
    if images is None:
        images = probe.scenes(record.spec.width, record.spec.height)
    candidates = candidates_of(model, images)
    if wrong := implausible(candidates, record, is_drawn=is_drawn):
        reading = f", with {record.reading}" if record.reading else ""
        raise BuildError(
            f"on {len(images)} images the head {record.head}{reading}, gives candidates that cannot be right: {wrong}"
        )
    return candidates


def candidates_of(model: onnx.ModelProto, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what an adapted model gives for images uint8 [n, H, W, 3], one by one: candidates float32 [n, K, 6]."""
    return np.concatenate([outputs[0] for outputs in probe.run(model, PIXELS.name, [image[None] for image in images])])


def implausible(candidates: NDArray[Any], record: Adapted, *, is_drawn: bool = False) -> str:
    """Return in words what is wrong with candidates [n, K, 6]; empty if nothing is, or there are none.

    On images that are drawn, a network may give boxes without a size, or of less than a pixel all over the image, as
    weights that were hardly trained do.
    """
    if not np.isfinite(candidates).all():
        return "some are not finite; if the model is in half precision, export it in float32"
    rows = candidates.reshape(-1, 6).astype(np.float64)
    rows = rows[rows.any(1)]
    if not len(rows):
        return ""
    spec, scores, labels = record.spec, rows[:, 4], rows[:, 5]
    if not are_scores(scores):
        return (
            f"scores of {scores.min():.3g} to {scores.max():.3g}, where 0 to 1 are expected; choose what makes scores "
            "of them with --activation sigmoid or --activation softmax, or another --head"
        )
    if labels.min() < 0 or labels.max() >= len(spec.class_names) or not np.array_equal(labels, np.round(labels)):
        return (
            f"classes of {labels.min():.3g} to {labels.max():.3g}, where there are names for {len(spec.class_names)}; "
            "name all classes with --names FILE, or choose another --head"
        )
    sizes = rows[:, 2:4] - rows[:, :2]
    if not (sizes > 0).all(1).any():
        if is_drawn:
            return ""
        return "boxes that end before they begin; choose --boxes centers or --boxes corners"
    if not (sizes > 1).all(1).any() and not (is_drawn and np.abs(rows[:, :4]).max() > LARGEST_FRACTION):
        return "boxes of at most one pixel; if the model gives them in 0..1, choose --unit fractions"
    if not ((rows[:, :2] < (spec.width, spec.height)) & (rows[:, 2:4] > 0)).all(1).any():
        return (
            f"boxes that lie outside the image of {spec.width}x{spec.height}; if the model gives them in pixels, "
            "choose --unit pixels"
        )
    return ""
