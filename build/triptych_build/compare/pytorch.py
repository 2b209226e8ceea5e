"""PyTorch in eager mode: the module that onnx2torch makes of an adapted ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from triptych.errors import BuildError
from triptych.runtimes import check_pixels
from triptych_build.compare.onnx2torch import convert

PRECISIONS = {"f32": torch.float32, "f16": torch.float16}


class PyTorchRuntime:
    """A torch module; a model whose batch is fixed at 1 is run image by image."""

    def __init__(self, model: Path, threads: int, device: torch.device | None = None, precision: str = "f32") -> None:
        """Convert a model for a device, the CPU without one.

        In f16, torch's autocast calculates convolutions and matrices in float16 and all else as the file says.

        Raises:
            BuildError: it cannot be converted, or there is no such precision.
        """
        if precision not in PRECISIONS:
            raise BuildError(f"torch's precision must be one of {', '.join(PRECISIONS)}, but got {precision!r}")
        converted = convert(model)
        self.input_shape = converted.input_shape
        self._device = device or torch.device("cpu")
        self._precision = PRECISIONS[precision]
        self._module: Any = converted.module.to(self._device)
        self._one_by_one = converted.one_by_one
        self._threads = threads
        self.detect(np.zeros((1, *self.input_shape), np.uint8))  # what torch refuses, it refuses here

    def detect(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return candidates float32 [N, K, 6] of pixels uint8 [N, H, W, 3]."""
        check_pixels(pixels, self.input_shape)
        torch.set_num_threads(self._threads)  # torch keeps the number for each thread that calls it
        tensor = torch.from_numpy(np.ascontiguousarray(pixels)).to(self._device)
        with torch.inference_mode(), self._autocast():
            batches = tensor.split(1) if self._one_by_one else (tensor,)
            candidates = torch.cat([self._module(batch) for batch in batches]).float()
        on_host: NDArray[np.float32] = candidates.cpu().numpy()
        return on_host

    def _autocast(self) -> Any:
        # A trace must not keep weights that a cache has converted.
        is_on = self._precision != torch.float32
        return torch.autocast(self._device.type, torch.float16, enabled=is_on, cache_enabled=False)


def on_gpu(model: Path, threads: int, precision: str = "f32", gpu: int = 0) -> PyTorchRuntime:
    """Return a runtime on a GPU, by CUDA's number; see `PyTorchRuntime`."""
    return PyTorchRuntime(model, threads, device_of(gpu), precision)


def device_of(gpu: int) -> torch.device:
    """Return torch's name of a GPU.

    Raises:
        BuildError: this torch has no CUDA, or sees no GPU.
    """
    if not torch.cuda.is_available():
        raise BuildError(f"torch {torch.__version__} sees no GPU here; install a torch with CUDA that fits its driver")
    return torch.device("cuda", gpu)
