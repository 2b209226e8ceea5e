"""The proof that an opened batch changes no result: both models run on images with ONNX Runtime, and are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnxruntime
from numpy.typing import NDArray


def find_difference(original: onnx.ModelProto, opened: onnx.ModelProto, image: str, suspect: str) -> str:
    """Run both on one image more than the fixed batch, all different, and compare image by image.

    Args:
        original: takes a fixed batch of float images at the input `image`.
        opened: the same model with a batch of any size.
        image: the name of that input.
        suspect: the operator to blame if the results differ, in words; may be empty.

    Returns:
        What is wrong with the opened model, in words; empty if nothing is.
    """
    image_type = next(value for value in original.graph.input if value.name == image).type.tensor_type
    fixed, *shape = (dim.dim_value for dim in image_type.shape.dim)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(image_type.elem_type)
    reference = _session(original)
    noise = np.random.default_rng(0).random((fixed + 1, *shape), np.float32)
    for brightness in (1, 255):  # a model takes one or the other; the wrong one may show it nothing
        images = (noise * brightness).astype(dtype)
        first, last = (reference.run(None, {image: batch}) for batch in (images[:fixed], images[1:]))
        if _differ([output[0] for output in first], [output[-1] for output in last]):
            break
    else:
        return "different images gave the same results, so that nothing could be checked"
    expected = [np.concatenate([one, other[-1:]]) for one, other in zip(first, last, strict=True)]
    try:
        results = _session(opened).run(None, {image: images})
    except Exception as error:  # ONNX Runtime's errors share no class
        words = (str(error) or type(error).__name__).splitlines()[0]
        return suspect or f"the opened model does not run ({words})"
    if _differ(expected, results):
        return suspect or f"on a batch of {fixed + 1} the opened model gives other results"
    return ""


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _differ(expected: Sequence[NDArray[Any]], results: Sequence[NDArray[Any]]) -> bool:
    """Return whether any output has another shape, or differs by more than the order of sums explains."""
    for one, other in zip(expected, results, strict=True):
        if one.shape != other.shape:
            return True
        coarse = one.dtype == np.float16
        scale = float(np.abs(one, dtype=np.float64).max(initial=0)) if one.dtype.kind == "f" else 0.0
        tolerance = {"rtol": 1e-2, "atol": 1e-3 * scale} if coarse else {"rtol": 1e-4, "atol": 1e-5 * scale}
        if not np.allclose(other, one, equal_nan=True, **tolerance):
            return True
    return False
