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

PRECISIONS = "f32", "f16"


class PyTorchRuntime:
    """A torch module; a model whose batch is fixed at 1 is run image by image."""

    def __init__(self, model: Path, threads: int, precision: str = "f32", gpu: int | None = None) -> None:
        """Convert a model for a GPU, by CUDA's number, or for the CPU.

        In f16, torch's autocast calculates convolutions and matrices in float16 and all else as the file says.

        Raises:
            BuildError: it cannot be converted, there is no such precision, or torch sees no GPU.
        """
        if precision not in PRECISIONS:
            raise BuildError(f"torch's precision must be one of {', '.join(PRECISIONS)}, but got {precision!r}")
        if gpu is not None and not torch.cuda.is_available():
            raise BuildError(
                f"torch {torch.__version__} sees no GPU here; install a torch with CUDA that fits its driver"
            )
        self._device = torch.device("cpu" if gpu is None else f"cuda:{gpu}")
        self._is_half = precision == "f16"
        converted = convert(model)
        self.input_shape = converted.input_shape
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
        return torch.autocast(self._device.type, torch.float16, enabled=self._is_half, cache_enabled=False)
