"""TorchScript: the traced, frozen and fused module of `triptych_build.compare.pytorch`."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from triptych.errors import BuildError
from triptych_build.compare import pytorch

TOLERANCE = 1e-3
"""How far the scores of a trace may be from the module's own."""


class TorchScriptRuntime(pytorch.PyTorchRuntime):
    """A traced module; it takes batches of any size as long as the model does."""

    def __init__(self, model: Path, threads: int, precision: str = "f32", gpu: int | None = None) -> None:
        """See `PyTorchRuntime`."""
        super().__init__(model, threads, precision, gpu)
        # A trace freezes what depends on the pixels: other pixels, and more of them, show whether anything does.
        noise = np.random.default_rng(0).integers(0, 256, (2, *self.input_shape), dtype=np.uint8)
        eager = self.detect(noise)
        example = torch.zeros(1, *self.input_shape, dtype=torch.uint8, device=self._device)
        try:
            with warnings.catch_warnings(), torch.no_grad(), self._autocast():
                # TorchScript is deprecated and still deployed; what the tracer warns of is checked below.
                warnings.simplefilter("ignore", DeprecationWarning)
                warnings.simplefilter("ignore", torch.jit.TracerWarning)
                traced = torch.jit.trace(self._module, example, check_trace=False)
                self._module = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
            self.detect(noise)  # TorchScript optimises in its first run
            same = self._same_scores(self.detect(noise), eager)
        except RuntimeError:
            same = False
        if not same:
            raise BuildError(
                f"{model} cannot be traced for TorchScript: its shapes depend on the image; use pytorch instead"
            )

    @staticmethod
    def _same_scores(traced: NDArray[np.float32], eager: NDArray[np.float32]) -> bool:
        """Return whether two runs agree; boxes with nearly equal scores may change places, and scores stay in order."""
        return traced.shape == eager.shape and bool(np.abs(traced[..., 4] - eager[..., 4]).max() < TOLERANCE)
