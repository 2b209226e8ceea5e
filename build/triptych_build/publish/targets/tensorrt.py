"""The detector in Triton's Python backend, on TensorRT's Python API."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from triptych.contract import names_id
from triptych.cuda import pixels_of
from triptych.files import Hold
from triptych.runtimes import open_runtime
from triptych.serving.stages.time_limit import time_limit
from triptych.vision.stamp import stamp


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        version = Path(args["model_repository"]) / args["model_version"]
        parameters = json.loads(args["model_config"])["parameters"]
        self.names = names_id(json.loads(parameters["class_names"]["string_value"]))
        self.in_use = Hold(version)
        gpu = int(args["model_instance_device_id"])
        self.runtime: Any = open_runtime("tensorrt", version / "model.plan", threads=1, gpu=gpu)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run all requests that Triton gathered as one batch: a GPU likes them together."""
        pixels = [pixels_of(pb_utils.get_input_tensor_by_name(request, "pixels")) for request in requests]
        with time_limit():
            candidates = self.runtime.detect_parts(pixels)
        ends = np.cumsum([len(images) for images in pixels])
        parts = np.split(stamp(candidates, self.names), ends[:-1])
        return [pb_utils.InferenceResponse([pb_utils.Tensor("candidates", part)]) for part in parts]
