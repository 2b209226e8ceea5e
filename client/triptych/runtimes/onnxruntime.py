"""ONNX Runtime on the CPU, the reference that the others are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from triptych.contract import CANDIDATES, PIXELS
from triptych.runtimes import check_pixels


class OnnxRuntime:
    """A session. It runs a model whose batch is fixed at 1 image by image."""

    def __init__(self, model: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # On a CPU without VNNI its int8 kernels would saturate sums; elsewhere this changes nothing.
        options.add_session_config_entry("session.x64quantprecision", "1")
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        batch, *shape = self._session.get_inputs()[0].shape
        height, width, channels = shape
        self.input_shape = (height, width, channels)
        self._one_by_one = batch == 1

    def detect(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the candidates, float32 [N, K, 6], of pixels uint8 [N, H, W, 3]."""
        check_pixels(pixels, self.input_shape)
        batches = np.split(pixels, len(pixels)) if self._one_by_one else [pixels]
        rows = [self._session.run([CANDIDATES.name], {PIXELS.name: batch})[0] for batch in batches]
        return cast("NDArray[np.float32]", np.concatenate(rows))
