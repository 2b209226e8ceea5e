"""The trained network as an ONNX file, with the metadata that tools read."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from triptych.errors import BuildError
from triptych_demo.detector.boards import generate
from triptych_demo.detector.camera import SIZE
from triptych_demo.detector.defects import CLASS_NAMES
from triptych_demo.detector.evaluate import Floats
from triptych_demo.detector.model import STRIDES, Detector, Exported

SAMPLE_SEED = 1001
"""The series whose first two boards both are compared on."""


def export(model: Detector, path: Path, statistic: Callable[[Floats], Any] = np.max, limit: float = 1e-2) -> float:
    """Write `model` as ONNX with its metadata; return how far both are apart on two boards.

    The difference is in pixels for boxes and in 0..1 for scores, and `statistic` makes one number of it.

    Raises:
        BuildError: that number is above `limit`.
    """
    wrapped = Exported(copy.deepcopy(model).cpu().float().to(memory_format=torch.contiguous_format).eval().fuse())
    pixels = np.stack([generate(SAMPLE_SEED, index).image for index in range(2)])
    sample = torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    try:
        torch.onnx.export(
            wrapped,
            (sample,),
            str(aside),
            opset_version=17,
            dynamo=False,
            input_names=["images"],
            output_names=["output0"],
            dynamic_axes={"images": {0: "batch"}, "output0": {0: "batch"}},
        )
        _describe(aside)
        with torch.no_grad():
            expected = wrapped(sample).numpy()
        session = onnxruntime.InferenceSession(str(aside), providers=["CPUExecutionProvider"])
        difference = float(statistic(np.abs(session.run(None, {"images": sample.numpy()})[0] - expected)))
        if difference > limit:
            raise BuildError(f"the exported ONNX differs from PyTorch by {difference:.4g}, more than {limit:g}")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return difference


def _describe(path: Path) -> None:
    """Write the metadata that tools read: class names as in Ultralytics' exports, task, stride, size, licence."""
    model = onnx.load(str(path))
    properties = {
        "names": str(dict(enumerate(CLASS_NAMES))),
        "task": "detect",
        "stride": str(max(STRIDES)),
        "imgsz": json.dumps([SIZE, SIZE]),
        "author": "Triptych",
        "license": "Apache-2.0",
        "description": "Bare printed-circuit-board defects; trained on generated boards",
    }
    onnx.helper.set_model_props(model, properties)
    batch = model.graph.output[0].type.tensor_type.shape.dim
    for dim, size in zip(batch[1:], (4 + len(CLASS_NAMES), sum((SIZE // s) ** 2 for s in STRIDES)), strict=True):
        dim.dim_value = size
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
