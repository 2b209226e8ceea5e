"""The detector in Triton's Python backend, on TensorRT's Python API."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from triptych.contract import MAX_BATCH, names_id
from triptych.cuda import pixels_of
from triptych.files import Hold
from triptych.runtimes import open_runtime
from triptych.serving.stages.time_limit import time_limit
from triptych.vision.stamp import stamp

LOST = (
    "pixels came through the host's memory to a detector that takes them on the GPU alone: Triton's pool of GPU memory "
    "was full, and damages what it hands on then"
)


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        version = Path(args["model_repository"]) / args["model_version"]
        parameters = json.loads(args["model_config"])["parameters"]
        self.names = names_id(json.loads(parameters["class_names"]["string_value"]))
        self.in_use = Hold(version)
        gpu = int(args["model_instance_device_id"])
        self.runtime: Any = open_runtime("tensorrt", version / "model.plan", threads=1, gpu=gpu)
        self.takes_host_pixels = parameters.get("pixels_from", {}).get("string_value") != "gpu"
        if not self.takes_host_pixels:  # and so not those of Triton's warm-up
            for size in (1, MAX_BATCH):
                self.runtime.detect(np.zeros((size, *self.runtime.input_shape), np.uint8))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run all requests that Triton gathered as one batch: a GPU likes them together."""
        tensors = [pb_utils.get_input_tensor_by_name(request, "pixels") for request in requests]
        are_taken = [self.takes_host_pixels or not tensor.is_cpu() for tensor in tensors]
        answers = self.detect([tensor for tensor, is_taken in zip(tensors, are_taken, strict=True) if is_taken])
        return [next(answers) if is_taken else self.refuse() for is_taken in are_taken]

    def detect(self, tensors: list[Any]) -> Iterator[Any]:
        if not tensors:
            return
        pixels = [pixels_of(tensor) for tensor in tensors]
        with time_limit():
            candidates = self.runtime.detect_parts(pixels)
        ends = np.cumsum([len(images) for images in pixels])
        for part in np.split(stamp(candidates, self.names), ends[:-1]):
            yield pb_utils.InferenceResponse([pb_utils.Tensor("candidates", part)])

    def refuse(self) -> Any:
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(LOST, pb_utils.TritonError.UNAVAILABLE))
