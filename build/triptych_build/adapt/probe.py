"""A few images to run a source on, and what it gives for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnxruntime
from numpy.typing import NDArray

from triptych_build.adapt.heads.head import AS_BYTES, SCENES, Normalization

OBJECTS = 12
"""Coloured rectangles in an image."""


def scenes(width: int, height: int, count: int = SCENES) -> NDArray[np.uint8]:
    """Return images uint8 [count, height, width, 3] of coloured rectangles on a gradient, the same each time."""
    rng = np.random.default_rng(0)
    images = np.empty((count, height, width, 3), np.uint8)
    across, down = np.linspace(0, 1, width)[None, :, None], np.linspace(0, 1, height)[:, None, None]
    for image in images:
        colours = rng.integers(0, 256, (3, 3))
        ground = colours[0] + (colours[1] - colours[0]) * across / 2 + (colours[2] - colours[0]) * down / 2
        image[:] = np.clip(ground + rng.normal(0, 8, image.shape), 0, 255)
        for _ in range(OBJECTS):
            left, top = rng.integers(0, width), rng.integers(0, height)
            right, bottom = left + rng.integers(1, width // 2 + 2), top + rng.integers(1, height // 2 + 2)
            image[top:bottom, left:right] = rng.integers(0, 256, 3)
    return images


def probe_images(image: onnx.ValueInfoProto, told: Normalization | None = None) -> list[NDArray[Any]]:
    """Return batches for an input [N, 3, H, W], as is told, or else as dim as 0..1 and as bright as 0..255."""
    batch, _, height, width = (dim.dim_value or 1 for dim in image.type.tensor_type.shape.dim)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(image.type.tensor_type.elem_type)
    shown = scenes(width, height, SCENES * batch).transpose(0, 3, 1, 2).reshape(SCENES, batch, 3, height, width)
    ways = (AS_BYTES,) if np.issubdtype(dtype, np.integer) else (told,) if told else (Normalization(), AS_BYTES)
    return [_prepared(one, way).astype(dtype) for way in ways for one in shown]


def _prepared(images: NDArray[np.uint8], way: Normalization) -> NDArray[np.float64]:
    """Return RGB images [N, 3, H, W] as a network takes them."""
    mean, std = (np.array(values)[:, None, None] for values in (way.mean, way.std))
    prepared: NDArray[np.float64] = ((images if way.order == "rgb" else images[:, ::-1]) * way.scale - mean) / std
    return prepared


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Open a model in ONNX Runtime on the CPU, quietly."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto, image: str, batches: Sequence[NDArray[Any]]) -> list[list[NDArray[Any]]]:
    """Return the outputs of a model for each batch."""
    opened = session(model)
    return [opened.run(None, {image: batch}) for batch in batches]
