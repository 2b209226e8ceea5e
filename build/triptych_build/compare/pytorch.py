"""PyTorch in eager mode on the CPU: the module that onnx2torch makes of an adapted ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from triptych.runtimes import check_pixels
from triptych_build.compare.onnx2torch import convert


class PyTorchRuntime:
    """A torch module; a model whose batch is fixed at 1 is run image by image."""

    def __init__(self, model: Path, threads: int) -> None:
        converted = convert(model)
        self.input_shape = converted.input_shape
        self._module: Any = converted.module
        self._one_by_one = converted.one_by_one
        self._threads = threads
        self.detect(np.zeros((1, *self.input_shape), np.uint8))  # what torch refuses, it refuses here

    def detect(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return candidates float32 [N, K, 6] of pixels uint8 [N, H, W, 3]."""
        check_pixels(pixels, self.input_shape)
        torch.set_num_threads(self._threads)  # torch keeps the number for each thread that calls it
        tensor = torch.from_numpy(np.ascontiguousarray(pixels))
        with torch.inference_mode():
            batches = tensor.split(1) if self._one_by_one else (tensor,)
            candidates: NDArray[np.float32] = torch.cat([self._module(batch) for batch in batches]).numpy()
        return candidates
