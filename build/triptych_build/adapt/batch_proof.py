"""The proof that an opened batch changes no result: both models run on images with ONNX Runtime, and are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from triptych_build.adapt import probe

CANNOT_TELL = "different images gave the same results but for rounding, so that nothing could be checked"
"""What weights that were never trained may do, and constant models."""

ROUNDING = 1e-5
"""What the order of sums explains, as a share of an output's largest value."""


def find_difference(original: onnx.ModelProto, opened: onnx.ModelProto, image: str, suspect: str) -> str:
    """Run both on more images than the fixed batch, all different, and compare image by image.

    Args:
        original: takes a fixed batch of images at the input `image`.
        opened: the same model with a batch of any size.
        image: the name of that input.
        suspect: the operator to blame if the results differ, in words; may be empty.

    Returns:
        What is wrong with the opened model, in words; `CANNOT_TELL` if its results show nothing; empty if it is right.
    """
    value = next(value for value in original.graph.input if value.name == image)
    reason = CANNOT_TELL
    batches = probe.probe_images(value)
    fixed = len(batches[0])
    # A model takes 0..1 or 0..255; the wrong one may show it nothing.
    for first, second in zip(batches[::2], batches[1::2], strict=True):
        images = np.concatenate([first, second[-1:]])
        reason = _compare(original, opened, image, images, fixed)
        if reason != CANNOT_TELL:
            break
    return (suspect or reason) if reason not in ("", CANNOT_TELL) else reason


def _compare(original: onnx.ModelProto, opened: onnx.ModelProto, image: str, images: NDArray[Any], fixed: int) -> str:
    first, last = probe.run(original, image, [images[:fixed], images[1:]])
    expected = [np.concatenate([one, other[-1:]]) for one, other in zip(first, last, strict=True)]
    try:
        [results] = probe.run(opened, image, [images])
    except Exception as error:  # ONNX Runtime's errors share no class
        return f"the opened model does not run ({(str(error) or type(error).__name__).splitlines()[0]})"
    wrong = f"on a batch of {fixed + 1} the opened model gives other results"
    told_apart = False
    for one, other in zip(expected, results, strict=True):
        if one.shape != other.shape or not _close(one, other):
            return wrong
        wide, seen = one.astype(np.float64), other.astype(np.float64)
        off = _largest(wide - seen)
        apart = _largest(wide[:-1] - wide[1:])
        if 10 * off < apart:
            told_apart = True
        elif apart > ROUNDING * _largest(wide):
            return wrong
    return "" if told_apart else CANNOT_TELL


def _largest(values: NDArray[np.float64]) -> float:
    return float(np.abs(np.nan_to_num(values, posinf=0, neginf=0)).max(initial=0))


def _close(expected: NDArray[Any], result: NDArray[Any]) -> bool:
    """Return whether an output differs by no more than the order of sums explains."""
    scale = _largest(expected.astype(np.float64)) if expected.dtype.kind == "f" else 0.0
    tolerance = (
        {"rtol": 1e-2, "atol": 1e-3 * scale}
        if expected.dtype == np.float16
        else {"rtol": 1e-4, "atol": ROUNDING * scale}
    )
    return np.allclose(result, expected, equal_nan=True, **tolerance)
