"""OpenVINO on the CPU, which runs the detector of the embedded server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from triptych.errors import BuildError
from triptych.runtimes import check_pixels

PRECISIONS = ("f32", "bf16")


class OpenVinoRuntime:
    """A detector compiled for one image at a time.

    A batch is a loop. On a CPU that costs nothing, and it keeps the shape static, which OpenVINO runs faster. The
    candidates of an image are the same to the bit in every batch.
    """

    def __init__(self, model: Path, threads: int, precision: str = "f32") -> None:
        if precision not in PRECISIONS:
            raise BuildError(f"OpenVINO's precision must be one of {', '.join(PRECISIONS)}, but got {precision!r}")
        core = openvino.Core()
        # OpenVINO would calculate in f32 without a word.
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise BuildError("this CPU has no bfloat16 (avx512_bf16 or amx_bf16); use f32")
        graph = core.read_model(model)
        height, width, channels = (side.get_length() for side in list(graph.input().get_partial_shape())[1:])
        graph.reshape([1, height, width, channels])
        self.input_shape = (height, width, channels)
        compiled = core.compile_model(
            graph,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
                # With pinning, the threads of every process would share the first cores and leave the others idle.
                "ENABLE_CPU_PINNING": False,
                # OpenVINO calculates in bfloat16 by default if the CPU can. A model published as fp32 must stay fp32.
                "INFERENCE_PRECISION_HINT": precision,
            },
        )
        self._request = compiled.create_infer_request()

    def detect(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the candidates, float32 [N, K, 6], of pixels uint8 [N, H, W, 3]."""
        check_pixels(pixels, self.input_shape)
        rows = []
        for image in np.ascontiguousarray(pixels):
            self._request.infer([openvino.Tensor(image[None], shared_memory=True)], share_inputs=True)
            rows.append(self._request.get_output_tensor().data[0].copy())
        return np.stack(rows)
